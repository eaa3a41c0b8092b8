"""4x4 sudoku: all grids, puzzles with one answer, and nothing held out seen in training."""

import itertools
import random

import pytest
from torch.utils.data import DataLoader, DistributedSampler
from xlm.datamodule import SimpleSpaceTokenizer

from xlm_mlm.collation.single import MLMInfillWithExactTargetPredCollator
from xlm_mlm.data.sudoku import (
    SudokuDatasetManager,
    make_puzzle,
    make_puzzles,
    solution_grids,
    solutions,
    split_grids,
)

TOKENIZER = SimpleSpaceTokenizer.for_numbers(5)
MASK = TOKENIZER.mask_token_id


def units(grid):
    rows = [grid[4 * r : 4 * r + 4] for r in range(4)]
    columns = [grid[c::4] for c in range(4)]
    boxes = [
        tuple(grid[4 * (2 * r + i) + 2 * c + j] for i in (0, 1) for j in (0, 1))
        for r in (0, 1)
        for c in (0, 1)
    ]
    return [*rows, *columns, *boxes]


def count_answers(puzzle):
    """Naive backtracking, knowing nothing of the list of grids."""
    if 0 not in puzzle:
        return 1
    cell = puzzle.index(0)
    total = 0
    for digit in (1, 2, 3, 4):
        tried = (*puzzle[:cell], digit, *puzzle[cell + 1 :])
        if all(len(filled := [d for d in u if d]) == len(set(filled)) for u in units(tried)):
            total += count_answers(tried)
    return total


def rows_of(split, **options):
    manager = SudokuDatasetManager(None, split, {"batch_size": 1}, **options)
    return manager.make_rows(TOKENIZER, None)


def test_all_288_grids_and_only_those():
    grids = solution_grids()
    assert len(grids) == len(set(grids)) == 288
    assert all(set(unit) == {1, 2, 3, 4} for grid in grids for unit in units(grid))
    permutations = list(itertools.permutations((1, 2, 3, 4)))
    naive = sum(
        all(set(u) == {1, 2, 3, 4} for u in units(a + b + c + d))
        for a, b in itertools.product(permutations, repeat=2)
        if all(set(a[i : i + 2] + b[i : i + 2]) == {1, 2, 3, 4} for i in (0, 2))
        for c, d in itertools.product(permutations, repeat=2)
    )
    assert naive == 288


def test_puzzles_have_one_answer_by_an_independent_solver():
    pairs = make_puzzles(
        list(solution_grids())[::12], per_grid=10, min_clues=4, max_clues=12, seed=3
    )
    assert len(pairs) == 240
    for puzzle, grid in pairs:
        assert count_answers(puzzle) == 1
        assert solutions(puzzle) == [grid]
    assert len({sum(cell > 0 for cell in puzzle) for puzzle, _ in pairs}) >= 6


def test_every_number_of_clues_asked_for_occurs():
    pairs = make_puzzles(list(solution_grids())[::24], 14, min_clues=8, max_clues=11, seed=0)
    assert {sum(cell > 0 for cell in puzzle) for puzzle, _ in pairs} == {8, 9, 10, 11}


def test_puzzles_are_a_function_of_the_seed():
    grids = list(solution_grids())[:20]
    first, again, other = (make_puzzles(grids, 5, 4, 10, seed) for seed in (0, 0, 1))
    assert first == again
    assert {grid for _, grid in other} == {grid for _, grid in first} == set(grids)
    assert first != other


def test_solutions_counts_like_backtracking_where_there_are_many():
    for puzzle in [(0,) * 16, (1, 2, *(0,) * 14), (1, 1, *(0,) * 14)]:
        assert len(solutions(puzzle)) == count_answers(puzzle)


def test_make_puzzle_leaves_as_many_clues_as_asked():
    rng = random.Random(0)
    for clues in range(8, 16):
        puzzle = make_puzzle(solution_grids()[5], clues, rng)
        assert sum(cell > 0 for cell in puzzle) == clues


def test_split_is_disjoint_exhaustive_and_a_function_of_the_seed():
    train, held_out = split_grids(48, seed=0)
    assert (len(train), len(held_out)) == (240, 48)
    assert set(train) | set(held_out) == set(solution_grids())
    assert split_grids(48, seed=0) == (train, held_out)
    assert set(split_grids(48, seed=1)[1]) != set(held_out)


@pytest.mark.parametrize("held_out", [0, 288, 400, 1.5])
def test_split_refuses_an_empty_side(held_out):
    with pytest.raises(ValueError, match="held_out"):
        split_grids(held_out, seed=0)


def test_training_rows_never_hold_a_held_out_grid():
    train, held_out = rows_of("train"), rows_of("test")
    answers = {tuple(ids) for ids in train["input_ids"]}
    held = {tuple(ids) for ids in held_out["input_ids"]}
    assert (len(answers), len(held)) == (240, 48)
    assert not answers & held
    assert len(train) == 240 * 40
    assert len(held_out) == 48 * 5
    # Nor a puzzle that a held-out grid would answer as well: every training answer is unique.
    digits = {TOKENIZER.convert_tokens_to_ids(str(d)): d for d in (1, 2, 3, 4)}
    sample = train.shuffle(seed=0).select(range(300))
    for row in sample:
        puzzle = tuple(digits.get(i, 0) for i in row["prompt_ids"])
        assert solutions(puzzle) == [tuple(digits[i] for i in row["input_ids"])]


def test_rows_fit_the_infilling_collators():
    for row in rows_of("train", puzzles_per_grid=3):
        pairs = list(zip(row["prompt_ids"], row["input_ids"], strict=True))
        assert len(pairs) == 16
        assert all(prompt in (MASK, answer) for prompt, answer in pairs)
        assert any(prompt == MASK for prompt, _ in pairs)
        assert all(answer != MASK for _, answer in pairs)


def test_validation_test_and_predict_share_their_puzzles():
    rows = [rows_of(split).to_dict() for split in ("validation", "test", "predict")]
    assert rows[0] == rows[1] == rows[2]
    assert rows_of("test", seed=1).to_dict() != rows[0]


@pytest.mark.parametrize("world", [1, 2])
def test_batches_to_predict_hold_each_rows_number_in_the_split(tmp_path, world):
    """As Lightning deals rows out to several processes: rank r takes r, r + W, ..."""
    collator = MLMInfillWithExactTargetPredCollator(
        TOKENIZER, 16, None, True, "block", False, False
    )
    manager = SudokuDatasetManager(
        collator, "validation", {"batch_size": 3}, held_out=2, held_out_puzzles_per_grid=4
    )
    manager.prepare_data(str(tmp_path), TOKENIZER)
    manager.setup("fit", str(tmp_path), TOKENIZER, 16, is_ddp=False, rank=0, world_size=1)
    expected = manager.dataset["input_ids"]
    assert len(expected) == 8
    for rank in range(world):
        sampler = DistributedSampler(manager.dataset, world, rank, shuffle=False)
        loader = DataLoader(manager.dataset, 3, sampler=sampler, collate_fn=collator, num_workers=1)
        batches = list(loader)
        numbers = [number for batch in batches for number in batch["sample_ids"].tolist()]
        assert numbers == list(range(rank, 8, world))
        rows = [row for batch in batches for row in batch["target_ids"].tolist()]
        assert rows == [expected[number] for number in numbers]


def test_the_cache_is_keyed_by_grids_clues_counts_and_seed():
    def folder(split="train", **options):
        made = SudokuDatasetManager(None, split, {"batch_size": 1}, **options)
        made._tokenizer = TOKENIZER
        return made._get_cache_dir("data")

    changed = [
        folder("test"),
        folder(held_out=47),
        folder(puzzles_per_grid=41),
        folder(min_clues=5),
        folder(max_clues=11),
        folder(seed=1),
    ]
    assert len({folder(), *changed}) == 1 + len(changed)
    assert folder("validation") == folder("test")
    assert folder("test", held_out_puzzles_per_grid=6) != folder("test")
    assert folder(held_out_puzzles_per_grid=6) == folder()  # not in these rows


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("puzzles_per_grid", 0),
        ("held_out_puzzles_per_grid", 0),
        ("min_clues", 3),
        ("max_clues", 3),
        ("max_clues", 16),
        ("seed", None),
        ("seed", -1),
        ("split", "training"),
    ],
)
def test_numbers_out_of_range(option, value):
    options = {"split": "train", option: value}
    with pytest.raises(ValueError, match=option):
        SudokuDatasetManager(None, dataloader_kwargs={"batch_size": 1}, **options)


@pytest.mark.parametrize(
    ("option", "value"), [("per_grid", 0), ("min_clues", 3), ("max_clues", 4), ("seed", None)]
)
def test_make_puzzles_checks_its_numbers(option, value):
    options = {"per_grid": 1, "min_clues": 5, "max_clues": 6, "seed": 0, option: value}
    with pytest.raises(ValueError, match=option):
        make_puzzles([solution_grids()[0]], **options)


def test_a_tokenizer_without_the_digits_or_the_mask():
    manager = SudokuDatasetManager(None, "test", {"batch_size": 1})
    with pytest.raises(ValueError, match="no token '4'"):
        manager.make_rows(SimpleSpaceTokenizer.for_numbers(4), None)
    with pytest.raises(ValueError, match="mask"):
        manager.make_rows(None, None)


@pytest.mark.parametrize("puzzle", [(1, 2), (0,) * 15 + (5,)])
def test_solutions_refuses_what_is_no_puzzle(puzzle):
    with pytest.raises(ValueError, match="16 digits"):
        solutions(puzzle)
