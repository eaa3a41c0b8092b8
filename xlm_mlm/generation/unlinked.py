"""Files that are opened where they are named: through a link a run would write anywhere."""

import os
from pathlib import Path
from typing import Any


def open_here(path: Path, mode: str) -> Any:
    """Open a file to write to, unless it is a link.

    Raises:
        ValueError: it is one.
        OSError: it can't be opened.
    """
    try:
        return open(path, mode, opener=_opener)
    except OSError as error:
        if path.is_symlink():
            raise ValueError(
                f"{path} is a link; a run writes to no file elsewhere. Remove it, or give another "
                "generation.output_dir"
            ) from error
        raise


def _opener(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)
