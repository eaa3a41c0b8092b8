"""Whether memory or open files grow with the work: collation, histories, predictions, text.

Each case takes `--seconds` at most, 300 if not given, and says how much of its work was done in
them; `text` and `line` alone run to their end, as they are about one large file. Exits with 1 if
anything grew.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

# Before torch is imported, which reads it then.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import collate_load
import history_load
import load_report
import process_load
from load_samples import Growth
from measure import describe_machine
from process_load import Use

Case = Callable[[float, float], Iterator[Growth | Use]]
"""Takes the seconds and a scale, 1 for the sizes that are asked for."""


def _collate(seconds: float, scale: float) -> Iterator[Growth]:
    return collate_load.collate(round(1_000_000 * scale), seconds)


def _history(seconds: float, scale: float) -> Iterator[Growth]:
    return history_load.history(round(100_000 * scale), seconds)


def _generate(seconds: float, scale: float) -> Iterator[Use]:
    return process_load.generate([max(round(rows * scale), 2) for rows in process_load.ROWS])


def _text(seconds: float, scale: float) -> Iterator[Use]:
    return process_load.text([10**6, round(10**9 * scale)])


def _line(seconds: float, scale: float) -> Iterator[Use]:
    return process_load.text([10**6, round(10**8 * scale)], paragraphs=False)


CASES: dict[str, Case] = {
    "collate": _collate,
    "history": _history,
    "generate": _generate,
    "text": _text,
    "line": _line,
}


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", choices=[*CASES, []], help="all but text and line")
    parser.add_argument("--seconds", type=float, default=300.0, help="for each case, at most")
    parser.add_argument("--scale", type=float, default=1.0, help="of the sizes")
    parser.add_argument("--markdown", type=Path, help="write the tables to this file")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write what was asked for, and return 1 if anything grew."""
    options = parse(arguments)
    found: list[Any] = []
    for name in options.cases or ["collate", "history", "generate"]:
        for line in CASES[name](options.seconds, options.scale):
            print(load_report.sentence(line), flush=True)
            found.append(line)
    machine = describe_machine()
    if options.markdown:
        options.markdown.write_text(load_report.tables(found, machine))
    if options.json:
        options.json.write_text(json.dumps(load_report.plain(found, machine), indent=2) + "\n")
    return int(any(line.grew for line in found))


if __name__ == "__main__":
    sys.exit(main())
