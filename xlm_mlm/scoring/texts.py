"""The texts of a file, with the numbers of their lines."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xlm_mlm.history.files import not_regular

SUFFIXES = (".txt", ".jsonl")


@dataclass(frozen=True)
class Text:
    """A text.

    Attributes:
        line: its number in the file, from 1.
        text: without the line's end.
    """

    line: int
    text: str


def read_texts(path: str | Path, text_field: str = "text") -> Iterator[Text]:
    """One text a line; lines that hold nothing but white space count, and are left out.

    Args:
        path: .txt, or .jsonl with an object a line.
        text_field: where the text is, in .jsonl.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: another kind of file, one that is not UTF-8, one without a text, or a line that
            is no JSON object with a text.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(
            f"{path} is a {path.suffix or 'file without suffix'}; texts are read from "
            f"{' or '.join(SUFFIXES)}"
        )
    if (wrong := not_regular(path)) is not None:
        raise FileNotFoundError(f"the file of texts {path} {wrong}")
    found = False
    for number, content in _lines(path):
        if path.suffix.lower() == ".jsonl" and content.strip():
            content = _field(content, text_field, f"{path}, line {number}")
        if content.strip():
            found = True
            yield Text(number, content)
    if not found:
        raise ValueError(f"{path} holds no text; it must hold one a line")


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    # As bytes: read as text, a line would end at signs that are part of a text.
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            line = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line  # byte order mark
            try:
                yield number, line.removesuffix(b"\n").removesuffix(b"\r").decode()
            except UnicodeDecodeError as error:
                raise ValueError(f"{path}, line {number} is not UTF-8: {error}") from error


def _field(line: str, name: str, place: str) -> str:
    try:
        row: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{place} is not JSON: {error}") from error
    if not isinstance(row, dict):
        raise ValueError(f"{place} is a {type(row).__name__}; it must be a JSON object")
    if name not in row:
        raise ValueError(
            f"{place} has no field {name!r}; its fields: {', '.join(row) or 'none'}. Name one with "
            "score.text_field"
        )
    if not isinstance(row[name], str):
        raise ValueError(
            f"{place}: field {name!r} is a {type(row[name]).__name__}; it must be a string"
        )
    return row[name]
