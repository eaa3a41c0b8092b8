"""A callback that keeps the end of a run."""

import os
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


class FinalCheckpoint(Callback):
    """Save `last.ckpt` after the last step.

    The host's callbacks save every so many steps, so that a run of any other length loses its
    tail, and a short one leaves nothing. The weights are the trained ones: an EMA replaces them
    only later, when training ends, and is in the checkpoint beside them.

    Args:
        dirpath: the folder of the run's checkpoints.
    """

    def __init__(self, dirpath: str | Path) -> None:
        super().__init__()
        self.path = Path(dirpath) / "last.ckpt"

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        if trainer.max_steps < 0 or trainer.global_step < trainer.max_steps:
            return
        # Under another name first: a run that is killed here must keep the checkpoint it had.
        partial = self.path.with_name("last.ckpt.partial")
        trainer.save_checkpoint(partial)
        if trainer.is_global_zero:
            os.replace(partial, self.path)
