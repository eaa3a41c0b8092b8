"""The checkpoint of a run that stopped early: of a whole step, and no older than `last.ckpt`."""

import logging
import os
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from xlm.utils.on_exception_checkpoint import OnExceptionCheckpoint

from xlm_mlm.callbacks.resume import ExactResume
from xlm_mlm.callbacks.signals import Stopped

_log = logging.getLogger(__name__)


class StepOnExceptionCheckpoint(OnExceptionCheckpoint):
    """The host's `OnExceptionCheckpoint`, which is no trap for the next resume.

    The host resumes from `on_exception.ckpt` before `last.ckpt`, whichever is newer. So it goes as
    soon as this run has written a newer `last.ckpt`: it is deleted if the run was resumed from it,
    else it is renamed, to `superseded.ckpt`. Nothing is saved while the optimizer changes the
    weights, which are then of no step. And evaluating, which has the same callbacks, leaves it
    there; Lightning's own deletes it after anything that ends well.

    Args:
        dirpath: where checkpoints are.
        filename: without its suffix; the host finds `on_exception` alone.
    """

    def __init__(self, dirpath: str | Path, filename: str = "on_exception") -> None:
        super().__init__(dirpath=dirpath, filename=filename)
        self._start = 0

    def on_train_start(self, trainer: Trainer, *_: Any) -> None:
        self._start = trainer.global_step

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Put an older one away once there is a newer `last.ckpt`."""
        if not trainer.is_global_zero or not os.path.exists(self.ckpt_path):
            return
        if any(self._is_newer(callback) for callback in trainer.checkpoint_callbacks):
            self._put_away(trainer)

    def on_exception(self, trainer: Any, *args: Any, **options: Any) -> None:
        """Save the last step that was completed, and say how to go on."""
        exception = next((arg for arg in args if isinstance(arg, BaseException)), None)
        before = _modified(self.ckpt_path)
        torn = any(c.stepping for c in trainer.callbacks if isinstance(c, ExactResume))
        if not torn:
            super().on_exception(trainer, *args, **options)
        if isinstance(exception, Stopped):
            saved = _modified(self.ckpt_path) != before
            _tell(exception, trainer.global_step, self.ckpt_path if saved else None)
        elif torn:
            _log.warning(
                "an exception within an optimizer step: nothing is saved, since the weights are of "
                "no step; the last checkpoint before it is the one to resume from"
            )

    def teardown(self, trainer: Trainer, *args: Any, **options: Any) -> None:
        """Delete it when training has ended well, for there is nothing to resume."""
        if trainer.state.fn == "fit":
            super().teardown(trainer, *args, **options)

    def _is_newer(self, callback: Any) -> bool:
        if not isinstance(callback, ModelCheckpoint):
            return False
        last = Path(self.dirpath, "last.ckpt")
        return (
            callback._last_global_step_saved > self._start
            and bool(callback.last_model_path)
            and Path(callback.last_model_path).resolve() == last.resolve()
            and last.exists()
        )

    def _put_away(self, trainer: Trainer) -> None:
        resumed = trainer.ckpt_path
        if resumed and Path(resumed).resolve() == Path(self.ckpt_path).resolve():
            trainer.strategy.remove_checkpoint(self.ckpt_path)
            return
        aside = Path(self.dirpath, "superseded.ckpt")
        os.replace(self.ckpt_path, aside)
        _log.warning(
            f"{self.ckpt_path} is older than last.ckpt, but would be resumed from: it is now "
            f"{aside.name}"
        )


@rank_zero_only
def _tell(stopped: Stopped, step: int, path: str | None) -> None:
    if path is None:
        text = f"{stopped.name}: stopped after step {step}, before there was anything to save"
    else:
        text = (
            f"{stopped.name}: stopped after step {step}, saved in {path}; the same command goes "
            "on from there"
        )
    print(text, flush=True)


def _modified(path: str) -> int | None:
    return os.stat(path).st_mtime_ns if os.path.exists(path) else None
