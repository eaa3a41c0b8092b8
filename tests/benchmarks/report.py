"""Lines of the table as aligned text, as markdown, and as JSON that can be read back."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cases import Line
from measure import Timing

HEADINGS = (
    "path",
    "setting",
    "reference",
    "ours",
    "ratio",
    "at least",
    "limit",
    "limit / ours",
)


def amount(value: float, unit: str) -> str:
    """A time in ms or s, or a size in MiB, with three digits."""
    if unit == "bytes":
        return f"{value / 2**20:,.0f} MiB"
    return f"{value:.3g} s" if value >= 1 else f"{value * 1e3:.3g} ms"


def _timing(timing: Timing, unit: str) -> str:
    spread = (timing.high - timing.low) / timing.median / 2 if timing.median else 0.0
    return f"{amount(timing.median, unit)} ± {spread:.0%}"


def cells(line: Line) -> list[str]:
    """One line of the table as texts, in the order of `HEADINGS`."""
    return [
        line.path,
        line.setting,
        _timing(line.reference, line.unit),
        _timing(line.ours, line.unit),
        f"{line.ratio:.2f}x",
        "" if line.goal is None else f"{line.goal:g}x",
        "" if line.limit is None else amount(line.limit, line.unit),
        "" if line.share is None else f"{line.share:.0%}",
    ]


def text_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns padded to their widest cell."""
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (headings, ["-" * width for width in widths], *rows)
    )


def markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of GitHub's markdown."""
    body = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in body)


def machine_text(machine: dict[str, str]) -> str:
    """The machine in one line."""
    return "; ".join(f"{name} {value}" for name, value in machine.items())


def notes(lines: Sequence[Line]) -> list[str]:
    """What was checked and at which rate the limit was computed, a line each."""
    texts = []
    for line in lines:
        rate = ""
        if line.rate is not None and line.best is not None:
            rate = f"; matmul rate {line.rate / 1e9:.0f} GFLOP/s (best {line.best / 1e9:.0f})"
        runs = f"{line.ours.runs} runs each"
        others = "" if line.others is None else f"; other processes: {line.others:.0%} of the cores"
        texts.append(f"{line.path}, {line.setting}: {runs}{rate}{others}; checked: {line.check}")
    return texts


def save_lines(path: Path, lines: Sequence[Line], machine: dict[str, str]) -> None:
    """Write lines as JSON; those of other cases that the file has already are kept."""
    fresh = {line.case for line in lines}
    rows = [row for row in _read(path) if row["case"] not in fresh]
    rows += [{**dataclasses.asdict(line), "machine": machine} for line in lines]
    path.write_text(json.dumps(rows, indent=1))


def load_lines(path: Path) -> list[Line]:
    """Read what `save_lines` wrote."""
    lines = []
    for row in _read(path):
        fields: dict[str, Any] = {k: v for k, v in row.items() if k != "machine"}
        for name in ("ours", "reference"):
            fields[name] = Timing(*fields[name])
        lines.append(Line(**fields))
    return lines


def _read(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text()) if path.exists() else []
