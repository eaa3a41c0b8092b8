"""The figures of a mutation run, and the survivors with the reason why each is let live."""

import math
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from written_mutants import KILLED, OUT_OF_TIME, Mutant

EXPLAINED = Path(__file__).with_name("survivors.toml")

Reasons = dict[tuple[str, str, str], str]
"""Why a mutant may live, by file, function and the line that it puts in."""


@dataclass(frozen=True)
class Area:
    """The mutants of one area.

    Attributes:
        name: of the area.
        written: how many there are, those of wording not counted.
        wording: how many change only the text of a message.
        tried: those that were drawn.
    """

    name: str
    written: int
    wording: int
    tried: list[Mutant]

    @property
    def killed(self) -> int:
        """How many of those that were tried failed a test."""
        return sum(mutant.exit_code in KILLED for mutant in self.tried)

    @property
    def out_of_time(self) -> int:
        """How many of the killed were so by taking too long."""
        return sum(mutant.exit_code in OUT_OF_TIME for mutant in self.tried)

    @property
    def survivors(self) -> list[Mutant]:
        """Those that no test found, be it that none ran the function."""
        return [mutant for mutant in self.tried if mutant.exit_code not in KILLED]


def by_area(
    found: Iterable[Mutant], names: Mapping[str, Iterable[str]], prefixes: Mapping[str, str]
) -> list[Area]:
    """Sort mutants into areas; `names` are those that were drawn in each."""
    everything, areas = list(found), []
    for area, chosen in names.items():
        here = [mutant for mutant in everything if mutant.file.startswith(prefixes[area])]
        wording, drawn = sum(mutant.is_wording for mutant in here), set(chosen)
        tried = [mutant for mutant in here if mutant.name in drawn]
        areas.append(Area(area, len(here) - wording, wording, tried))
    return areas


def interval(part: int, whole: int) -> tuple[float, float]:
    """Wilson's 95% interval of a share, of a sample that is small beside what it is drawn from."""
    if not whole:
        return 0.0, 1.0
    z, p = 1.959964, part / whole
    middle = (p + z * z / (2 * whole)) / (1 + z * z / whole)
    half = z / (1 + z * z / whole) * math.sqrt(p * (1 - p) / whole + z * z / (4 * whole**2))
    return max(middle - half, 0.0), min(middle + half, 1.0)


def read_explained(file: Path) -> Reasons:
    """The survivors that were looked at.

    Raises:
        KeyError: an entry lacks a field.
    """
    entries = tomllib.loads(file.read_text())["survivor"] if file.is_file() else []
    return {(each["file"], each["function"], each["becomes"]): each["why"] for each in entries}


def key(mutant: Mutant) -> tuple[str, str, str]:
    """Where the reason of a mutant is looked up."""
    added = " ".join(line[2:] for line in mutant.diff if line.startswith("+"))
    removed = " ".join(line[2:] for line in mutant.diff if line.startswith("-"))
    return mutant.file, mutant.function, added or f"without {removed}"


def unexplained(area: Area, reasons: Reasons) -> list[Mutant]:
    """The survivors of an area that nobody has given a reason for."""
    return [mutant for mutant in area.survivors if key(mutant) not in reasons]


def markdown(areas: list[Area], reasons: Reasons) -> str:
    """A table of the areas, and every survivor that has no reason yet."""
    lines = [
        "| area | mutants | tried | killed (by time) | share | 95% interval | without a reason |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for area in areas:
        tried = len(area.tried)
        low, high = interval(area.killed, tried)
        if tried == area.written:
            low = high = area.killed / max(tried, 1)
        lines.append(
            f"| {area.name} | {area.written:,} (and {area.wording} of wording) | {tried} "
            f"| {area.killed} ({area.out_of_time}) | {area.killed / max(tried, 1):.1%} "
            f"| {low:.0%} to {high:.0%} | {len(unexplained(area, reasons))} |"
        )
    for area in areas:
        for mutant in unexplained(area, reasons):
            lines += ["", f"{mutant.file}, {mutant.function} (exit code {mutant.exit_code}):"]
            lines += ["", *(f"    {line}" for line in mutant.diff)]
    return "\n".join(lines)


def as_data(areas: list[Area]) -> list[dict[str, Any]]:
    """One entry for each mutant that was tried."""
    return [
        {
            "area": area.name,
            "name": mutant.name,
            "file": mutant.file,
            "function": mutant.function,
            "killed": mutant.exit_code in KILLED,
            "exit_code": mutant.exit_code,
            "diff": mutant.diff,
        }
        for area in areas
        for mutant in area.tried
    ]
