"""Files that are opened where they are named: through a link a run would write anywhere."""

import os
from pathlib import Path
from typing import Any

from xlm_mlm.history.files import require_regular


def open_here(path: Path, mode: str) -> Any:
    """Open a file to write to, unless it is a link, or a pipe, which would make the run wait.

    Raises:
        ValueError: it is one.
        OSError: it can't be opened.
    """
    try:
        file = open(path, mode, opener=_opener)  # noqa: SIM115 - the caller closes it
    except OSError:  # of a pipe that nobody reads, or that can't be gone through from its start
        refuse_link(path)
        if path.exists() and not path.is_dir():
            require_regular(path)
        raise
    try:
        require_regular(path)
    except ValueError:
        file.close()
        raise
    return file


def refuse_link(path: Path) -> None:
    """Refuse a file or folder of a run that is a link.

    Raises:
        ValueError: it is one, whether it leads anywhere or not.
    """
    if path.is_symlink():
        raise ValueError(
            f"{path} is a link; a run writes to no file elsewhere. Remove it, or give another "
            "generation.output_dir"
        )


def _opener(path: str, flags: int) -> int:
    more = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    return os.open(path, flags | more, 0o666)
