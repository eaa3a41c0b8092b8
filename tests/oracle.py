"""A joint distribution small enough to write out, and the denoiser that knows it exactly."""

import itertools

import torch

MASK, FIRST = 2, 7
"""Of the `tokenizer` fixture: the mask token, and the token of the number 0."""


class Oracle(torch.nn.Module):
    """Exact conditionals: log p(token at a position | the tokens that are not masked).

    Args:
        joint: probabilities, one dimension a position, one entry a token from `FIRST` on.
    """

    def __init__(self, joint, vocabulary=27):
        super().__init__()
        self.joint = torch.as_tensor(joint, dtype=torch.float64)
        length, size = self.joint.ndim, self.joint.shape[0]
        table = torch.full(((size + 1) ** length, length, vocabulary), -torch.inf)
        for code, seen in enumerate(itertools.product(range(size + 1), repeat=length)):
            for place in range(length):
                p = self.conditional(seen, place, size)
                table[code, place, FIRST : FIRST + size] = p.log().float()
        self.table, self.size, self.calls = table, size, 0
        self.dummy = torch.nn.Parameter(torch.zeros(()))

    def conditional(self, seen, place, size):
        """p(token at `place` | tokens seen elsewhere); `size` stands for a mask."""
        index = tuple(slice(None) if t == size or i == place else t for i, t in enumerate(seen))
        left = self.joint[index]
        others = [i for i, t in enumerate(seen) if t == size or i == place]
        sums = [n for n, i in enumerate(others) if i != place]
        p = left.sum(dim=sums) if sums else left
        # What can't have been seen may be answered in any way.
        return p / p.sum() if p.sum() > 0 else torch.full((size,), 1 / size, dtype=torch.float64)

    def forward(self, x_t, attention_mask=None, positions=None, block_mask=None):
        self.calls += 1
        digits = torch.where(x_t == MASK, self.size, x_t - FIRST)
        weights = (self.size + 1) ** torch.arange(x_t.shape[1] - 1, -1, -1)
        return self.table[(digits * weights).sum(dim=1)]


def chi_square_p(samples, joint):
    """p-value of the samples, rows of entries from 0 on, against the joint distribution."""
    joint = torch.as_tensor(joint, dtype=torch.float64)
    shape = joint.shape
    codes = torch.zeros(len(samples), dtype=torch.long)
    for place in range(joint.ndim):
        codes = codes * shape[place] + samples[:, place]
    counts = torch.bincount(codes, minlength=joint.numel()).double()
    expected = joint.flatten() * len(samples)
    possible = expected > 0
    if counts[~possible].any():
        return 0.0
    statistic = ((counts - expected)[possible] ** 2 / expected[possible]).sum()
    degrees = torch.tensor((int(possible.sum()) - 1) / 2.0, dtype=torch.float64)
    return float(torch.special.gammaincc(degrees, statistic / 2))
