"""What the terminal can show: colours, or none; how many columns."""

import os
import shutil
from typing import Any

_CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33"}
_WIDEST = 96  # longer lines read badly


def coloured(stream: Any) -> bool:
    """Whether to send colours: to a terminal that knows them, if the user has not refused them.

    https://no-color.org: `NO_COLOR` counts if it is not empty.
    """
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError):  # none, or closed
        return False


def paint(text: str, *styles: str, on: bool = True) -> str:
    """The text in some of `bold`, `dim`, `red`, `green`, `yellow`; as it is unless `on`."""
    if not on or not styles:
        return text
    return f"\x1b[{';'.join(_CODES[style] for style in styles)}m{text}\x1b[0m"


def columns() -> int:
    """The columns to write in, at least 20."""
    return max(20, min(shutil.get_terminal_size().columns, _WIDEST))
