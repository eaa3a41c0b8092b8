"""The callback that shows boards: what it draws, which batches it reads, what it counts."""

from types import SimpleNamespace

import pytest
import torch
from xlm.datamodule import SimpleSpaceTokenizer

from xlm_mlm.callbacks.boards import BoardPrinter, side_by_side

TOKENIZER = SimpleSpaceTokenizer.for_numbers(5)
MASK, BOS, EOS = TOKENIZER.mask_token_id, TOKENIZER.bos_token_id, TOKENIZER.eos_token_id
GRID = [1, 2, 3, 4, 3, 4, 1, 2, 2, 1, 4, 3, 4, 3, 2, 1]
HARNESS = SimpleNamespace(
    tokenizer=TOKENIZER,
    dataloader_names={
        "test": {0: "infill_prediction"},
        "val": {0: "lm", 1: "infill_prediction"},
    },
)


def trainer(fn="test", rank=0):
    return SimpleNamespace(state=SimpleNamespace(fn=fn), is_global_zero=rank == 0)


def framed(digits):
    ids = [MASK if d == 0 else TOKENIZER.convert_tokens_to_ids(str(d)) for d in digits]
    return [BOS, *ids, EOS]


def batch_of(*answers):
    """Puzzles with the first cell blank, and these answers."""
    puzzle = framed([0, *GRID[1:]])
    batch = {
        "input_ids": torch.tensor([puzzle] * len(answers)),
        "target_ids": torch.tensor([framed(GRID)] * len(answers)),
    }
    return {"ids": torch.tensor([framed(answer) for answer in answers])}, batch


def test_puzzle_stands_beside_answer():
    lines = side_by_side(["."] * 16, [str(d) for d in GRID], solved=False).splitlines()
    assert lines[0] == " . . | . .      1 2 | 3 4 "
    assert lines[2] == "-----+----- => -----+-----"
    assert lines[-1].endswith("wrong")
    assert len(lines) == 5


def test_testing_prints_boards_and_the_share_solved(capsys):
    printer = BoardPrinter(boards=2)
    wrong = [2, *GRID[1:]]
    printer.on_test_start(trainer(), HARNESS)
    printer.on_test_batch_end(trainer(), HARNESS, *batch_of(GRID, wrong, GRID), 0)
    printer.on_test_batch_end(trainer(), HARNESS, *batch_of(wrong), 1)
    printer.on_test_end(trainer(), HARNESS)
    printed = capsys.readouterr().out
    assert "2 of 4 held-out boards solved, every cell right: 0.5000" in printed
    assert printed.count("=>") == 2  # the first and the last
    assert (printed.count("solved\n"), printed.count("wrong\n")) == (1, 1)
    assert " . 2 | 3 4      1 2 | 3 4 " in printed
    assert " . 2 | 3 4      2 2 | 3 4 " in printed


def test_boards_are_spread_evenly_over_all(capsys):
    """Of five answers that differ in their first cell, the first, third and last are printed."""
    printer = BoardPrinter(boards=3)
    numbers = SimpleSpaceTokenizer.for_numbers(6)
    harness = SimpleNamespace(tokenizer=numbers, dataloader_names=HARNESS.dataloader_names)
    for first in (1, 2, 3, 4, 5):
        outputs, batch = batch_of(GRID)
        outputs["ids"][0, 1] = numbers.convert_tokens_to_ids(str(first))
        printer.on_test_batch_end(trainer(), harness, outputs, batch, first)
    printer.on_test_end(trainer(), harness)
    printed = capsys.readouterr().out
    shown = [first for first in range(1, 6) if f" . 2 | 3 4      {first} 2 | 3 4 " in printed]
    assert shown == [1, 3, 5]
    assert printed.count("=>") == 3


def test_a_token_that_is_no_digit_is_shown_as_such(capsys):
    printer = BoardPrinter(boards=1)
    outputs, batch = batch_of(GRID)
    outputs["ids"][0, 1] = EOS
    printer.on_test_batch_end(trainer(), HARNESS, outputs, batch, 0)
    printer.on_test_end(trainer(), HARNESS)
    printed = capsys.readouterr().out
    assert " ? 2 | 3 4 " in printed
    assert "0 of 1 held-out boards" in printed


def test_rows_that_are_no_boards_are_counted_and_left_out(capsys):
    """A board among rows of three digits and of none: testing goes on."""
    printer = BoardPrinter()
    for digits in (3, 0, len(GRID)):
        outputs, batch = batch_of(GRID)
        batch["target_ids"][0, 1 + digits :] = EOS
        printer.on_test_batch_end(trainer(), HARNESS, outputs, batch, 0)
    printer.on_test_end(trainer(), HARNESS)
    printed = capsys.readouterr().out
    assert "2 of 3 rows are no boards and are left out" in printed
    assert "1 of 1 held-out boards solved" in printed
    assert printed.count("=>") == 1


def test_no_board_at_all_is_said(capsys):
    printer = BoardPrinter()
    outputs, batch = batch_of(GRID)
    batch["target_ids"][:] = EOS
    printer.on_test_batch_end(trainer(), HARNESS, outputs, batch, 0)
    printer.on_test_end(trainer(), HARNESS)
    assert capsys.readouterr().out.strip() == "1 of 1 rows are no boards and are left out"


def test_validation_on_its_own_reads_the_prediction_loader_alone(capsys):
    printer = BoardPrinter(boards=1)
    printer.on_validation_start(trainer("validate"), HARNESS)
    printer.on_validation_batch_end(trainer("validate"), HARNESS, {"loss": 0.0}, {}, 0, 0)
    printer.on_validation_batch_end(trainer("validate"), HARNESS, *batch_of(GRID), 0, 1)
    printer.on_validation_end(trainer("validate"), HARNESS)
    assert "1 of 1 held-out boards" in capsys.readouterr().out


@pytest.mark.parametrize("state", [{"fn": "fit"}, {"fn": "validate", "rank": 1}])
def test_nothing_is_printed_during_training_or_by_other_processes(capsys, state):
    printer = BoardPrinter()
    printer.on_validation_start(trainer(**state), HARNESS)
    printer.on_validation_batch_end(trainer(**state), HARNESS, *batch_of(GRID), 0, 1)
    printer.on_validation_end(trainer(**state), HARNESS)
    assert capsys.readouterr().out == ""


def test_a_new_run_starts_from_nothing(capsys):
    printer = BoardPrinter(boards=0)
    for _ in range(2):
        printer.on_test_start(trainer(), HARNESS)
        printer.on_test_batch_end(trainer(), HARNESS, *batch_of(GRID), 0)
        printer.on_test_end(trainer(), HARNESS)
    assert capsys.readouterr().out.count("1 of 1 held-out boards") == 2


def test_number_of_boards_is_checked():
    with pytest.raises(ValueError, match="boards is -1"):
        BoardPrinter(boards=-1)
