"""Line and branch coverage of the fast tests, a table by room of the package.

    python tests/coverage/run_coverage.py --markdown FILE

The slow tests start processes, and the conformance kit's own suite starts many: both are left
out, so that what only they reach counts as not covered.
"""

import argparse
import json
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
TESTS = ["-n", "0", "-m", "not slow", "--ignore", "tests/conformance", "-p", "no:cacheprovider"]


class Counts(NamedTuple):
    """How many lines and branches there are, and how many of them were passed."""

    lines: int = 0
    lines_passed: int = 0
    branches: int = 0
    branches_passed: int = 0

    def plus(self, other: "Counts") -> "Counts":
        """The sums of both."""
        return Counts(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


def counts_of(summary: dict[str, Any]) -> Counts:
    """The counts of a file, as coverage.py writes them."""
    return Counts(
        summary["num_statements"],
        summary["covered_lines"],
        summary["num_branches"],
        summary["covered_branches"],
    )


def by_room(files: dict[str, Any]) -> dict[str, Counts]:
    """Counts of each room: a folder of the package, or a module directly in it."""
    rooms: dict[str, Counts] = defaultdict(Counts)
    for name, entry in files.items():
        parts = Path(name).with_suffix("").parts
        rooms["/".join(parts[:2])] = rooms["/".join(parts[:2])].plus(counts_of(entry["summary"]))
    return dict(sorted(rooms.items()))


def markdown(files: dict[str, Any]) -> str:
    """The table of the rooms with their sum, and the files with most lines not passed."""
    rooms = by_room(files)
    total = Counts()
    for counts in rooms.values():
        total = total.plus(counts)
    lines = ["| room | lines | of | branches | of |", "| --- | --- | --- | --- | --- |"]
    for name, counts in [*rooms.items(), ("all", total)]:
        lines.append(
            f"| {name} | {_share(counts.lines_passed, counts.lines)} | {counts.lines:,} "
            f"| {_share(counts.branches_passed, counts.branches)} | {counts.branches:,} |"
        )
    lines += ["", "| file | lines not passed |", "| --- | --- |"]
    for name, entry in sorted(files.items(), key=lambda item: -len(item[1]["missing_lines"]))[:12]:
        if entry["missing_lines"]:
            lines.append(f"| {name} | {len(entry['missing_lines'])}: {_runs(entry)} |")
    return "\n".join(lines)


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "none"


def _runs(entry: dict[str, Any]) -> str:
    """Numbers of the lines not passed, those in a row drawn together."""
    runs: list[list[int]] = []
    for line in entry["missing_lines"]:
        if runs and line == runs[-1][1] + 1:
            runs[-1][1] = line
        else:
            runs.append([line, line])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


def main(arguments: list[str] | None = None) -> int:
    """Run the tests under coverage.py and print the table; the exit code is that of the tests."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--markdown", type=Path, help="write the table here as well")
    parser.add_argument("tests", nargs="*", help="instead of all of them")
    options = parser.parse_args(arguments)
    coverage = [sys.executable, "-m", "coverage"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def run(*words: str) -> int:
        return subprocess.run([*coverage, *words], cwd=ROOT, env=environment).returncode

    run("erase")
    code = run("run", "-m", "pytest", *TESTS, *options.tests)
    run("combine", "--quiet")
    run("json", "--quiet", "-o", ".coverage.json")
    table = markdown(json.loads((ROOT / ".coverage.json").read_text())["files"])
    print(table)
    if options.markdown:
        options.markdown.write_text(table + "\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
