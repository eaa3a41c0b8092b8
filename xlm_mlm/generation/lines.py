"""Lines of predictions: a row each, and in an unfinished file first one that says what it is."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from xlm_mlm.history.files import require_regular


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file, finished or not; none if it isn't there.

    Raises:
        ValueError: a line is no row, or the file is a pipe, or something else without an end.
    """
    if not path.exists():
        return
    require_regular(path)
    with path.open("rb") as file:
        for number, line in enumerate(file):
            row = row_of(line)
            if row is not None:
                yield row
            elif number or head_of(line) is None:
                raise ValueError(f"line {number + 1} of {path} is no row of predictions")


def line_of(row: dict[str, Any]) -> bytes:
    """A row as a line of JSON."""
    return (
        json.dumps(row, ensure_ascii=False, default=_plain).encode("utf-8", "backslashreplace")
        + b"\n"
    )


def _plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor) or hasattr(value, "tolist"):
        return value.tolist()
    return str(value)


def row_of(line: bytes) -> dict[str, Any] | None:
    """A row out of its line; None if it is none."""
    try:
        row: Any = json.loads(line) if line.endswith(b"\n") else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict) or not isinstance(row.get("dataloader"), str):
        return None
    return row if type(row.get("sample")) is int else None


def head_of(line: bytes) -> tuple[str, int] | None:
    """An unfinished file's run, and its first sample's number; None if the line says neither."""
    try:
        head = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(head, dict) or not isinstance(head.get("run"), str):
        return None
    return (head["run"], head["start"]) if type(head.get("start")) is int else None
