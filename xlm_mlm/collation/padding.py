"""Rows of different lengths as rectangles, in a handful of tensor operations.

Everything is built from spans: a boolean rectangle that is True in one stretch of each row. Tokens
are written into a span at once, and the same spans say what is visible and what may be masked.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Bool, Integer
from torch import Tensor

from xlm_mlm.checks import require_choice, require_int
from xlm_mlm.collation.rows import Ragged, check_rows, keep_last, lengths_of, pack

Truncate = Literal["block", "max"] | None
TRUNCATE_CHOICES = ("block", "max", None)


class Framed(NamedTuple):
    """A padded rectangle and where its tokens are (True = not padding)."""

    ids: Integer[Tensor, "B L"]
    valid: Bool[Tensor, "B L"]


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
        require_int(name, size, 1)
    return size if truncate is not None else None


def fit_width(lengths: Sequence[int], limit: int | None, truncate: Truncate) -> int:
    """The width of a batch whose rows want `lengths` positions.

    "block" always takes the limit, "max" the longest row up to the limit, None the longest row.
    """
    if truncate == "block" and limit is not None:
        return limit
    longest = max(lengths)
    return longest if limit is None else min(longest, limit)


def span(
    start: Integer[Tensor, "B"] | int, length: Integer[Tensor, "B"] | int, rows: int, width: int
) -> Bool[Tensor, "B L"]:
    """True from column `start` on, for `length` columns; what lies outside the width is lost."""
    columns = torch.arange(width)
    start = torch.as_tensor(start).reshape(-1, 1)
    end = start + torch.as_tensor(length).reshape(-1, 1)
    return ((columns >= start) & (columns < end)).expand(rows, width)


def write_tokens(
    ids: Integer[Tensor, "B L"], rows: Ragged, start: Integer[Tensor, "B"] | int
) -> None:
    """Write each row into `ids`, in place, from column `start` on; it must fit.

    Raises:
        ValueError: it does not (the collators cut first, so this is a slip of the caller).
    """
    target = span(start, rows.lengths, *ids.shape)
    if int(target.sum()) != rows.flat.numel():
        raise ValueError(f"rows of lengths {rows.lengths.tolist()} do not fit {tuple(ids.shape)}")
    ids.masked_scatter_(target, rows.flat)


def write_token(ids: Integer[Tensor, "B L"], column: Integer[Tensor, "B"], token_id: int) -> None:
    """Write one token into each row of `ids`, in place; a column outside the width writes none."""
    ids.masked_fill_(torch.arange(ids.shape[1]) == column.reshape(-1, 1), token_id)


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
    ids = torch.full((len(rows.lengths), width), pad_id)
    lead = 0
    if bos_id is not None:
        ids[:, 0] = bos_id
        lead = 1
    write_tokens(ids, rows, lead)
    ends = rows.lengths + lead
    if eos_id is not None:
        write_token(ids, ends, eos_id)
        ends = ends + 1
    return Framed(ids, span(0, ends, *ids.shape))


def frame_left(rows: Ragged, width: int, pad_id: int, bos_id: int | None = None) -> Framed:
    """`tokens [BOS]`, padded on the left, so that all rows end in the last column.

    Args:
        rows: cut already, so that tokens and BOS fit `width`.
        width: columns.
        pad_id: token of the padding.
        bos_id: token after each row, where the answer begins; None for none.
    """
    ids = torch.full((len(rows.lengths), width), pad_id)
    tail = 0
    if bos_id is not None:
        ids[:, -1] = bos_id
        tail = 1
    starts = width - tail - rows.lengths
    write_tokens(ids, rows, starts)
    return Framed(ids, span(starts, width, *ids.shape))


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
    if len(prefix_ids) == 0:
        raise ValueError("prefix_ids is empty; at least one prompt is needed")
    rows = keep_last(check_rows(prefix_ids, "prefix_ids", allow_empty=True), limit)
    width = fit_width(lengths_of(rows), limit, truncate)
    if width == 0:
        raise ValueError("every row of prefix_ids is empty; at least one needs a token")
    ids, valid = frame_left(pack(rows, "prefix_ids"), width, pad_token_id)
    return {"input_ids": ids, "attention_mask": valid}
