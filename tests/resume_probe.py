"""A callback for runs of `xlm`: it writes down every loss, and kills or interrupts its process."""

import os
import signal
from pathlib import Path

from lightning.pytorch import Callback


class Probe(Callback):
    """Losses go to a file, a line a batch; at a step, in its midst, the process gets a signal.

    Args:
        file: lines of step and loss are added to it.
        at: of which batch, counted from 0 over all epochs, or None.
        number: of the signal.
    """

    def __init__(self, file, at=None, number=signal.SIGKILL):
        self.file, self.at, self.number = Path(file), at, number

    def on_before_backward(self, trainer, pl_module, loss):
        if trainer.fit_loop.total_batch_idx == self.at:
            os.kill(os.getpid(), self.number)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        with self.file.open("a") as file:
            print(trainer.global_step, outputs["loss"].item().hex(), file=file)
