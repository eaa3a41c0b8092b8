"""Random numbers of its own for each of several processes."""

import random

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer


class OwnStreams(Callback):
    """On several processes, each draws masks and dropout from a random stream of its own.

    The host seeds all processes alike, so that they start from the same weights. Were they to go
    on from there, they would draw the same mask rates and dropout, each for its own rows, and so
    would their dataloaders' workers. Streams follow from the seed, the step and the process: they
    are the same when a run is repeated, and new ones when it is resumed.

    With one process nothing is done. A generator that was passed to a collator is left as it is.
    """

    def __init__(self) -> None:
        super().__init__()
        self._seed = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Note the seed that all processes have."""
        self._seed = torch.initial_seed()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._part(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn != "fit":
            self._part(trainer)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._part(trainer)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._part(trainer)

    def _part(self, trainer: Trainer) -> None:
        if trainer.world_size == 1:
            return
        mixed = np.random.SeedSequence([self._seed, trainer.global_step, trainer.global_rank])
        for_torch, for_numpy, for_python = mixed.generate_state(3).tolist()
        torch.manual_seed(for_torch)
        np.random.seed(for_numpy)
        random.seed(for_python)
