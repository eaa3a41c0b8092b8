"""Before and after: two files that `run.py --json` wrote, from two states of the package."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from cases import Line
from report import amount, load_lines, markdown_table, text_table

HEADINGS = (
    "path",
    "setting",
    "before",
    "after",
    "before / after",
    "reference, before / after",
    "ratio before",
    "ratio after",
    "at least",
)


def pair_lines(before: Sequence[Line], after: Sequence[Line]) -> list[tuple[Line, Line]]:
    """Lines that both files have, in the order of the second."""
    known = {(line.path, line.setting): line for line in before}
    return [
        (known[line.path, line.setting], line)
        for line in after
        if (line.path, line.setting) in known
    ]


def comparison_rows(pairs: Sequence[tuple[Line, Line]]) -> list[list[str]]:
    """One row for each pair. The reference has not changed: what it differs by is the machine."""
    return [
        [
            old.path,
            old.setting,
            amount(old.ours.median, old.unit),
            amount(new.ours.median, new.unit),
            f"{old.ours.median / new.ours.median:.2f}x",
            f"{old.reference.median / new.reference.median:.2f}x",
            f"{old.ratio:.2f}x",
            f"{new.ratio:.2f}x",
            "" if new.goal is None else f"{new.goal:g}x",
        ]
        for old, new in pairs
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the comparison, and what only one of the files has."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--markdown", type=Path, help="write the table to this file")
    options = parser.parse_args(arguments)
    before, after = load_lines(options.before), load_lines(options.after)
    pairs = pair_lines(before, after)
    rows = comparison_rows(pairs)
    print(text_table(HEADINGS, rows))
    paired = [line for pair in pairs for line in pair]
    for line in [*before, *after]:
        if line not in paired:
            print(f"in one file only: {line.path}, {line.setting}")
    if options.markdown:
        options.markdown.write_text(markdown_table(HEADINGS, rows) + "\n")


if __name__ == "__main__":
    main()
