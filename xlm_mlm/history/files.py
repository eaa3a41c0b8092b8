"""The files of a history, format 2: what they are called, written whole, read without trust.

`docs/history.md` specifies the format. Whatever is read here may come from a stranger: nothing is
unpickled, no name leads out of the folder, and what does not fit is an error that names the file.
"""

import errno
import hashlib
import json
import os
import re
import stat
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from xlm_mlm.checks import require_path

FORMAT = 2
META = "meta.json"
BEFORE = "before.safetensors"
_FID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_VOCABULARY = re.compile(r"vocabulary\.[0-9a-f]{16}\.json")


def step_file(step: int, name: str) -> str:
    """The file that holds one tensor of a pass."""
    return f"{step:05d}.{name}.safetensors"


def sample_folder(output_dir: str | Path, fid: str) -> Path:
    """The folder of a sample that is there.

    Raises:
        ValueError: the name is no plain folder name.
        FileNotFoundError: there is no such record.
    """
    if not isinstance(fid, str) or not _FID.fullmatch(fid):
        raise ValueError(f"fid is {fid!r}; it must be a folder's plain name, as `to_dict` gives it")
    folder = require_path("output_dir", output_dir) / fid
    if folder.is_symlink() or not (folder / META).is_file():
        raise FileNotFoundError(f"{folder} holds no history (no {META})")
    return folder


def not_regular(path: Path) -> str | None:
    """What keeps a path from being read as a file, said of it; None if nothing does."""
    if path.is_file():
        return None
    if path.is_dir():
        return "is a folder, not a file"
    if not path.exists():
        return "does not exist"
    kind = "a pipe" if path.is_fifo() else "a device or a socket"
    return f"is {kind}; it must be a regular file"


def require_regular(path: Path) -> None:
    """Refuse what is no regular file, such as a pipe: whoever reads it may wait for ever.

    Raises:
        ValueError: it is none.
    """
    if (wrong := not_regular(path)) is not None:
        raise ValueError(f"{path} {wrong}")


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write tensors that are on the CPU, whole or not at all."""
    write_whole(path, save({name: tensor.contiguous() for name, tensor in tensors.items()}))


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that it appears whole or not at all.

    Raises:
        OSError: it cannot be written; no part of it stays.
    """
    with writing_whole(path) as write:
        write(data)


@contextmanager
def writing_whole(path: Path) -> Iterator[Callable[[bytes], None]]:
    """Write a file piece by piece, so that it appears whole at the end or not at all.

    Yields:
        What appends a piece.

    Raises:
        OSError: it cannot be written; no part of it stays.
    """
    # Not the process's number, which two machines or containers may share.
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:16]}.partial")
    try:
        with naming_file(path):
            file = partial.open("wb")
        try:

            def write(data: bytes) -> None:
                with naming_file(path):
                    file.write(data)

            yield write
            with naming_file(path):
                file.close()
                os.replace(partial, path)
        finally:
            with suppress(OSError):  # of what could not be written before
                file.close()
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@contextmanager
def naming_file(path: Path) -> Iterator[None]:
    """Say which file could not be written: a full disk's error does not."""
    try:
        yield
    except OSError as error:
        named = error.filename is not None and not str(error.filename).endswith(".partial")
        if error.errno is None or named:  # nothing but words, or another file's
            raise
        raise type(error)(error.errno, error.strerror, str(path)) from error


@contextmanager
def on_full_disk(then: str) -> Iterator[None]:
    """Add to the error of a full disk what is kept, and how to go on."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        said = f"{error.strerror}; {then}"
        raise type(error)(error.errno, said, error.filename) from error


def write_vocabulary(output_dir: Path, texts: list[str]) -> str:
    """Write what each token id reads as, once for all samples, and return the file's name."""
    data = json.dumps(texts).encode()
    name = f"vocabulary.{hashlib.sha256(data).hexdigest()[:16]}.json"
    if not (output_dir / name).is_file():
        output_dir.mkdir(parents=True, exist_ok=True)
        write_whole(output_dir / name, data)
    return name


def read_meta(folder: Path) -> dict[str, Any]:
    """A sample's options and state.

    Raises:
        ValueError: it is damaged, or of a format that this version does not read.
    """
    path = folder / META
    meta = _read_json(path)
    if not isinstance(meta, dict) or meta.get("format") != FORMAT:
        found = meta.get("format") if isinstance(meta, dict) else meta
        raise ValueError(f"{path} has format {found!r}; this version reads {FORMAT}")
    for name in ("k", "max_new_tokens", "mask_id", "begun", "num_steps"):
        value = meta.get(name)
        if value is not None and (type(value) is not int or not 0 <= value < 2**63):
            raise ValueError(
                f"{path} has {name} {value!r}; it must be null or a whole number, below 2^63"
            )
    file = meta.get("vocabulary")
    if file is not None and not (isinstance(file, str) and _VOCABULARY.fullmatch(file)):
        raise ValueError(f"{path} names the vocabulary {file!r}; it must be a file beside {folder}")
    return meta


def read_vocabulary(output_dir: Path, name: str | None) -> dict[int, str]:
    """What each token id reads as; nothing if the history does not say.

    Raises:
        ValueError: the file is missing or damaged.
    """
    if name is None:
        return {}
    texts = _read_json(output_dir / name)
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{output_dir / name} is no list of strings")
    return dict(enumerate(texts))


def read_tensors(path: Path, *names: str) -> list[Tensor]:
    """Tensors of one file, integers as int64 and the rest as fp32.

    Raises:
        ValueError: the file is missing, damaged, or does not hold them.
    """
    try:
        tensors = load(_read(path))
        found = [tensors[name] for name in names]
    except (SafetensorError, KeyError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    for name, each in zip(names, found, strict=True):
        if each.is_complex():
            raise ValueError(f"{path} cannot be read: {name} holds complex numbers")
    return [each.float() if each.is_floating_point() else each.long() for each in found]


def count_steps(folder: Path) -> int:
    """Complete passes: the sequence is written last, so a pass is there if its sequence is.

    Raises:
        ValueError: the record is damaged, or says that it is finished and lacks a pass.
    """
    meta, steps = read_meta(folder), 0
    # Whatever has the name: what is no regular file is refused when it is read.
    while os.path.lexists(folder / step_file(steps, "x")):
        steps += 1
    wanted = meta.get("num_steps") or 0
    if meta.get("finished") is True and steps < wanted:
        raise ValueError(
            f"{folder} holds {steps} passes, and its {META} says that it is finished with "
            f"{wanted}; {step_file(steps, 'x')} is missing"
        )
    return steps


def narrow(ids: Tensor) -> Tensor:
    """Token ids as they are kept."""
    return ids.to(torch.int32)


def _read_json(path: Path) -> Any:
    data = _read(path)
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error


def _read(path: Path) -> bytes:
    """Read a regular file of the folder itself: no link, which could lead anywhere, and no pipe."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        with os.fdopen(os.open(path, flags | getattr(os, "O_BINARY", 0)), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ValueError(f"{path} cannot be read: it is no regular file")
            return file.read()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from error
