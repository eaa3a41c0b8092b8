"""How much the likelihood estimate of a text varies with how its masks are drawn.

Texts are drawn from Markov chains, whose conditionals are known: the denoiser is exact, and what
is left is the noise of the masks. Prints a table, in nats.
"""

import argparse
import math

import numpy as np
import torch
from torch import Tensor

TOKENS, LENGTH, PASSES = 12, 24, 8
# Of the rows of the transition matrices: some next tokens are likely, most are not.
CONCENTRATION = 0.3


class Chain:
    """A stationary Markov chain, and its conditionals given any visible tokens."""

    def __init__(self, seed: int) -> None:
        rows = np.random.default_rng(seed).dirichlet([CONCENTRATION] * TOKENS, size=TOKENS)
        step = torch.from_numpy(rows + 1e-9)  # no transition is impossible
        step /= step.sum(dim=1, keepdim=True)
        powers = [torch.eye(TOKENS, dtype=torch.float64)]
        for _ in range(LENGTH):
            powers.append(powers[-1] @ step)
        self.powers = torch.stack(powers)
        self.start = torch.linalg.matrix_power(step, 10_000)[0]

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Texts of LENGTH tokens, (count, LENGTH)."""
        texts = [torch.multinomial(self.start, count, True, generator=generator)]
        while len(texts) < LENGTH:
            following = self.powers[1][texts[-1]]
            texts.append(torch.multinomial(following, 1, generator=generator).squeeze(1))
        return torch.stack(texts, dim=1)

    def nll(self, x: Tensor) -> Tensor:
        """The texts' true negative log-likelihoods."""
        inner = self.powers[1][x[:, :-1], x[:, 1:]].log().sum(dim=1)
        return -self.start[x[:, 0]].log() - inner

    def token_nll(self, x: Tensor, masked: Tensor) -> Tensor:
        """-log p(token | visible tokens) of each masked token, 0 elsewhere.

        Only the nearest visible tokens matter, a at distance i on the left and b at distance j on
        the right: p(x | a, b) = P^i[a, x] P^j[x, b] / P^(i+j)[a, b].
        """
        here = torch.arange(LENGTH).expand_as(x)
        left = torch.where(masked, -1, here).cummax(dim=1).values
        right = torch.where(masked, LENGTH, here).flip(1).cummin(dim=1).values.flip(1)
        a, b = x.gather(1, left.clamp_min(0)), x.gather(1, right.clamp_max(LENGTH - 1))
        ends = right < LENGTH
        after = torch.where(ends, self.powers[(right - here).clamp_max(LENGTH), x, b], 1.0)
        before = self.powers[(here - left).clamp_max(LENGTH), a, x]
        before = torch.where(left < 0, self.start[x], before)
        both = self.powers[(right - left).clamp_max(LENGTH), a, b]
        both = torch.where(ends, torch.where(left < 0, self.start[b], both), 1.0)
        return -(before * after / both).log() * masked


def masks(counts: Tensor, generator: torch.Generator) -> Tensor:
    """So many masked tokens of each text, uniformly."""
    order = torch.rand(len(counts), LENGTH, generator=generator).argsort(dim=1).argsort(dim=1)
    return order < counts[:, None]


def estimate(kind: str, chain: Chain, x: Tensor, generator: torch.Generator) -> Tensor:
    """One estimate of each text's negative log-likelihood, from PASSES passes."""

    def uniform() -> Tensor:
        return torch.rand(len(x), dtype=torch.float64, generator=generator)

    total, seen, u = torch.zeros(len(x)).double(), torch.zeros(len(x)).double(), uniform()
    mask = torch.zeros_like(x, dtype=torch.bool)
    for k in range(PASSES):
        t = (u + k) / PASSES if "stratified" in kind else uniform()
        if "count" in kind:
            mask = masks(1 + (LENGTH * t).long().clamp_max(LENGTH - 1), generator)
        elif "complements" in kind:
            mask = ~mask if k % 2 else masks(((LENGTH + 1) * t).long(), generator)
        else:
            noise = torch.rand(x.shape, dtype=torch.float64, generator=generator)
            mask = noise < t[:, None]
        found, n = chain.token_nll(x, mask).sum(dim=1), mask.sum(dim=1)
        if "1/t" in kind:
            total += found / t
        elif "count" in kind:
            total += found * LENGTH / n
        elif "mean" in kind:
            total, seen = total + found, seen + n
        else:
            total += torch.where(n > 0, found * (LENGTH + 1) / n.clamp_min(1), 0.0)
    return total / seen * LENGTH if "mean" in kind else total / PASSES


KINDS = (
    "Bernoulli, 1/t",
    "stratified t, 1/t",
    "Bernoulli, (N+1)/n",
    "exact count, N/n",
    "complements, (N+1)/n",
    "stratified exact count, N/n",
    "mean over masked tokens, times N",
)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chains", type=int, default=20)
    parser.add_argument("--texts", type=int, default=20, help="of each chain")
    parser.add_argument("--draws", type=int, default=100, help="estimates of each text")
    sizes = parser.parse_args()
    generator = torch.Generator().manual_seed(0)
    errors: dict[str, list[Tensor]] = {kind: [] for kind in KINDS}
    for seed in range(sizes.chains):
        chain = Chain(seed)
        texts = chain.draw(sizes.texts, generator)
        x, true = texts.repeat_interleave(sizes.draws, dim=0), chain.nll(texts)
        for kind in KINDS:
            found = estimate(kind, chain, x, generator).view(len(texts), -1)
            errors[kind].append(found - true[:, None])
    print(f"{'masks and weights':<34}{'deviation':>10}{'bias':>8}  (nats)")
    for kind, found in errors.items():
        all_of = torch.cat(found)
        deviation = math.sqrt(all_of.var(dim=1).mean())
        print(f"{kind:<34}{deviation:>10.1f}{all_of.mean():>+8.1f}")


if __name__ == "__main__":
    main()
