"""Token texts as they can be shown: nothing is invisible, and nothing reorders its surroundings."""

import json
import unicodedata

_SIGNS = {" ": "␣", "\n": "↵", "\t": "⇥", "\r": "\\r"}
# Controls, format characters (such as the overrides of direction), halves of surrogate pairs,
# code points that are private or not assigned, separators of lines and paragraphs, odd spaces.
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs"}


def visible(text: str) -> str:
    """A token's text with a sign for each space and control; the empty text as ∅."""
    shown = "".join(_SIGNS.get(char) or _escape(char) for char in text) or "∅"
    # An accent alone would sit on whatever stands before it.
    return f"◌{shown}" if unicodedata.combining(shown[0]) else shown


def readable(text: str) -> str:
    """A text on one line, its spaces kept, what cannot be shown as an escape."""
    return "".join(char if char == " " else _escape(char) for char in text)


def quoted(text: str) -> str:
    """A text in quotes, exact: equal only for equal texts."""
    return readable(json.dumps(text, ensure_ascii=False))


def excerpt(text: str, most: int = 60) -> str:
    """A text in quotes for a message: its first characters, at most so many."""
    return quoted(text if len(text) <= most else f"{text[: most - 1]}…")


def _escape(char: str) -> str:
    if unicodedata.category(char) not in _HIDDEN:
        return char
    code = ord(char)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
