"""Small distributions that can be enumerated, as models of the bare protocol."""

import itertools
import math
from functools import cache

import torch

MASK = 0


class TableDenoiser(torch.nn.Module):
    """Probabilities of every token by what is visible; the mask is token 0."""

    def __init__(self, vocabulary, conditional):
        super().__init__()
        self.vocabulary, self.conditional = vocabulary, cache(conditional)
        self.calls = []

    def forward(self, x_t, attention_mask=None, positions=None, block_mask=None):
        self.calls.append(tuple(x_t.shape))
        rows = [
            [self.conditional(tuple(row), column) for column in range(len(row))]
            for row in x_t.tolist()
        ]
        return torch.tensor(rows, dtype=torch.float64).log()


def random_joint(length, vocabulary, generator):
    """p of every sequence of the tokens 1 to `vocabulary`."""
    sequences = list(itertools.product(range(1, vocabulary + 1), repeat=length))
    weights = torch.rand(len(sequences), generator=generator, dtype=torch.float64) ** 3
    return dict(zip(sequences, (weights / weights.sum()).tolist(), strict=True))


def exact_denoiser(joint, vocabulary):
    """Conditionals of a joint: all orders agree, and give its own probabilities."""

    def conditional(row, column):
        masses = [0.0] * (vocabulary + 1)
        for sequence, p in joint.items():
            if all(seen in (MASK, token) for seen, token in zip(row, sequence, strict=True)):
                masses[sequence[column]] += p
        return [mass / sum(masses) for mass in masses]

    return TableDenoiser(vocabulary, conditional)


def wrong_denoiser(vocabulary, seed):
    """Conditionals that belong to no joint: drawn anew for each set of visible tokens."""

    def conditional(row, column):
        code = seed
        for token in (*row, column):
            code = code * 31 + token + 1
        generator = torch.Generator().manual_seed(code)
        return torch.randn(vocabulary + 1, generator=generator).mul(1.5).softmax(0).tolist()

    return TableDenoiser(vocabulary, conditional)


def bound_over_orders(model, tokens, maskable):
    """Mean over all orders of the negative log-likelihood in that order, by enumeration."""
    places = [i for i, free in enumerate(maskable) if free]
    orders = list(itertools.permutations(places))
    total = 0.0
    for order in orders:
        row = [MASK if i in places else token for i, token in enumerate(tokens)]
        for place in order:
            total -= math.log(model.conditional(tuple(row), place)[tokens[place]])
            row[place] = tokens[place]
    return total / len(orders)
