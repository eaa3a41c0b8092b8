"""Rows as the datasets of the experiments have them before the host's preprocessing."""

import csv
import itertools
from pathlib import Path

import datasets

SOLVED = "123456789456789123789123456214365897365897214897214365531642978642978531978531642"


def raw_rows(full_name: str, count: int) -> datasets.Dataset:
    """`count` rows of the dataset that the host would fetch under `full_name`."""
    for part, make in _MAKERS.items():
        if part in full_name:
            return datasets.Dataset.from_list(make(count))
    raise KeyError(f"no rows were made up for {full_name}")


def write_sudoku_csv(folder: Path, count: int) -> None:
    """`train.csv` and `test.csv` as the host's `sudoku` datasets read them."""
    folder.mkdir(parents=True)
    for split in ("train", "test"):
        with (folder / f"{split}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["quizzes", "solutions"])
            writer.writerows([_puzzle(n, "0"), SOLVED] for n in range(count))


def _puzzle(number: int, blank: str) -> str:
    return "".join(blank if (i + number) % 3 == 0 else cell for i, cell in enumerate(SOLVED))


def _texts(count: int) -> list[dict]:
    return [
        {"text": f"row {n} says that the quick fox is quick, as foxes are."} for n in range(count)
    ]


def _proteins(count: int) -> list[dict]:
    sequences = ["MKVLAAGIVGLCA" * 8 + "L" * n for n in range(count)]
    return [{"seq": seq, "length": len(seq)} for seq in sequences]


def _stars(count: int) -> list[dict]:
    """Three arms of four edges around a hub; the goal is the tip of the first."""
    stars = []
    for n in range(count):
        arms = [[(n + node) % 20 for node in (0, *range(k, k + 4))] for k in (1, 5, 9)]
        edges = [list(edge) for arm in arms for edge in itertools.pairwise(arm)]
        path = arms[0]
        stars.append({"edge_list": edges, "source": path[0], "goal": path[-1], "path": path})
    return stars


def _hard_puzzles(count: int) -> list[dict]:
    return [
        {"question": _puzzle(n, "."), "answer": SOLVED, "rating": n, "source": "made up"}
        for n in range(count)
    ]


def _programs(count: int) -> list[dict]:
    return [
        {
            "question": f"What is {n} and {n}?",
            "code": f"def simple_math_problem():\n    return {n} + {n}\n",
        }
        for n in range(count)
    ]


def _questions(count: int) -> list[dict]:
    return [
        {"question": f"What is {n} and {n}?", "answer": f"It is twice {n}.\n#### {2 * n}"}
        for n in range(count)
    ]


def _molecules(count: int) -> list[dict]:
    # Already tokenized: the chemistry libraries that would do it are an extra of the host.
    return [{"token_ids": list(range(10, 30 + n))} for n in range(count)]


_MAKERS = {
    "lm1b": _texts,
    "owt": _texts,
    "openwebtext": _texts,
    "uniref50": _proteins,
    "star-": _stars,
    "sudoku-extreme": _hard_puzzles,
    "TinyGSM": _programs,
    "gsm8k": _questions,
    "safe-gpt": _molecules,
}
