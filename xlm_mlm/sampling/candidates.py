"""The masked positions of the rows still at work, laid out as a grid."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Float64, Integer
from torch import Tensor


@dataclass(frozen=True)
class Candidates:
    """What a position strategy chooses from: one line a row, its masks from left to right.

    A = rows with a mask, K = the most masks any of them has, M = all masks, V = vocabulary.

    Attributes:
        rows: the batch's number of each line.
        columns: the column of each candidate; 0 in unused places at a line's end.
        valid: where a line holds a candidate.
        passes_left: forward passes left, this one included; within blocks, those left for the
            open block, one number a line.
        passes_done: passes before this one.
        noise: uniform numbers in [0, 1), one for each place; None for a strategy that says it
            needs none.
        logits: of every candidate in reading order, fp32 or wider, tokens that are never
            produced at -inf; None for a strategy that does not look.
        memory: notes of a strategy, handed from pass to pass of one batch; it may put in what it
            likes, under names of its own. With a revision, passes in which every row was complete
            are not seen: compare `passes_done`.
        length: columns of the batch, so that `rows * length + columns` numbers its positions.
    """

    rows: Integer[Tensor, "A"]
    columns: Integer[Tensor, "A K"]
    valid: Bool[Tensor, "A K"]
    passes_left: int | Integer[Tensor, "A"] = 1
    passes_done: int = 0
    # Set by the predictor before a strategy sees them.
    noise: Float64[Tensor, "A K"] = None  # type: ignore[assignment]
    logits: Float[Tensor, "M V"] = field(default=None, repr=False)  # type: ignore[assignment]
    memory: dict[str, Any] = field(default_factory=dict, repr=False)
    length: int = 0

    @classmethod
    def of(cls, masked: Bool[Tensor, "B L"]) -> "Candidates":
        """Lay out the masks of a batch; `masked` is on the CPU."""
        rows = masked.any(dim=1).nonzero().squeeze(1)
        counts = masked[rows].sum(dim=1)
        width = int(counts.max()) if len(rows) else 0
        valid = torch.arange(width) < counts[:, None]
        columns = torch.zeros(len(rows), width, dtype=torch.long)
        columns[valid] = masked[rows].nonzero()[:, 1]
        return cls(rows, columns, valid, length=masked.shape[1])

    @cached_property
    def fixed_count(self) -> Integer[Tensor, "A"]:
        """Positions a row commits when its masks are spread evenly over the passes left."""
        masks = self.valid.sum(dim=1)
        return (masks + self.passes_left - 1) // self.passes_left

    @cached_property
    def last(self) -> Bool[Tensor, "A"]:
        """Lines with no pass to spare: all their candidates are committed, whatever is chosen."""
        left = torch.as_tensor(self.passes_left)
        return (left == 1).expand(len(self.rows))

    def flat(self, chosen: Bool[Tensor, "A K"]) -> Integer[Tensor, "N"]:
        """Row-major indices of the chosen candidates into the batch, on the CPU."""
        return (self.rows[:, None] * self.length + self.columns)[chosen]

    def grid(self, values: Float[Tensor, "M"], fill: float) -> Float[Tensor, "A K"]:
        """Put one value for each candidate, in reading order, into the grid."""
        valid = self.valid.to(values.device)
        out = values.new_full(valid.shape, fill)
        # masked_scatter knows its size beforehand; a boolean index would synchronise on CUDA.
        return out.masked_scatter(valid, values)
