"""Where pictures go."""

from pathlib import Path


def check_target(path: str | Path, suffix: str) -> Path:
    """The path of a file to write, known to be one that can be.

    Raises:
        ValueError: its name ends in something else than `suffix`.
        FileNotFoundError: there is no such folder.
    """
    path = Path(path)
    if path.suffix.lower() != suffix:
        raise ValueError(f"the file is {str(path)!r}; it must end in {suffix}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"cannot write {path}; there is no folder {path.parent}")
    return path
