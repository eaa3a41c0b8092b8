"""How time and memory grow with the vocabulary, the length and the batch."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from arithmetic import ModelShape
from cases import Bench, build_loss, build_model, build_models
from generation_cases import GenerationSize, build_predictor, generation_workload, masked_rows
from measure import (
    Timing,
    Workload,
    describe_machine,
    in_fresh_process,
    interleave,
    peak_bytes,
)
from packages import Package, choose_reference, load_package
from report import amount, machine_text, markdown_table
from training_cases import TrainingSize, training_batch, training_workload

KINDS = ("training", "generation")
PASSES = 4
"""Of a generation: enough to be a loop, few enough for the largest sizes."""
BASE = {"vocabulary": 2_000, "length": 128, "batch": 8}
RANGES = {
    "vocabulary": (1_000, 3_000, 10_000, 30_000, 100_000),
    "length": (128, 256, 512, 1_024, 2_048, 4_096),
    "batch": (1, 2, 4, 8, 16, 32, 64),
}
UNITS = {"vocabulary": "tokens", "length": "tokens a row", "batch": "rows"}


class Point(NamedTuple):
    """Seconds and bytes of one package at one size; bytes are None where not measured."""

    axis: str
    value: int
    kind: str
    package: str
    seconds: float
    bytes: int | None


def sizes_at(axis: str, value: int) -> dict[str, int]:
    """The base sizes with one of them changed; long rows come in a small batch."""
    base = BASE if axis != "length" else {**BASE, "batch": 2}
    return {**base, axis: value}


def _workload(package: Package, model: Any, kind: str, sizes: dict[str, int]) -> Workload:
    shape = shape_of(sizes)
    if kind == "training":
        loss = build_loss(package, model, shape.vocabulary)
        batch = training_batch(TrainingSize(shape, sizes["batch"], sizes["length"]))
        return training_workload(model, loss, batch)
    size = GenerationSize(shape, sizes["batch"], sizes["length"], {"max_steps": PASSES})
    return generation_workload(build_predictor(package, model, size), masked_rows(size))


def shape_of(sizes: dict[str, int]) -> ModelShape:
    """A model small enough that the range is measured in minutes."""
    return ModelShape(sizes["vocabulary"], 128, 2)


def growth_peak(package_name: str, kind: str, sizes: dict[str, int], threads: int) -> int:
    """Bytes above the start of one run, in this process; a small run goes before."""
    torch.set_num_threads(threads)
    package = load_package(package_name)
    runs = []
    for current in ({"vocabulary": 40, "length": 8, "batch": 2}, sizes):
        model = build_model(package, shape_of(current), current["length"])
        runs.append(_workload(package, model, kind, current)())
    runs[0]()
    return peak_bytes(runs[1])


def measure_point(
    bench: Bench, kind: str, axis: str, value: int, memory: bool = True
) -> list[Point]:
    """Both packages at one size: times in turns, memory in fresh processes."""
    sizes = sizes_at(axis, value)
    models = build_models(bench, shape_of(sizes), sizes["length"])
    workloads = {
        package.name: _workload(package, model, kind, sizes)
        for package, model in zip(bench.packages, models, strict=True)
    }
    seconds = interleave(workloads, bench.rounds, bench.budget)
    threads = torch.get_num_threads()
    return [
        Point(
            axis,
            value,
            kind,
            name,
            Timing.of(taken).median,
            in_fresh_process(growth_peak, name, kind, sizes, threads) if memory else None,
        )
        for name, taken in seconds.items()
    ]


def fit_exponent(values: Sequence[float], amounts: Sequence[float]) -> float:
    """Slope of a least-squares line through the logarithms of the upper half of a range.

    Below, costs that do not grow hide the growth. At least 3 points are used.

    Raises:
        ValueError: fewer than 3 points, or an amount that is not positive.
    """
    if len(values) < 3 or min(amounts) <= 0:
        raise ValueError(f"an exponent needs 3 positive amounts; there are {list(amounts)}")
    order = np.argsort(values)[-max(len(values) // 2 + 1, 3) :]
    x, y = np.log(np.array(values)[order]), np.log(np.array(amounts)[order])
    return float(np.polyfit(x, y, 1)[0])


def series(
    points: Sequence[Point], axis: str, kind: str, package: str, what: str
) -> tuple[list[int], list[float]]:
    """Values of an axis, and the seconds or bytes there."""
    chosen = [p for p in points if (p.axis, p.kind, p.package) == (axis, kind, package)]
    return [p.value for p in chosen], [getattr(p, what) for p in chosen]


def growth_table(points: Sequence[Point], axis: str, packages: Sequence[str]) -> str:
    """Markdown: a line for each size, the exponents below."""
    curves = [(k, w, p) for k in KINDS for w in ("seconds", "bytes") for p in packages]
    columns = [series(points, axis, kind, package, what) for kind, what, package in curves]
    headings = [axis]
    for kind, what, package in curves:
        headings.append(f"{kind}, {'time' if what == 'seconds' else 'memory'}, {package}")
    rows = []
    for i, value in enumerate(columns[0][0]):
        cells = []
        for (_, what, _), (_, amounts) in zip(curves, columns, strict=True):
            cells.append(amount(amounts[i], "s" if what == "seconds" else "bytes"))
        rows.append([f"{value:,}", *cells])
    rows.append(["exponent", *(f"{fit_exponent(*column):.2f}" for column in columns)])
    return markdown_table(headings, rows)


def plot(points: Sequence[Point], packages: Sequence[str], path: Path) -> None:
    """Time above, memory below, one column for each axis; both scales logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams.update({"svg.hashsalt": "growth", "svg.fonttype": "none"})
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(2, 3, figsize=(13, 7.5), sharey="row", layout="constrained")
    for row, (what, scale, label) in enumerate(
        (("seconds", 1e3, "time, ms"), ("bytes", 2**-20, "peak memory above start, MiB"))
    ):
        for column, axis in enumerate(RANGES):
            panel = panels[row][column]
            for package, colour in zip(packages, ("tab:blue", "tab:orange"), strict=True):
                for kind, style in zip(KINDS, ("o-", "s--"), strict=True):
                    values, amounts = series(points, axis, kind, package, what)
                    slope = fit_exponent(values, amounts)
                    text = f"{kind}, {package}: exponent {slope:.2f}"
                    scaled = [a * scale for a in amounts]
                    panel.loglog(values, scaled, style, color=colour, label=text, markersize=4)
            panel.set_xlabel(f"{axis}, {UNITS[axis]}")
            panel.set_xticks(RANGES[axis], [f"{value:,}" for value in RANGES[axis]], minor=False)
            panel.minorticks_off()
            panel.grid(which="major", alpha=0.3)
            panel.legend(fontsize=7)
        panels[row][0].set_ylabel(label)
    figure.suptitle("One training step, and one generation in 4 passes (d 128, 2 layers, fp32)")
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    plt.close(figure)


def describe(packages: Sequence[str], machine: dict[str, str]) -> str:
    """What the tables hold, for their reader."""
    base = ", ".join(f"{name} {value:,}" for name, value in BASE.items())
    return (
        f"d 128, 2 layers, 2 heads; where it does not vary: {base} (batch 2 where the length "
        f"varies). One training step with dropout 0.1; one generation of rows of masks in {PASSES} "
        "passes. Memory is the peak above the start of the run. The exponent is the slope of a "
        "least-squares line through the logarithms of the upper half of each range. "
        f"Packages: {', '.join(packages)}. {machine_text(machine)}."
    )


def write_results(points: Sequence[Point], bench: Bench, folder: Path) -> None:
    """`growth.json` with all points, `growth.md` with the tables, `growth.svg` once all are in."""
    folder.mkdir(exist_ok=True)
    (folder / "growth.json").write_text(json.dumps(points))
    names = [package.name for package in bench.packages]
    axes = [axis for axis in RANGES if any(point.axis == axis for point in points)]
    tables = [f"## {axis}\n\n{growth_table(points, axis, names)}" for axis in axes]
    if axes == list(RANGES):
        plot(points, names, folder / "growth.svg")
        tables.append("![Time and memory against vocabulary, length and batch](growth.svg)")
    parts = ["# Growth", describe(names, describe_machine(("xlm-models",))), *tables]
    (folder / "growth.md").write_text("\n\n".join(parts) + "\n")


def read_points(file: Path, without: Sequence[str]) -> list[Point]:
    """Points measured before, those of some axes left out."""
    rows = json.loads(file.read_text()) if file.exists() else []
    return [point for point in map(Point._make, rows) if point.axis not in without]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure some or all axes, and write the results of all that were measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=list(RANGES), default=list(RANGES))
    parser.add_argument("--against", choices=("auto", "mlm", "naive"), default="auto")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    reference = load_package(choose_reference(options.against))
    bench = Bench(load_package("xlm_mlm"), reference, rounds=15, budget=3.0)
    points = read_points(options.out / "growth.json", without=options.only)
    for axis in options.only:
        for value in RANGES[axis]:
            for kind in KINDS:
                points += measure_point(bench, kind, axis, value)
                print(*points[-2:], sep="\n", flush=True)
    write_results(points, bench, options.out)


if __name__ == "__main__":
    main()
