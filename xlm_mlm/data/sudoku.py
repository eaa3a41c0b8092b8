"""4x4 sudoku: every solution grid, puzzles with one answer, and a manager that serves them.

A grid is 16 digits from 1 to 4, row by row; rows, columns and the four 2x2 boxes each hold all
four. A puzzle is a grid with 0 in its blank cells. There are 288 grids, so a puzzle has one
answer exactly when no other grid agrees with its clues: no search is needed.
"""

import random
from collections.abc import Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, ClassVar

import datasets

from xlm_mlm.checks import require_int, require_token_id
from xlm_mlm.data.cache import CachedDatasetManager

Grid = tuple[int, ...]

SIDE = 4
CELLS = SIDE * SIDE


@lru_cache(maxsize=1)
def solution_grids() -> tuple[Grid, ...]:
    """All 288 grids, in lexicographic order."""
    grids: list[Grid] = []

    def extend(cells: list[int]) -> None:
        if len(cells) == CELLS:
            grids.append(tuple(cells))
            return
        for digit in range(1, SIDE + 1):
            if digit not in _seen_by(cells):
                extend([*cells, digit])

    extend([])
    return tuple(grids)


def _seen_by(cells: list[int]) -> set[int]:
    """Digits that the next cell may not take: those above it, left of it or in its box."""
    row, column = divmod(len(cells), SIDE)
    box = (row // 2, column // 2)
    return {
        digit
        for index, digit in enumerate(cells)
        if index // SIDE == row
        or index % SIDE == column
        or (index // SIDE // 2, index % SIDE // 2) == box
    }


def solutions(puzzle: Grid) -> list[Grid]:
    """The grids that agree with every clue of `puzzle` (0 is a blank).

    Raises:
        ValueError: `puzzle` is not 16 digits from 0 to 4.
    """
    if len(puzzle) != CELLS or any(cell not in range(SIDE + 1) for cell in puzzle):
        raise ValueError(f"puzzle is {puzzle!r}; it must hold {CELLS} digits from 0 to {SIDE}")
    return [
        grid
        for grid in solution_grids()
        if all(clue in (0, cell) for clue, cell in zip(puzzle, grid, strict=True))
    ]


@cache
def _agreements(grid: Grid) -> tuple[int, ...]:
    """For every other grid, the cells it shares with `grid`, as a bit mask."""
    return tuple(
        sum(1 << cell for cell in range(CELLS) if grid[cell] == other[cell])
        for other in solution_grids()
        if other != grid
    )


def make_puzzle(grid: Grid, clues: int, rng: random.Random) -> Grid:
    """Blank cells of `grid` in random order, as long as the answer stays unique.

    Args:
        grid: a full one.
        rng: gives the order in which cells are tried.
        clues: how many to leave. A puzzle that has no removable clue left before that keeps
            more; no 4x4 puzzle with fewer than 4 clues has one answer.
    """
    kept = (1 << CELLS) - 1
    for cell in rng.sample(range(CELLS), CELLS):
        if kept.bit_count() <= clues:
            break
        fewer = kept & ~(1 << cell)
        if all(fewer & ~shared for shared in _agreements(grid)):
            kept = fewer
    return tuple(digit if kept >> cell & 1 else 0 for cell, digit in enumerate(grid))


def split_grids(held_out: int, seed: int) -> tuple[list[Grid], list[Grid]]:
    """Divide the 288 grids into (training, held out), the same way for the same seed.

    Raises:
        ValueError: `held_out` leaves one side empty, or `seed` is no integer of at least 0.
    """
    grids = list(solution_grids())
    require_int("held_out", held_out, 1)
    require_int("seed", seed, 0)
    if held_out >= len(grids):
        raise ValueError(f"held_out is {held_out}; it must be less than the {len(grids)} grids")
    random.Random(f"split-{seed}").shuffle(grids)
    return grids[held_out:], grids[:held_out]


def make_puzzles(
    grids: list[Grid], per_grid: int, min_clues: int, max_clues: int, seed: int
) -> list[tuple[Grid, Grid]]:
    """`per_grid` distinct puzzles of each grid as (puzzle, grid), clue counts taken in turn.

    Raises:
        ValueError: a number out of range.
    """
    require_int("per_grid", per_grid, 1)
    require_int("min_clues", min_clues, 4)
    require_int("max_clues", max_clues, min_clues)
    require_int("seed", seed, 0)
    rng = random.Random(f"puzzles-{seed}")
    counts = range(min_clues, max_clues + 1)
    pairs: list[tuple[Grid, Grid]] = []
    for grid in grids:
        found: dict[Grid, None] = {}
        # Few puzzles exist near the extremes: the number of attempts is bounded.
        for attempt in range(20 * per_grid):
            if len(found) == per_grid:
                break
            found[make_puzzle(grid, counts[attempt % len(counts)], rng)] = None
        pairs.extend((puzzle, grid) for puzzle in found)
    return pairs


class SudokuDatasetManager(CachedDatasetManager):
    """Puzzles of the training grids for "train", of the held-out grids for every other split.

    The two sets of grids are disjoint. No relabelled or turned copies are made, because they
    could be grids that are held out. Rows hold `prompt_ids` (mask tokens in the blanks) and
    `input_ids` (the answer), 16 tokens each, as the infilling collators read them.

    Args:
        held_out: how many of the 288 grids are kept for validation and test.
        puzzles_per_grid: for "train"; fewer where a grid has no more of them.
        held_out_puzzles_per_grid: for the other splits, which share the same puzzles.
        min_clues: at least 4: fewer never give a unique answer.
        max_clues: at most 15.
        seed: decides the division of the grids and the puzzles.
        options: see `CachedDatasetManager`.

    Raises:
        ValueError: a number out of range, or a tokenizer without the digits or a mask token.
    """

    dataset_name = "sudoku_4x4"
    same_rows: ClassVar[Mapping[str, str]] = {"validation": "test", "predict": "test"}

    def __init__(
        self,
        collator: Any,
        split: str,
        dataloader_kwargs: Mapping[str, Any],
        held_out: int = 48,
        puzzles_per_grid: int = 40,
        held_out_puzzles_per_grid: int = 5,
        min_clues: int = 4,
        max_clues: int = 10,
        seed: int = 0,
        **options: Any,
    ):
        super().__init__(collator, split, dataloader_kwargs, **options)
        require_int("puzzles_per_grid", puzzles_per_grid, 1)
        require_int("held_out_puzzles_per_grid", held_out_puzzles_per_grid, 1)
        require_int("min_clues", min_clues, 4)
        require_int("max_clues", max_clues, min_clues)
        if max_clues >= CELLS:
            raise ValueError(f"max_clues is {max_clues}; it must leave one of {CELLS} cells blank")
        self.training_grids, self.held_out_grids = split_grids(held_out, seed)
        self.per_grid = puzzles_per_grid if self.split == "train" else held_out_puzzles_per_grid
        self.clues = (min_clues, max_clues)
        self.seed = seed

    def cache_inputs(self) -> dict[str, Any]:
        """How many puzzles are made of which grids, and the seed."""
        return {
            "held_out": len(self.held_out_grids),
            "per_grid": self.per_grid,
            "clues": self.clues,
            "seed": self.seed,
        }

    def make_rows(self, tokenizer: Any, workspace: Path) -> datasets.Dataset:
        """Make the puzzles of `self.split`; they fit in memory."""
        mask = require_token_id(tokenizer, "mask", "mark the blanks of a puzzle")
        ids = {digit: _digit_id(tokenizer, digit) for digit in range(1, SIDE + 1)}
        grids = self.training_grids if self.split == "train" else self.held_out_grids
        pairs = make_puzzles(grids, self.per_grid, *self.clues, seed=self.seed)
        return datasets.Dataset.from_dict(
            {
                "prompt_ids": [[ids.get(cell, mask) for cell in puzzle] for puzzle, _ in pairs],
                "input_ids": [[ids[cell] for cell in grid] for _, grid in pairs],
            }
        )


def _digit_id(tokenizer: Any, digit: int) -> int:
    vocabulary = tokenizer.get_vocab()
    if str(digit) not in vocabulary:
        raise ValueError(
            f"the tokenizer has no token {str(digit)!r}; sudoku needs the digits 1 to {SIDE}, "
            f"as xlm.datamodule.SimpleSpaceTokenizer.for_numbers({SIDE + 1}) has them"
        )
    return vocabulary[str(digit)]
