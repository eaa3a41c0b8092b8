"""Rows of token ids, as examples hold them: reading, checking, cutting, and copying into an array.

Rows stay the lists or arrays they came as until `write_rows` copies each to its place in a batch:
turning Python integers into an array costs more than all that follows, so it is done once.
"""

import struct
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int64, Integer
from torch import Tensor

from xlm_mlm.checks import require_field, shown


class Ragged(NamedTuple):
    """Checked rows of different lengths, not copied yet.

    Attributes:
        rows: lists, tuples, or 1-D integer arrays.
        lengths: how many tokens each row has.
        name: the field they come from, for messages.
    """

    rows: list[Any]
    lengths: Integer[np.ndarray, "B"]
    name: str


def read_column(examples: Sequence[Mapping[str, Any]], name: str, known_by: str) -> list[Any]:
    """Collect one field of every example.

    Raises:
        ValueError: there are no examples, or one is no row.
        KeyError: an example lacks the field.
    """
    require_examples(examples, known_by)
    try:
        return [example[name] for example in examples]
    except (KeyError, TypeError, IndexError):
        return [require_field(example, name, i, known_by) for i, example in enumerate(examples)]


def require_examples(examples: Sequence[Any], known_by: str) -> None:
    """Refuse an empty batch, and what is no list of rows.

    Raises:
        ValueError: there are no examples.
    """
    if count_of(examples) is None:
        raise ValueError(
            f"{known_by} was given {shown(examples)}; a batch must be a list of rows, each a "
            "mapping of fields"
        )
    if len(examples) == 0:
        raise ValueError(f"{known_by} was given an empty batch; it needs at least one example")


def count_of(values: Any) -> int | None:
    """How many entries a list, or what serves as one, has; None if it is something else."""
    if isinstance(values, str | bytes | Mapping):
        return None
    try:
        return len(values)
    except TypeError:
        return None


def check_rows(values: Sequence[Any], name: str, allow_empty: bool = False) -> Ragged:
    """Check that every value is a flat row of integers; nothing is copied.

    Args:
        values: lists, tuples, or 1-D integer tensors or arrays.
        name: the field they come from, for messages.
        allow_empty: whether a row may have no tokens.

    Raises:
        ValueError: a row is something else, or is empty where it may not be.
    """
    rows = list(values)
    plain = {list, tuple}.issuperset(map(type, rows))
    if not plain or bool in {type(row[0]) for row in rows if row}:
        rows = [_as_row(value, name, i) for i, value in enumerate(rows)]
    lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
    if not allow_empty and not lengths.all():
        raise ValueError(
            f"{name} of row {lengths.argmin()} of the batch is empty; it must hold at least one "
            "token (drop such rows when the dataset is prepared)"
        )
    return Ragged(rows, lengths, name)


def keep_first(rows: Ragged, limits: Integer[np.ndarray, "B"] | int | None) -> Ragged:
    """Cut rows on the right. `limits` is one limit, one a row, or None for no cut."""
    if limits is None or (rows.lengths <= limits).all():
        return rows
    lengths = np.minimum(rows.lengths, limits)
    kept = [row[:n] for row, n in zip(rows.rows, lengths.tolist(), strict=True)]
    return Ragged(kept, lengths, rows.name)


def keep_last(rows: Ragged, limits: Integer[np.ndarray, "B"] | int | None) -> Ragged:
    """Cut rows on the left. `limits` is one limit, one a row, or None for no cut."""
    if limits is None or (rows.lengths <= limits).all():
        return rows
    lengths = np.minimum(rows.lengths, limits)
    kept = [row[len(row) - n :] for row, n in zip(rows.rows, lengths.tolist(), strict=True)]
    return Ragged(kept, lengths, rows.name)


def write_rows(
    ids: Int64[np.ndarray, "B L"], rows: Ragged, starts: Integer[np.ndarray, "B"] | int
) -> None:
    """Copy each row into `ids`, in place, from its column in `starts` on.

    Lists go through `struct.pack_into`, the quickest way from Python integers to an array; it
    also refuses everything that is not an integer.

    Args:
        ids: C-contiguous.
        rows: each must fit.
        starts: one column a row, or one for all.

    Raises:
        ValueError: a row does not fit, or holds something other than integers.
    """
    width = ids.shape[1]
    if (rows.lengths + starts > width).any():
        raise ValueError(f"rows of lengths {rows.lengths.tolist()} do not fit {ids.shape}")
    flat = ids.reshape(-1)
    buffer, size = flat.data, flat.itemsize
    places = (np.arange(len(ids)) * width + starts).tolist()
    for i, (row, place) in enumerate(zip(rows.rows, places, strict=True)):
        if isinstance(row, np.ndarray):
            flat[place : place + len(row)] = row
            continue
        try:
            _packer(len(row)).pack_into(buffer, place * size, *row)
        except (struct.error, TypeError):
            bad = next((token for token in row if not _fits(token)), row[0])
            raise _not_ids(rows.name, i, repr(bad)) from None


def check_ids(ids: Int64[np.ndarray, "B L"], vocabulary: int | None, *sources: Ragged) -> None:
    """Check that the rows written into `ids` are ids of the tokenizer.

    Args:
        ids: what the rows were written into.
        vocabulary: how many ids there are; None if that is not known.
        sources: the rows, read again only where something in `ids` is out of range.

    Raises:
        ValueError: a row holds a negative number, or one that is not below `vocabulary`.
    """
    least, most = ids.min(initial=0), ids.max(initial=0)
    if least >= 0 and (vocabulary is None or most < vocabulary):
        return
    for source in sources:
        for i, row in enumerate(source.rows):
            for token in map(int, row):
                _check_id(token, vocabulary, f"{source.name} of row {i} of the batch")


def _check_id(token: int, vocabulary: int | None, place: str) -> None:
    if token < 0:
        raise ValueError(
            f"{place} holds {token}; token ids are 0 or more "
            "(-100 is for targets, and the collator sets those itself)"
        )
    if vocabulary is not None and token >= vocabulary:
        raise ValueError(
            f"{place} holds {token}; the tokenizer has {vocabulary} ids, from 0 to "
            f"{vocabulary - 1}: were the rows made with another?"
        )


def _as_row(value: Any, name: str, index: int) -> Any:
    if isinstance(value, Tensor) and not (value.is_floating_point() or value.is_complex()):
        try:
            value = value.cpu().numpy()
        except (TypeError, RuntimeError):  # sparse, nested, or on the meta device
            raise _not_ids(name, index, "a tensor that is sparse, nested or on meta") from None
    flat = isinstance(value, np.ndarray) and value.ndim == 1
    if flat and (value.dtype.kind in "iu" or value.size == 0):
        return value
    if isinstance(value, (Tensor, np.ndarray)):
        kind = f"{type(value).__name__} of shape {tuple(value.shape)} and type {value.dtype}"
        raise _not_ids(name, index, f"a {kind}")
    if isinstance(value, (list, tuple)):
        if value and isinstance(value[0], bool):
            raise _not_ids(name, index, "booleans")
        return value
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return list(value)
    raise _not_ids(name, index, "None" if value is None else f"a {type(value).__name__}")


@lru_cache(maxsize=4096)
def _packer(length: int) -> struct.Struct:
    return struct.Struct(f"{length}q")


def _fits(token: Any) -> bool:
    try:
        struct.pack("q", token)
    except (struct.error, TypeError):
        return False
    return True


def _not_ids(name: str, index: int, found: str) -> ValueError:
    return ValueError(
        f"{name} of row {index} of the batch holds {found}; a row must be a list, a tuple, or a "
        "1-D tensor or array, of integer token ids"
    )
