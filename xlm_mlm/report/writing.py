"""Files that appear whole or not at all."""

import os
from collections.abc import Callable
from pathlib import Path


def write_whole(path: str | Path, suffix: str, write: Callable[[Path], None]) -> None:
    """Let `write` make a file beside `path`, then put it there.

    Raises:
        ValueError: the name ends in something else than `suffix`.
        FileNotFoundError: there is no such folder.
        OSError: the file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() != suffix:
        raise ValueError(f"the file is {str(path)!r}; it must end in {suffix}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"cannot write {path}; there is no folder {path.parent}")
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        write(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
