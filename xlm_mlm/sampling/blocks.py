"""Semi-autoregressive decoding: any position rule, inside the leftmost unfinished block."""

import dataclasses

import torch
from jaxtyping import Integer
from torch import Tensor

from xlm_mlm.checks import require_int
from xlm_mlm.sampling.candidates import Candidates


class Blocks:
    """Opens one block of each row at a time, from left to right (LLaDA, arXiv 2502.09992).

    A row's passes are shared out among its unfinished blocks in proportion to their masks, at
    least one each. Where there are fewer passes than blocks, neighbouring ones are opened
    together.

    Args:
        block_length: positions of a block, counted from the first one that was not given.

    Raises:
        ValueError: it is below 1.
    """

    def __init__(self, block_length: int) -> None:
        # Longer than any row is as good as endless.
        self.block_length = min(require_int("block_length", block_length, 1, None), 2**31)

    def open(self, candidates: Candidates, offsets: Integer[Tensor, "A K"]) -> Candidates:
        """Keep the candidates of each line's open block.

        Args:
            candidates: all masks; `passes_left` is one number.
            offsets: where each stands, counted from the row's first position that was not given.

        Returns:
            The same lines with fewer valid places, and `passes_left` those of the open block.
        """
        valid, left = candidates.valid, candidates.passes_left
        block = (offsets // self.block_length).masked_fill(~valid, -1)
        begins = torch.ones_like(valid)
        begins[:, 1:] = block[:, 1:] != block[:, :-1]
        number = (begins & valid).cumsum(dim=1)  # from 1, in unfinished blocks
        blocks = (begins & valid).sum(dim=1)
        together = (blocks + left - 1) // left
        opened = valid & (number <= together[:, None])
        share = opened.sum(dim=1) * left // valid.sum(dim=1).clamp_min(1)
        # So many passes that every later block keeps one.
        most = (left - (blocks - together)).clamp_min(1)
        passes = torch.where(together > 1, 1, torch.minimum(share.clamp_min(1), most))
        return dataclasses.replace(candidates, valid=opened, passes_left=passes)
