"""Blocks packed from several texts: which text each token belongs to, and where in it."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int64


class Segments(NamedTuple):
    """Number of the segment of each token, and the token's place within it, both from 0."""

    segment_ids: Int64[np.ndarray, "B L"]
    positions: Int64[np.ndarray, "B L"]


def split_at_eos(ids: Int64[np.ndarray, "B L"], eos_id: int) -> Segments:
    """Divide each block into segments; an EOS is the last token of the segment it ends.

    Args:
        ids: packed blocks, before any masking.
        eos_id: token at the end of each segment; the last segment may lack it.
    """
    begins = np.zeros(ids.shape, dtype=bool)
    begins[:, 1:] = ids[:, :-1] == eos_id
    segment_ids = begins.cumsum(axis=1, dtype=np.int64)
    begins[:, 0] = True
    starts = np.flatnonzero(begins)
    lengths = np.diff(starts, append=ids.size)
    positions = np.arange(ids.size) - np.repeat(starts, lengths)
    return Segments(segment_ids, positions.reshape(ids.shape))
