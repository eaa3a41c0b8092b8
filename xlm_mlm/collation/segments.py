"""Blocks packed from several texts: which text each token belongs to, and where in it."""

from typing import NamedTuple

import torch
from jaxtyping import Integer
from torch import Tensor


class Segments(NamedTuple):
    """Number of the segment of each token, and the token's place within it, both from 0."""

    segment_ids: Integer[Tensor, "B L"]
    positions: Integer[Tensor, "B L"]


def split_at_eos(ids: Integer[Tensor, "B L"], eos_id: int) -> Segments:
    """Divide each block into segments; an EOS is the last token of the segment it ends.

    Args:
        ids: packed blocks, before any masking.
        eos_id: token at the end of each segment; the last segment may lack it.
    """
    ends = ids == eos_id
    segment_ids = ends.cumsum(dim=1) - ends.long()
    columns = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
    starts = torch.where(ends.roll(1, dims=1), columns, 0)
    # What rolled over from the end of the row lands in column 0, where a segment starts anyway.
    return Segments(segment_ids, columns - starts.cummax(dim=1).values)
