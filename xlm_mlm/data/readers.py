"""Documents from the user's own .txt, .jsonl and .parquet files, one at a time.

Whatever is wrong with a file is reported with the file and the place in it.
"""

import codecs
import glob
import hashlib
import json
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

SUFFIXES = (".txt", ".jsonl", ".parquet")
DOCUMENTS = ("paragraph", "line", "file")

_CHUNK = 1 << 20
_ROWS = 1024


def find_files(data_files: str | Path | Sequence[str | Path] | None) -> list[Path]:
    """The files that a path, a glob or a list of both stands for, sorted, each once.

    Raises:
        ValueError: nothing was given, something that is no path, a folder, or a file of another
            kind.
        FileNotFoundError: a path or a glob that matches no file.
    """
    if data_files is None or (isinstance(data_files, Sequence) and not data_files):
        raise ValueError(
            f"data_files is {data_files!r}; it must name your own text: a {', '.join(SUFFIXES)} "
            "file, a glob in quotes, or a list, for example data_files='corpus/*.txt'"
        )
    found: set[Path] = set()
    for pattern in _patterns(data_files):
        path = Path(pattern).expanduser()
        if path.is_dir():
            raise ValueError(
                f"data_files: {str(pattern)!r} is a folder; name the files in it, for example "
                f"'{path}/*.txt'"
            )
        # Only then as a glob: a file's name may hold brackets.
        names = [str(path)] if path.is_file() else glob.glob(str(path), recursive=True)
        matches = [Path(name) for name in names if Path(name).is_file()]
        if not matches:
            raise FileNotFoundError(
                f"data_files: {str(pattern)!r} matches no file (looked in {Path.cwd()})"
            )
        found.update(matches)
    for path in found:
        if path.suffix.lower() not in SUFFIXES:
            raise ValueError(
                f"{path} is a {path.suffix or 'file without suffix'}; data_files takes "
                f"{', '.join(SUFFIXES)}"
            )
    return sorted(found)


def _patterns(data_files: Any) -> list[str | Path]:
    """A path or a list of them as a list, after checking that they are paths."""
    if isinstance(data_files, (str, Path)):
        return [data_files]
    patterns = list(data_files) if isinstance(data_files, Sequence) else [data_files]
    for pattern in patterns:
        if not isinstance(pattern, (str, Path)):
            raise ValueError(
                f"data_files is {data_files!r}; {pattern!r} is no path. It must be a path, a glob "
                "in quotes, or a list of them"
            )
    return patterns


def content_digest(path: Path) -> str:
    """SHA-256 of a file, after checking that it is not empty and, if text, that it is UTF-8.

    Raises:
        ValueError: the file is empty, or bytes that are not UTF-8, with their place.
    """
    stat = path.stat()
    return _content_digest(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=4096)
def _content_digest(path: Path, size: int, modified: int) -> str:
    """Keyed by size and time as well, so that managers of one run read each file once."""
    if size == 0:
        raise ValueError(f"{path} is empty; remove it from data_files or put text into it")
    check = None if path.suffix.lower() == ".parquet" else _Utf8Check(path)
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            sha.update(chunk)
            if check:
                check.feed(chunk)
    if check:
        check.feed(b"", final=True)
    return sha.hexdigest()


class _Utf8Check:
    """Strict UTF-8 over a file read in pieces; the error names line and byte."""

    def __init__(self, path: Path):
        self.path = path
        self.decoder = codecs.getincrementaldecoder("utf-8")()
        self.decoded = 0
        self.lines = 0

    def feed(self, chunk: bytes, final: bool = False) -> None:
        waiting = self.decoder.getstate()[0]
        try:
            self.decoder.decode(chunk, final)
        except UnicodeDecodeError as error:
            line = self.lines + (waiting + chunk)[: error.start].count(b"\n") + 1
            raise ValueError(
                f"{self.path} is not UTF-8: line {line}, byte {self.decoded + error.start} "
                f"({error.object[error.start : error.start + 4].hex(' ')}): {error.reason}. "
                "Convert it first, for example with iconv -t UTF-8"
            ) from None
        left = self.decoder.getstate()[0]
        self.decoded += len(waiting) + len(chunk) - len(left)
        self.lines += chunk.count(b"\n")


def read_documents(path: Path, text_field: str, document: str) -> Iterator[str]:
    """The documents of one file that hold more than white space.

    Args:
        path: a .txt, .jsonl or .parquet file, in UTF-8.
        text_field: where the text is, in .jsonl and .parquet; rows in which it is null or
            blank are left out.
        document: what a document is in a .txt file: "paragraph" (blank lines between), "line",
            or the whole "file".

    Raises:
        ValueError: a row that is no JSON object or whose text is no string; no such field.
    """
    reader = {".txt": _read_text, ".jsonl": _read_jsonl, ".parquet": _read_parquet}
    option = document if path.suffix.lower() == ".txt" else text_field
    for text in reader[path.suffix.lower()](path, option):
        if text and not text.isspace():
            yield text


def _read_text(path: Path, document: str) -> Iterator[str]:
    with path.open(encoding="utf-8-sig") as file:
        if document == "file":
            yield file.read()
            return
        lines: list[str] = []
        for line in file:
            if document == "line":
                yield line.rstrip("\n")
            elif line.isspace():
                text, lines = "".join(lines).rstrip("\n"), []  # held once while it is worked on
                yield text
            else:
                lines.append(line)
        text, lines, line = "".join(lines).rstrip("\n"), [], ""
        yield text


def _read_jsonl(path: Path, text_field: str) -> Iterator[str | None]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if line.isspace():
                continue
            place = f"{path}, line {number}"
            try:
                row: Any = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(
                    f"{place} is not JSON (column {error.colno}: {error.msg}); a .jsonl file "
                    "holds one object a line"
                ) from None
            except (ValueError, RecursionError) as error:
                # Valid JSON that Python does not read: a huge number, or too many brackets.
                raise ValueError(f"{place} could not be read as JSON: {error}") from None
            if not isinstance(row, dict):
                raise ValueError(f"{place} is a {type(row).__name__}; it must be a JSON object")
            if text_field not in row:
                raise _no_field(place, text_field, row)
            yield _checked(row[text_field], place, text_field)


def _read_parquet(path: Path, text_field: str) -> Iterator[str | None]:
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if text_field not in names:
                raise _no_field(str(path), text_field, names)
            number = 0
            for batch in file.iter_batches(_ROWS, columns=[text_field]):
                for value in batch.column(0).to_pylist():
                    number += 1
                    yield _checked(value, f"{path}, row {number}", text_field)
    except (pyarrow.ArrowException, UnicodeDecodeError) as error:
        raise ValueError(f"{path} could not be read as Parquet: {error}") from error


def _no_field(place: str, text_field: str, fields: Any) -> ValueError:
    known = ", ".join(sorted(map(str, fields))) or "none"
    return ValueError(
        f"{place} has no field {text_field!r}; its fields: {known}. Name one with text_field=..."
    )


def _checked(value: Any, place: str, text_field: str) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise ValueError(
        f"{place}: field {text_field!r} is a {type(value).__name__}; it must be a string"
    )
