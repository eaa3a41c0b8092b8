"""Checkpoints that are complete or not there, wherever they lie."""

import os
from pathlib import Path
from typing import Any

from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import Trainer


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the checkpoint, and renames.

    Lightning writes to the folder for temporary files first and moves from there: onto another
    file system that is a copy, and a process killed during it leaves half a `last.ckpt` where a
    whole one was.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        """Save it; an address on another system is left to Lightning."""
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        part = Path(f"{path}.part")
        try:
            super().save_checkpoint(checkpoint, part, storage_options)
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)


def save_atomically(trainer: Trainer) -> None:
    """Let a trainer write so, if it writes with Lightning's default."""
    if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
        trainer.strategy.checkpoint_io = AtomicCheckpointIO()
