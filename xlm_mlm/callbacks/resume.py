"""A callback with which a resumed run equals one that was never stopped."""

import functools
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.environments import SLURMEnvironment
from lightning.pytorch.utilities.seed import isolate_rng
from torch.utils.data import IterableDataset
from xlm.utils.ema import EMACallback

from xlm_mlm.callbacks.atomic import save_atomically
from xlm_mlm.callbacks.random_state import State, random_state, set_random_state
from xlm_mlm.callbacks.remembering import RememberingRows
from xlm_mlm.callbacks.signals import Signals, leave_signals_to_the_trainer
from xlm_mlm.checks import require_bool
from xlm_mlm.collation.randomness import source_of

KEY = "xlm_mlm_resume"


class ExactResume(Callback):
    """Checkpoints hold all that the rest of a run depends on: resuming repeats it bit for bit.

    The host's checkpoints lack the state of the random generators, of this process and of the
    loader's workers. What is saved here is always the end of the last optimizer step, whenever
    that happens: during the next step (an exception), between two batches whose gradients are
    summed, or during validation, which is given back the generators it drew from.

    Ctrl-C and SIGTERM end training after the step that is running, with a checkpoint if there is
    an `OnExceptionCheckpoint`, and with the exit code 130 or 143. On several processes neither is
    done: there the host's checkpoints and signals are as they are without this callback.

    It stands after callbacks that change weights at the end of a step, as the host's EMA does.

    Args:
        signals: whether to handle the two signals.

    Raises:
        ValueError: `signals` is no boolean.
    """

    def __init__(self, signals: bool = True) -> None:
        super().__init__()
        self._signals = Signals() if require_bool("signals", signals) else None
        self._loaded: Mapping[str, Any] | None = None
        # At the end of the last optimizer step: generators, and Lightning's counters and loader.
        self._step: dict[str, Any] | None = None
        self._after_batch: State | None = None
        self.stepping = False
        """Whether an optimizer step has begun and not ended: weights are of neither side then."""
        self._validating = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Prepare the loaders, which are made after this, and the writing of checkpoints."""
        if stage != "fit" or trainer.world_size > 1:
            return
        save_atomically(trainer)
        for split, managers in _managers(trainer).items():
            for manager in managers.values():
                _prepare(manager, split == "train")

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keep the random state for the start of training; warn if there is none."""
        if trainer.state.fn != "fit" or trainer.world_size > 1:
            return
        _check_workers(trainer, checkpoint)
        if KEY not in checkpoint:
            warnings.warn(
                "the checkpoint holds no random state (it was written without "
                "xlm_mlm.callbacks.resume.ExactResume): weights, optimizer and the order of the "
                "rows go on from it, but dropout and masks will differ from those of a run that "
                "was not stopped",
                stacklevel=2,
            )
            return
        self._loaded = {**checkpoint[KEY], "loop": checkpoint["loops"]["fit_loop"]}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the generators where they were, once the loader has been made."""
        if trainer.world_size > 1:
            return
        self.stepping = self._validating = False
        _write_the_same_last(trainer)
        if self._loaded is not None:
            self._step, self._loaded = dict(self._loaded), None
            self._set(self._step, trainer)
            self._after_batch = self._step["process"]
            _count_the_epoch_once(trainer)
            _skip_validation_without_drawing(trainer)
        else:
            self._take(trainer)
        if self._signals is not None and not _requeues(trainer):
            self._signals.listen()

    def on_train_batch_start(self, *args: Any) -> None:
        """Stop here if a signal came and an optimizer step is complete: it is logged by now."""
        if self._step is not None and self._after_batch is self._step["process"]:
            self._check_signals()

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        self.stepping = True

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        """Take the state, after the last batch of an optimizer step."""
        if self._step is None:
            return
        if self.stepping:
            self._take(trainer)
            self.stepping = False
        else:
            self._after_batch = random_state(_device(trainer))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._check_signals()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._validating = not trainer.sanity_checking
        self._check_signals()

    def on_validation_batch_start(self, *args: Any) -> None:
        self._check_signals()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give training back the numbers that validation drew."""
        self._validating = False
        if self._after_batch is not None and not trainer.sanity_checking:
            set_random_state(self._after_batch, _device(trainer))

    def on_exception(
        self, trainer: Any, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Take averaged weights out again, before anyone saves."""
        if not self._validating:
            return
        for callback in trainer.callbacks:
            if isinstance(callback, EMACallback) and callback.ema is not None:
                callback.ema.restore()

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the random state, and take counters and loader back to the same moment."""
        if self._step is None or trainer.state.fn != "fit":
            return
        # A callback that saves at the end of a step before it is this one's turn.
        state = self._now(trainer) if self.stepping else self._step
        checkpoint["loops"]["fit_loop"] = state["loop"]
        checkpoint[KEY] = {name: state[name] for name in ("process", "source")}

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._step = self._after_batch = None
        if self._signals is not None:
            self._signals.leave()

    def _take(self, trainer: Trainer) -> None:
        self._step = self._now(trainer)
        self._after_batch = self._step["process"]

    def _now(self, trainer: Trainer) -> dict[str, Any]:
        source = source_of(_train_collator(trainer))
        return {
            "process": random_state(_device(trainer)),
            "source": source.state_dict() if source else {},
            "loop": trainer.fit_loop.state_dict(),
        }

    def _set(self, state: Mapping[str, Any], trainer: Trainer) -> None:
        set_random_state(state["process"], _device(trainer))
        if source := source_of(_train_collator(trainer)):
            source.load_state_dict(state["source"])

    def _check_signals(self) -> None:
        if self._signals is not None and self._step is not None:
            self._signals.check()


def _device(trainer: Trainer) -> torch.device:
    return trainer.strategy.root_device


def _managers(trainer: Any) -> Mapping[str, Mapping[str, Any]]:
    """The host's dataset managers by split and name; none with a datamodule of another kind."""
    return getattr(trainer.datamodule, "dataset_managers", {})


def _train_collator(trainer: Trainer) -> Any:
    managers = _managers(trainer).get("train", {})
    return next((getattr(manager, "collator", None) for manager in managers.values()), None)


def _prepare(manager: Any, train: bool) -> None:
    """Let the loader of a manager save its workers' random state, and spare them signals."""
    rows = getattr(manager, "dataset", None)
    indexed = hasattr(rows, "__len__") and not isinstance(rows, IterableDataset | RememberingRows)
    if train and indexed:
        manager.dataset = RememberingRows(rows, manager.collator)
    options = getattr(manager, "dataloader_kwargs", None)
    if options and options.get("num_workers"):
        ours: Callable[[int], None] = leave_signals_to_the_trainer
        if given := options.get("worker_init_fn"):
            ours = functools.partial(_both, given)
        manager.dataloader_kwargs = {**options, "worker_init_fn": ours}


def _both(given: Callable[[int], None], worker_id: int) -> None:
    leave_signals_to_the_trainer(worker_id)
    given(worker_id)


def _check_workers(trainer: Trainer, checkpoint: Mapping[str, Any]) -> None:
    """Compare the loader's workers with those of the run that saved its place.

    Raises:
        ValueError: there are more or fewer; a place in the rows is that of each worker.
    """
    for state in checkpoint["loops"]["fit_loop"]["state_dict"].get("combined_loader", []):
        snapshot = state.get("_snapshot")
        saved = len(snapshot["_worker_snapshots"]) if snapshot is not None else 0
        for manager in _managers(trainer).get("train", {}).values():
            now = manager.dataloader_kwargs.get("num_workers", 0)
            if now != saved:
                raise ValueError(
                    f"the checkpoint was written with {saved} dataloader workers and this run has "
                    f"{now}; the place in the rows is kept by worker, so the number must be the "
                    f"same: set num_dataloader_workers={saved}"
                )


def _write_the_same_last(trainer: Any) -> None:
    """Resumed with other options, as how often to save, a callback that saves does not know its
    `last.ckpt` again, and writes `last-v1.ckpt` from then on, which the host never looks for."""
    for callback in trainer.checkpoint_callbacks:
        if not isinstance(callback, ModelCheckpoint) or not trainer.ckpt_path:
            continue
        last = Path(str(callback.dirpath), f"{callback.CHECKPOINT_NAME_LAST}.ckpt")
        here = Path(trainer.ckpt_path).resolve().parent == last.resolve().parent
        if here and callback.save_last and not callback.last_model_path and last.exists():
            callback.last_model_path = str(last)


def _count_the_epoch_once(trainer: Any) -> None:
    """Resumed after the last batch of an epoch, Lightning counts that epoch at once, for loaders
    that start anew; and again when a loader that kept its place turns out to be at the end."""
    loop = trainer.fit_loop
    batches = loop.epoch_loop
    ended = batches.restarted_on_train_batch_end and batches.batch_progress.is_last_batch
    if ended and loop.restarted_mid_epoch:
        for counts in (loop.epoch_progress.total, loop.epoch_progress.current):
            counts.processed -= 1
            counts.completed -= 1


def _skip_validation_without_drawing(trainer: Any) -> None:
    """Resumed after a step that validation follows, Lightning skips that validation, and for it
    starts the loaders, which draw seeds that the next batch would be drawn after."""
    loop = trainer.fit_loop.epoch_loop.val_loop
    skip = loop.increment_progress_to_evaluation_end

    def without_drawing() -> None:
        with isolate_rng():
            skip()

    loop.increment_progress_to_evaluation_end = without_drawing


def _requeues(trainer: Any) -> bool:
    """Whether the cluster handles SIGTERM its own way, and puts the job in the queue again."""
    environment = trainer._accelerator_connector.cluster_environment
    return isinstance(environment, SLURMEnvironment) and environment.auto_requeue
