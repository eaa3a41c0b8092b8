"""What an examination finds."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from xlm_mlm.entries import attempt

Level = Literal["ok", "note", "problem"]
REINSTALL = '`pip install "xlm-core>=0.3.1,<0.4"`'


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        check: what was examined, `pins` for example.
        level: `ok`; `note`, worth knowing; or `problem`, which stops something from working.
        text: what was found.
        fix: what to do about it; commands stand between backticks. Every problem has one.
        details: lines that belong to it.
    """

    check: str
    level: Level
    text: str
    fix: str | None = None
    details: tuple[str, ...] = ()


def examine(check: str, examination: Callable[[], Iterable[Finding]]) -> list[Finding]:
    """Run one examination; if it fails itself, that is a finding, and the others go on."""
    found: list[Finding] = []

    def collect() -> None:
        # One by one, so that what was found before a failure is kept.
        for finding in examination():
            found.append(finding)

    _, failure = attempt(collect)
    if failure:
        text = f"this could not be examined: {failure}"
        found.append(Finding(check, "problem", text, "mend what the message names"))
    return found
