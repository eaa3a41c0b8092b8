"""Rows of different lengths as rectangles, in a handful of array operations.

The rectangles are NumPy arrays until a batch is whole: on data of this size NumPy's comparisons
take a fraction of torch's time, and use no threads, which DataLoader workers would fight over.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int64, Integer
from torch import Tensor

from xlm_mlm.checks import require_choice, require_int, shown
from xlm_mlm.collation.rows import (
    Ragged,
    check_ids,
    check_rows,
    count_of,
    keep_last,
    write_rows,
)

Truncate = Literal["block", "max"] | None
TRUNCATE_CHOICES = ("block", "max", None)


class Framed(NamedTuple):
    """A padded rectangle, and the columns from and up to which each row is not padding."""

    ids: Int64[np.ndarray, "B L"]
    starts: Integer[np.ndarray, "B"] | int
    ends: Integer[np.ndarray, "B"] | int

    @property
    def valid(self) -> Bool[np.ndarray, "B L"]:
        """True where a token is not padding."""
        return span(self.starts, self.ends, self.ids.shape[1])


def check_truncate(truncate: Truncate) -> Truncate:
    """Return `truncate` if it is one of "block", "max" and None.

    Raises:
        ValueError: it is not.
    """
    return require_choice("truncate", truncate, TRUNCATE_CHOICES)


def size_limit(name: str, size: int | None, truncate: Truncate) -> int | None:
    """The largest width that `truncate` allows, None for no limit.

    Args:
        name: what the size is called, for messages.
        size: the configured size.
        truncate: "block" and "max" need a size; None needs none and ignores it.

    Raises:
        ValueError: `truncate` is unknown, or the size is missing or below 1.
    """
    check_truncate(truncate)
    if size is None and truncate is not None:
        raise ValueError(
            f"{name} is None, which truncate={truncate!r} cannot work with; give a size, or "
            "truncate=None to pad to the longest row and cut nothing"
        )
    if size is not None:
        size = require_int(name, size, 1)
    return size if truncate is not None else None


def fit_width(lengths: Integer[np.ndarray, "B"], limit: int | None, truncate: Truncate) -> int:
    """The width of a batch whose rows want `lengths` positions.

    "block" always takes the limit, "max" the longest row up to the limit, None the longest row.
    """
    if truncate == "block" and limit is not None:
        return limit
    longest = int(lengths.max())
    return longest if limit is None else min(longest, limit)


def span(
    start: Integer[np.ndarray, "B"] | int, end: Integer[np.ndarray, "B"] | int, width: int
) -> Bool[np.ndarray, "#B L"]:
    """True from column `start` up to `end`, which may lie outside; one row if both are ints."""
    # Half the width of NumPy's own integers, and so half the time to compare.
    columns = np.arange(width, dtype=np.int32)
    first, last = (np.asarray(x, dtype=np.int32).reshape(-1, 1) for x in (start, end))
    return (columns >= first) & (columns < last)


def write_token(
    ids: Int64[np.ndarray, "B L"], columns: Integer[np.ndarray, "B"], token_id: int
) -> None:
    """Write one token into each row of `ids`, in place; a column outside the width writes none."""
    rows = np.flatnonzero((columns >= 0) & (columns < ids.shape[1]))
    ids[rows, columns[rows]] = token_id


def frame_right(
    rows: Ragged, width: int, pad_id: int, bos_id: int | None = None, eos_id: int | None = None
) -> Framed:
    """`[BOS] tokens [EOS]`, padded on the right; an EOS that does not fit is left out.

    Args:
        rows: cut already, so that BOS and tokens fit `width`.
        width: columns.
        pad_id: token of the padding.
        bos_id: token before each row; None for none.
        eos_id: token after each row; None for none.
    """
    ids = np.full((len(rows.rows), width), pad_id, dtype=np.int64)
    lead = 0
    if bos_id is not None:
        ids[:, 0] = bos_id
        lead = 1
    write_rows(ids, rows, lead)
    ends = rows.lengths + lead
    if eos_id is not None:
        write_token(ids, ends, eos_id)
        ends = ends + 1
    return Framed(ids, 0, ends)


def frame_left(rows: Ragged, width: int, pad_id: int, bos_id: int | None = None) -> Framed:
    """`tokens [BOS]`, padded on the left, so that all rows end in the last column.

    Args:
        rows: cut already, so that tokens and BOS fit `width`.
        width: columns.
        pad_id: token of the padding.
        bos_id: token after each row, where the answer begins; None for none.
    """
    ids = np.full((len(rows.rows), width), pad_id, dtype=np.int64)
    tail = 0
    if bos_id is not None:
        ids[:, -1] = bos_id
        tail = 1
    starts = width - tail - rows.lengths
    write_rows(ids, rows, starts)
    return Framed(ids, starts, width)


def prepare_prefix_ids(
    prefix_ids: Sequence[Any],
    pad_token_id: int,
    max_seq_len: int | None = None,
    truncate: Truncate = "block",
) -> dict[str, Tensor]:
    """Pad prompts on the left and cut them on the left.

    Args:
        prefix_ids: the prompts; an empty one becomes a row of padding.
        pad_token_id: token of the padding.
        max_seq_len: positions a prompt may take; needed unless `truncate` is None.
        truncate: "block" gives exactly `max_seq_len` columns, "max" as many as the longest
            prompt needs up to that, None as many as the longest needs.

    Returns:
        `input_ids` and `attention_mask`, both (B, P).

    Raises:
        ValueError: no prompts, rows that are not token ids, every prompt empty where the width
            comes from the longest, or a size or `truncate` out of range.
    """
    limit = size_limit("max_seq_len", max_seq_len, truncate)
    pad_token_id = require_int("pad_token_id", pad_token_id, 0)
    if count_of(prefix_ids) is None:
        raise ValueError(f"prefix_ids is {shown(prefix_ids)}; it must be a list of prompts")
    if len(prefix_ids) == 0:
        raise ValueError("prefix_ids is empty; at least one prompt is needed")
    rows = keep_last(check_rows(prefix_ids, "prefix_ids", allow_empty=True), limit)
    width = fit_width(rows.lengths, limit, truncate)
    if width == 0:
        raise ValueError("every row of prefix_ids is empty; at least one needs a token")
    framed = frame_left(rows, width, pad_token_id)
    check_ids(framed.ids, None, rows)
    return {
        "input_ids": torch.from_numpy(framed.ids),
        "attention_mask": torch.from_numpy(framed.valid),
    }
