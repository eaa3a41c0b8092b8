"""The table of what is fast: ours against the reference, and against what arithmetic allows."""

import argparse
import warnings
from collections.abc import Sequence
from pathlib import Path

import collation_cases
import generation_cases
import memory_cases
import torch
import training_cases
from cases import Bench, Case, Line
from measure import describe_machine
from packages import choose_reference, load_package
from report import HEADINGS, cells, machine_text, markdown_table, notes, save_lines, text_table

CASES: dict[str, Case] = {
    "train_large_vocabulary": training_cases.train_large_vocabulary,
    "train_small_vocabulary": training_cases.train_small_vocabulary,
    "train_padded": training_cases.train_padded,
    "generate_uniform": generation_cases.generate_uniform,
    "generate_infill": generation_cases.generate_infill,
    "generate_many_steps": generation_cases.generate_many_steps,
    "generate_seq2seq": generation_cases.generate_seq2seq,
    "collate": collation_cases.collate,
    "memory": memory_cases.memory,
}


def measure_cases(bench: Bench, names: Sequence[str]) -> list[Line]:
    """Measure cases one after another, printing each line as it is done."""
    lines = []
    for name in names:
        for line in CASES[name](bench):
            print("  ".join(cell for cell in cells(line) if cell), flush=True)
            lines.append(line)
    return lines


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=sorted(CASES), default=list(CASES))
    parser.add_argument("--against", choices=("auto", "mlm", "naive"), default="auto")
    parser.add_argument("--threads", type=int, default=2, help="of torch (collation: see there)")
    parser.add_argument("--rounds", type=int, default=9, help="runs of each, at most")
    parser.add_argument("--budget", type=float, default=45.0, help="seconds a line, about")
    parser.add_argument("--extra", action="store_true", help="also lines that have no goal")
    parser.add_argument("--markdown", type=Path, help="write the table to this file")
    parser.add_argument("--json", type=Path, help="add the figures to this file")
    parser.add_argument("--scale", choices=("full", "tiny"), default="full", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write what was asked for."""
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    warnings.filterwarnings("ignore", category=FutureWarning)
    bench = Bench(
        load_package("xlm_mlm"),
        load_package(choose_reference(options.against)),
        options.rounds,
        options.budget,
        options.scale == "tiny",
        options.extra,
    )
    machine = describe_machine(("xlm-models",) if bench.reference.name == "mlm" else ())
    machine["reference"] = bench.reference.name
    lines = measure_cases(bench, options.only)
    rows = [cells(line) for line in lines]
    print("\n" + text_table(HEADINGS, rows), *notes(lines), machine_text(machine), sep="\n")
    if options.markdown:
        body = "\n".join(f"- {note}" for note in [*notes(lines), machine_text(machine)])
        options.markdown.write_text(f"{markdown_table(HEADINGS, rows)}\n\n{body}\n")
    if options.json:
        save_lines(options.json, lines, machine)


if __name__ == "__main__":
    main()
