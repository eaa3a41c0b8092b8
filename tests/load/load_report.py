"""What was seen of a case, as a sentence, as markdown and as data."""

from collections.abc import Sequence
from typing import Any

from load_samples import Growth
from process_load import Use
from report import machine_text, markdown_table

_MIB = 2**20


def sentence(line: Growth | Use) -> str:
    """A case in one line, for people who wait."""
    verdict = "GREW" if line.grew else "no growth"
    if isinstance(line, Growth):
        bytes_, handles = line.bytes_per_item, line.handles
        return (
            f"{line.case}: {verdict}; {line.items:,} of {line.wanted:,} in {line.seconds:.0f} s, "
            f"{bytes_:.2f} bytes an item, {handles[0]} then {handles[1]} open files, peak "
            f"{line.peak / _MIB:.0f} MiB" + (f"; {line.note}" if line.note else "")
        )
    peaks = ", ".join(
        f"{size:,} {line.unit} {peak.own / _MIB:.0f} MiB in {peak.seconds:.0f} s"
        for size, peak in line.peaks.items()
    )
    known = f" ({line.known:.2f} known)" if line.known else ""
    return f"{line.case}: {verdict}; {peaks}; {line.per_item:.2f} bytes each{known}"


def tables(lines: Sequence[Growth | Use], machine: dict[str, str]) -> str:
    """Markdown: what one process held over time, and peaks of programs by their input."""
    growths = [line for line in lines if isinstance(line, Growth)]
    uses = [line for line in lines if isinstance(line, Use)]
    parts = []
    if growths:
        heads = ("case", "done", "time", "bytes an item", "over the run", "open files", "peak")
        parts.append(markdown_table(heads, [_growth_cells(line) for line in growths]))
    if uses:
        heads = ("program", "input", "own memory", "with mapped files", "open files", "time")
        rows = [row for line in uses for row in _use_cells(line)]
        parts.append(markdown_table(heads, rows))
    return "\n\n".join([*parts, f"- {machine_text(machine)}"]) + "\n"


def _growth_cells(line: Growth) -> list[str]:
    done = f"{line.items:,}" if line.items >= line.wanted else f"{line.items:,} of {line.wanted:,}"
    case = f"{line.case} ({line.note})" if line.note else line.case
    return [
        case,
        done,
        f"{line.seconds:.0f} s",
        f"{line.bytes_per_item:.2f}",
        f"{line.added / _MIB:+.2f} ± {line.error / _MIB:.2f} MiB",
        f"{line.handles[0]} to {line.handles[1]}",
        f"{line.peak / _MIB:,.0f} MiB",
    ]


def _use_cells(line: Use) -> list[list[str]]:
    rows = []
    for size, peak in line.peaks.items():
        phases = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in peak.phases.items())
        time = f"{peak.seconds:.0f} s" + (f" ({phases})" if len(peak.phases) > 1 else "")
        memory = f"{peak.own / _MIB:,.0f} MiB", f"{peak.bytes / _MIB:,.0f} MiB"
        rows.append([line.case, f"{size:,} {line.unit}", *memory, str(peak.handles), time])
    return rows


def plain(lines: Sequence[Growth | Use], machine: dict[str, str]) -> dict[str, Any]:
    """What JSON can hold."""
    found = []
    for line in lines:
        fields: dict[str, Any] = line._asdict() | {"grew": line.grew}
        if isinstance(line, Use):
            fields["peaks"] = {str(size): peak._asdict() for size, peak in line.peaks.items()}
        found.append(fields)
    return {"machine": machine, "lines": found}
