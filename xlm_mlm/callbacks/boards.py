"""A callback that shows sudoku boards as they were solved, and how many were."""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from xlm_mlm.boards import Board, draw, is_board
from xlm_mlm.checks import require_int


def side_by_side(puzzle: Board, answer: Board, solved: bool) -> str:
    """A puzzle beside the answer that was given, and whether it is right."""
    left, right = draw(puzzle), draw(answer)
    width = max(map(len, left))
    lines = [f"{a:<{width}}    {b}" for a, b in zip(left, right, strict=True)]
    lines[len(lines) // 2] = lines[len(lines) // 2].replace("    ", " => ", 1)
    return "\n".join(lines) + ("   solved" if solved else "   wrong")


class BoardPrinter(Callback):
    """After testing, or validating on its own, print some boards and the share of those solved.

    Reads the batches of dataloaders whose name holds "prediction". On several processes each
    sees its own rows; the first one prints.

    A board is the digits of a row, 4x4 or 9x9; rows that are no boards are counted and left out.

    Args:
        boards: how many to print, spread evenly over all of them.

    Raises:
        ValueError: `boards` is no integer of at least 0.
    """

    def __init__(self, boards: int = 4):
        super().__init__()
        self.boards = require_int("boards", boards, 0)
        self._seen: list[tuple[Board, Board, bool]] = []

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._seen = []

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._seen = []

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._collect(pl_module, outputs, batch, "test", dataloader_idx)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if trainer.state.fn != "fit":
            self._collect(pl_module, outputs, batch, "val", dataloader_idx)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._print(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn != "fit":
            self._print(trainer)

    def _collect(self, pl_module: Any, outputs: Any, batch: Any, split: str, loader: int) -> None:
        if "prediction" not in pl_module.dataloader_names[split][loader]:
            return
        tokenizer = pl_module.tokenizer
        rows = (batch["input_ids"], outputs["ids"], batch["target_ids"])
        for given, filled, target in zip(*(ids.tolist() for ids in rows), strict=True):
            truth = tokenizer.convert_ids_to_tokens(target)
            cells = [place for place, token in enumerate(truth) if token.isdigit()]
            answer = tokenizer.convert_ids_to_tokens([filled[place] for place in cells])
            puzzle = [
                "." if given[place] == tokenizer.mask_token_id else truth[place] for place in cells
            ]
            solved = all(filled[place] == target[place] for place in cells)
            self._seen.append(
                (puzzle, [token if token.isdigit() else "?" for token in answer], solved)
            )

    def _print(self, trainer: Trainer) -> None:
        if not (self._seen and trainer.is_global_zero):
            return
        boards = [seen for seen in self._seen if is_board(seen[0])]
        if left_out := len(self._seen) - len(boards):
            print(f"\n{left_out} of {len(self._seen)} rows are no boards and are left out")
        if not boards:
            return
        total = len(boards)
        places = torch.linspace(0, total - 1, min(self.boards, total)).round().int().tolist()
        shown = [side_by_side(*boards[place]) for place in places]
        solved = sum(solved for _, _, solved in boards)
        print("\n\n".join(["", *shown]))
        print(
            f"\n{solved} of {total} held-out boards solved, every cell right: {solved / total:.4f}"
        )
