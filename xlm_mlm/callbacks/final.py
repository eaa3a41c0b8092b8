"""A checkpoint callback that keeps the end of a run."""

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from xlm.utils.checkpoint_with_thinning import ThinningCheckpoint


class FinalThinningCheckpoint(ThinningCheckpoint):
    """The host's `ThinningCheckpoint`, which also saves after the last step.

    On its own that one saves every so many steps: a run of any other length loses its tail, and a
    short one leaves nothing to evaluate. The options are those of the host's class.
    """

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Save when due, and after the step at which `max_steps` ends training."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        ends = 0 <= trainer.max_steps <= trainer.global_step
        # Skipped as well: a step that is saved already, and sanity checks.
        if not ends or self._should_skip_saving_checkpoint(trainer):
            return
        candidates = self._monitor_candidates(trainer)
        self._save_topk_checkpoint(trainer, candidates)
        self._save_last_checkpoint(trainer, candidates)
