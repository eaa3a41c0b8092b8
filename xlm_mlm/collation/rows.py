"""From examples to one flat tensor: reading, checking and cutting rows of token ids."""

import struct
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Integer
from torch import Tensor

from xlm_mlm.checks import require_field


class Ragged(NamedTuple):
    """Rows of different lengths, one after the other.

    Attributes:
        flat: the token ids of all rows, in order.
        lengths: how many of them each row has.
    """

    flat: Integer[Tensor, "N"]
    lengths: Integer[Tensor, "B"]


def read_column(examples: Sequence[Mapping[str, Any]], name: str, known_by: str) -> list[Any]:
    """Collect one field of every example.

    Raises:
        ValueError: there are no examples.
        KeyError: an example lacks the field.
    """
    require_examples(examples, known_by)
    return [require_field(example, name, i, known_by) for i, example in enumerate(examples)]


def require_examples(examples: Sequence[Any], known_by: str) -> None:
    """Refuse an empty batch.

    Raises:
        ValueError: there are no examples.
    """
    if len(examples) == 0:
        raise ValueError(f"{known_by} was given an empty batch; it needs at least one example")


def check_rows(values: Sequence[Any], name: str, allow_empty: bool = False) -> list[Any]:
    """Check that every value is a flat row of integers; nothing is copied or converted.

    Args:
        values: lists, tuples, or 1-D integer tensors or arrays.
        name: the field they come from, for messages.
        allow_empty: whether a row may have no tokens.

    Raises:
        ValueError: a row is something else, or is empty where it may not be.
    """
    rows = [_as_row(value, name, i) for i, value in enumerate(values)]
    if not allow_empty:
        for i, row in enumerate(rows):
            if len(row) == 0:
                raise ValueError(
                    f"{name} of row {i} of the batch is empty; it must hold at least one token "
                    "(drop such rows when the dataset is prepared)"
                )
    return rows


def lengths_of(rows: Sequence[Any]) -> list[int]:
    """The number of tokens in each row."""
    return [len(row) for row in rows]


def keep_first(rows: Sequence[Any], limits: int | Sequence[int] | None) -> list[Any]:
    """Cut rows on the right. `limits` is one limit, one a row, or None for no cut."""
    pairs = zip(rows, _per_row(limits, rows), strict=True)
    return [row if len(row) <= limit else row[:limit] for row, limit in pairs]


def keep_last(rows: Sequence[Any], limits: int | Sequence[int] | None) -> list[Any]:
    """Cut rows on the left. `limits` is one limit, one a row, or None for no cut."""
    pairs = zip(rows, _per_row(limits, rows), strict=True)
    return [row if len(row) <= limit else row[len(row) - limit :] for row, limit in pairs]


def pack(rows: Sequence[Any], name: str, vocabulary: int | None = None) -> Ragged:
    """Copy rows that passed `check_rows` into one flat int64 tensor.

    Lists go through `struct.pack`, the quickest way from Python integers to bytes; it also
    refuses everything that is not an integer.

    Raises:
        ValueError: a row holds something other than token ids, or one that is not below
            `vocabulary`, where that is known.
    """
    buffer = bytearray().join([_to_bytes(row, name, i) for i, row in enumerate(rows)])
    flat = torch.frombuffer(buffer, dtype=torch.int64) if buffer else torch.empty(0).long()
    lengths = torch.tensor(lengths_of(rows), dtype=torch.int64)
    if flat.numel() and int(flat.min()) < 0:
        at = int((flat < 0).nonzero()[0])
        row = int((lengths.cumsum(0) <= at).sum())
        raise ValueError(
            f"{name} of row {row} of the batch holds {int(flat[at])}; token ids are 0 or more "
            "(-100 is for targets, and the collator sets those itself)"
        )
    if flat.numel() and vocabulary is not None and int(flat.max()) >= vocabulary:
        at = int((flat >= vocabulary).nonzero()[0])
        row = int((lengths.cumsum(0) <= at).sum())
        raise ValueError(
            f"{name} of row {row} of the batch holds {int(flat[at])}; the tokenizer has "
            f"{vocabulary} ids, from 0 to {vocabulary - 1}: were the rows made with another?"
        )
    return Ragged(flat, lengths)


def _as_row(value: Any, name: str, index: int) -> Any:
    if isinstance(value, (list, tuple)):
        if value and isinstance(value[0], bool):
            raise _not_ids(name, index, "booleans")
        return value
    if isinstance(value, (Tensor, np.ndarray)):
        whole = (
            not (value.is_floating_point() or value.is_complex() or value.dtype == torch.bool)
            if isinstance(value, Tensor)
            else value.dtype.kind in "iu" or value.size == 0
        )
        if value.ndim != 1 or not whole:
            kind = f"{type(value).__name__} of shape {tuple(value.shape)} and type {value.dtype}"
            raise _not_ids(name, index, f"a {kind}")
        return value
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return list(value)
    raise _not_ids(name, index, "None" if value is None else f"a {type(value).__name__}")


def _to_bytes(row: Any, name: str, index: int) -> bytes:
    if isinstance(row, Tensor):
        row = row.detach().cpu().numpy()
    if isinstance(row, np.ndarray):
        return row.astype(np.int64).tobytes()
    try:
        return struct.pack(f"{len(row)}q", *row)
    except struct.error:
        bad = next((token for token in row if not _fits(token)), row[0])
        raise _not_ids(name, index, repr(bad)) from None


def _fits(token: Any) -> bool:
    try:
        struct.pack("q", token)
    except struct.error:
        return False
    return True


def _not_ids(name: str, index: int, found: str) -> ValueError:
    return ValueError(
        f"{name} of row {index} of the batch holds {found}; a row must be a list, a tuple, or a "
        "1-D tensor or array, of integer token ids"
    )


def _per_row(limits: int | Sequence[int] | None, rows: Sequence[Any]) -> Sequence[float]:
    if limits is None:
        return [float("inf")] * len(rows)
    return [limits] * len(rows) if isinstance(limits, int) else limits
