"""Quality against passes of every sampler, on the tasks whose checkpoints are given.

    python compare.py --sudoku CKPT --star CKPT --text CKPT --files topics.jsonl --out results

Writes `results.json`, `table.md` and `samplers.svg`.
"""

import argparse
import itertools
import json
import math
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import samplers
import tasks

from xlm_mlm import MLMPredictor

# A difference that the number of rows can't show is none.
SURE = 2.0


def measure(task: tasks.Task) -> list[dict[str, Any]]:
    """One point for each setting: the share that is right, and the passes that a row took."""
    points = []
    for name, options in samplers.settings(task.masks, task.guided):
        given = {"max_steps": task.masks, "temperature": 0.0, "confidence_temperature": 0.0}
        one = MLMPredictor(
            tokenizer=task.tokenizer,
            model=task.model,
            seed=0,
            **(given | task.options | options),
        )
        right = asked = 0
        passes: list[int] = []
        for batch in task.batches:
            preds = one.predict(dict(batch))
            some, of = task.right(batch, preds, task.tokenizer)
            right, asked = right + some, asked + of
            passes += preds["steps_taken"]
        cost = 2 if options.get("cfg_scale") else 1
        points.append(
            {
                "sampler": name,
                "options": options,
                "quality": right / asked,
                "error": error(right, asked),
                "passes": cost * sum(passes) / len(passes),
            }
        )
        print(f"{task.title}: {points[-1]}", flush=True)
    return points


def error(right: int, asked: int) -> float:
    """Standard error of a share, one right and one wrong answer added, so that 1 has one too."""
    share = (right + 1) / (asked + 2)
    return math.sqrt(share * (1 - share) / (asked + 2))


def best(points: list[dict[str, Any]]) -> dict[str, Any]:
    """The best quality; of those that can't be told from it, the one with the fewest passes."""
    top = max(points, key=lambda point: (point["quality"], -point["passes"]))
    near = [p for p in points if p["quality"] >= top["quality"] - SURE * top["error"]]
    return min(near, key=lambda point: (point["passes"], -point["quality"]))


def table(results: dict[str, list[dict[str, Any]]], units: dict[str, str]) -> str:
    """Markdown: of every task and sampler, the best quality and what it takes to come near it."""
    lines = []
    for title, points in results.items():
        winner = best(points)
        lines += [
            f"### {title}",
            "",
            f"Share of {units[title]} that are right. Winner: **{winner['sampler']}** "
            f"({_options(winner['options'])}): {winner['quality']:.3f} in "
            f"{winner['passes']:.1f} passes.",
            "",
            "| sampler | best | at passes | as good as its best, at passes | with |",
            "| --- | --- | --- | --- | --- |",
        ]
        for name in dict.fromkeys(point["sampler"] for point in points):
            own = [point for point in points if point["sampler"] == name]
            top, near = max(own, key=lambda p: (p["quality"], -p["passes"])), best(own)
            mark = "**" if name == winner["sampler"] else ""
            lines.append(
                f"| {mark}{name}{mark} | {top['quality']:.3f} ± {top['error']:.3f} | "
                f"{top['passes']:.1f} | {near['quality']:.3f} at {near['passes']:.1f} | "
                f"{_options(near['options'])} |"
            )
        lines.append("")
    return "\n".join(lines)


def _options(options: dict[str, Any]) -> str:
    shown = json.dumps(options).replace('"', "")
    return f"`{shown[1:-1]}`"


def draw(results: dict[str, list[dict[str, Any]]], units: dict[str, str], path: Path) -> None:
    """One panel a task; of every sampler the points that no cheaper one of its own beats."""
    figure, axes = plt.subplots(1, len(results), figsize=(5.6 * len(results), 4.6), squeeze=False)
    names = list(dict.fromkeys(p["sampler"] for points in results.values() for p in points))
    marks = dict(zip(names, itertools.cycle("osD^v<>PXhpd*8H"), strict=False))
    for axis, (title, points) in zip(axes[0], results.items(), strict=True):
        for number, name in enumerate(names):
            front: list[dict[str, Any]] = []
            own = [point for point in points if point["sampler"] == name]
            for point in sorted(own, key=lambda p: (p["passes"], -p["quality"])):
                if not front or point["quality"] > front[-1]["quality"]:
                    front.append(point)
            axis.plot(
                [p["passes"] for p in front],
                [p["quality"] for p in front],
                marker=marks[name],
                color=plt.get_cmap("tab20")(number),
                markersize=5,
                linewidth=1.2,
                label=name,
            )
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_formatter("{x:g}")
        axis.set_title(title)
        axis.set_xlabel("passes of the network for a row")
        axis.set_ylabel(f"share of {units[title]} that are right")
        axis.grid(alpha=0.3)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=5, frameon=False, fontsize=9)
    figure.tight_layout(rect=(0, 0.16, 1, 1))
    figure.savefig(path)


def main() -> None:
    """Measure, and write the three files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    for name in ("sudoku", "star", "text"):
        parser.add_argument(f"--{name}", type=Path, help="a checkpoint of this task")
    parser.add_argument("--files", help="the text's data_files, as in training")
    parser.add_argument("--data", type=Path, default=Path("data"), help="where data are cached")
    parser.add_argument("--rows", type=int, default=240, help="at most, of each task")
    parser.add_argument("--out", type=Path, default=Path("results"))
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    found: dict[str, tasks.Task] = {}
    if asked.sudoku:
        found["sudoku"] = tasks.sudoku(asked.sudoku, asked.data, asked.rows)
    if asked.star:
        found["star"] = tasks.star(asked.star, asked.data, asked.rows)
    if asked.text:
        found["text"] = tasks.text(asked.text, asked.data, asked.files, asked.rows)
    if not found:
        parser.error("give at least one of --sudoku, --star, --text")
    results = {task.title: measure(task) for task in found.values()}
    units = {task.title: task.unit for task in found.values()}
    (asked.out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    (asked.out / "table.md").write_text(table(results, units))
    draw(results, units, asked.out / "samplers.svg")


if __name__ == "__main__":
    main()
