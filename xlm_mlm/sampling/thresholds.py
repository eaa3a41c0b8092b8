"""Position rules that compare the probability of the most probable token with a bound."""

from typing import Any

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor

from xlm_mlm.checks import require_int, require_number
from xlm_mlm.sampling.candidates import Candidates
from xlm_mlm.sampling.distributions import row_pieces
from xlm_mlm.sampling.positions import lowest
from xlm_mlm.sampling.scores import best_probability


class ProbabilityThreshold:
    """Every position whose most probable token has at least probability `tau`, else the best one.

    Fast-dLLM (arXiv 2505.22618). What is left when the passes run out is committed at once: give
    it as many passes as masks, and it will take fewer.

    Args:
        tau: above 0 and at most 1.

    Raises:
        ValueError: it is out of range.
    """

    needs_logits = True
    needs_noise = False

    def __init__(self, tau: float = 0.9) -> None:
        self.tau = _probability("tau", tau)

    def select(self, candidates: Candidates) -> Bool[Tensor, "A K"]:
        """Those that reach the bound, and the most probable one of each line."""
        p = candidates.grid(best_probability(candidates.logits), -1.0).double()
        valid = candidates.valid.to(p.device)
        return (p >= self.tau) & valid | lowest(-p, valid, _one_each(candidates))


class ProbabilityFactor:
    """As many positions, most probable first, as keep p of rank k at or above 1 - f / (k + 1).

    The factor rule of Fast-dLLM (arXiv 2505.22618): the more positions are committed together,
    the surer each has to be. The first rank is committed in any case.

    Args:
        factor: f, at least 0; 0 commits together only what is certain.

    Raises:
        ValueError: it is out of range.
    """

    needs_logits = True
    needs_noise = False

    def __init__(self, factor: float) -> None:
        self.factor = require_number("factor", factor, 0, "finite and at least 0")

    def select(self, candidates: Candidates) -> Bool[Tensor, "A K"]:
        """The longest prefix of the ranking in which every rank reaches its bound."""
        p = candidates.grid(best_probability(candidates.logits), -1.0).double()
        valid = candidates.valid.to(p.device)
        ranked, order = p.sort(dim=1, descending=True, stable=True)
        rank = torch.arange(1, p.shape[1] + 1, device=p.device)
        reached = ranked >= 1 - self.factor / (rank + 1)
        reached[:, :1] = True
        prefix = reached.long().cumprod(dim=1).bool()
        return torch.zeros_like(valid).scatter(1, order, prefix) & valid


class Klass:
    """Positions that are probable, and whose distribution has settled; else the best ones.

    KLASS (arXiv 2511.05664): commit where the most probable token's probability is above `tau` and
    KL(p now, p of the pass before) was below `kappa` in each of the last `history` passes. In a
    line with none, the `ceil(masks / passes left)` most probable ones.

    The logits of one pass are kept until the next.

    Args:
        tau: above 0 and at most 1.
        kappa: nats, above 0.
        history: passes, at least 1.

    Raises:
        ValueError: an option is out of range.
    """

    needs_logits = True
    needs_noise = False

    def __init__(self, tau: float = 0.9, kappa: float = 0.01, history: int = 2) -> None:
        self.tau = _probability("tau", tau)
        self.kappa = require_number("kappa", kappa, 0, "finite and above 0")
        if not kappa > 0:
            raise ValueError(f"kappa is {kappa}; it must be above 0: no divergence is below 0")
        self.history = require_int("history", history, 1)

    def select(self, candidates: Candidates) -> Bool[Tensor, "A K"]:
        """Those that have settled, or the most probable ones."""
        p = candidates.grid(best_probability(candidates.logits), -1.0).double()
        valid = candidates.valid.to(p.device)
        quiet = candidates.grid(self._quiet_passes(candidates), 0.0)
        settled = (p > self.tau) & (quiet >= self.history) & valid
        best = lowest(-p, valid, candidates.fixed_count)
        return torch.where(settled.any(dim=1, keepdim=True), settled, best)

    def _quiet_passes(self, candidates: Candidates) -> Float[Tensor, "M"]:
        """In how many passes up to this one each candidate's distribution hardly moved."""
        logits, memory = candidates.logits, candidates.memory
        flat = candidates.flat(candidates.valid)
        quiet = logits.new_zeros(len(flat))
        known, before, counted, when = memory.get("klass", (flat[:0], None, None, None))
        # A pass in which every row was complete is not seen here, and leaves no trace.
        if len(known) and when == candidates.passes_done - 1:
            # Both in reading order; a position that is new, or masked again, has no past.
            at = torch.searchsorted(known, flat).clamp_max(len(known) - 1)
            seen = known[at] == flat
            now, then = seen.nonzero().squeeze(1).to(logits.device), at[seen].to(logits.device)
            calm = divergence(logits[now], before[then]) < self.kappa
            quiet[now] = (counted[then] + 1) * calm
        memory["klass"] = (flat, logits, quiet, candidates.passes_done)
        return quiet


def divergence(p: Float[Tensor, "M V"], q: Float[Tensor, "M V"]) -> Float[Tensor, "M"]:
    """KL(p, q) in nats, of distributions given as logits; tokens of probability 0 add nothing."""
    parts: list[Any] = [torch.zeros(0, device=p.device)]
    for one, other in zip(row_pieces(p), row_pieces(q), strict=True) if len(p) else ():
        log_p, log_q = one.log_softmax(dim=-1), other.log_softmax(dim=-1)
        terms = log_p.exp() * (log_p - log_q)
        parts.append(terms.masked_fill(log_p == -torch.inf, 0.0).sum(dim=-1))
    return torch.cat(parts)


def _probability(name: str, value: float) -> float:
    number = require_number(name, value, 0, "above 0 and at most 1")
    if not 0 < number <= 1:
        raise ValueError(f"{name} is {value}; it must be above 0 and at most 1")
    return number


def _one_each(candidates: Candidates) -> Integer[Tensor, "A"]:
    return torch.ones(len(candidates.rows), dtype=torch.long)
