"""Training runs of some steps in this process, as the host makes them: its loader and sampler."""

import os
import signal
from dataclasses import dataclass, field
from types import SimpleNamespace

import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torchdata.stateful_dataloader import StatefulDataLoader
from torchdata.stateful_dataloader.sampler import RandomSampler
from xlm.datamodule import SimpleSpaceTokenizer
from xlm.utils.checkpoint_with_thinning import ThinningCheckpoint
from xlm.utils.ema import EMACallback

from xlm_mlm.callbacks.on_exception import StepOnExceptionCheckpoint
from xlm_mlm.callbacks.resume import ExactResume
from xlm_mlm.collation.single import DefaultMLMCollator

BATCHES = 5  # an epoch: 9 rows, 2 a batch, the last one alone
ROWS = [{"input_ids": [7 + (row + place) % 20 for place in range(6)]} for row in range(9)]


class Data(LightningDataModule):
    """The managers that the callback looks for, with loaders as the host makes them."""

    def __init__(self, workers=0, generator=None):
        super().__init__()
        tokenizer = SimpleSpaceTokenizer.for_numbers(20)
        self.dataset_managers = {
            split: {
                "lm": SimpleNamespace(dataset=ROWS, collator=collator, dataloader_kwargs=options)
            }
            for split, collator, options in (
                (
                    "train",
                    DefaultMLMCollator(tokenizer, 8, None, generator=generator),
                    {"batch_size": 2, "num_workers": workers},
                ),
                ("val", DefaultMLMCollator(tokenizer, 8, None), {"batch_size": 5}),
            )
        }

    def train_dataloader(self):
        lm = self.dataset_managers["train"]["lm"]
        sampler = RandomSampler(lm.dataset)
        return StatefulDataLoader(
            lm.dataset, sampler=sampler, collate_fn=lm.collator, **lm.dataloader_kwargs
        )

    def val_dataloader(self):
        lm = self.dataset_managers["val"]["lm"]
        return torch.utils.data.DataLoader(
            lm.dataset, collate_fn=lm.collator, **lm.dataloader_kwargs
        )


class Small(LightningModule):
    """Dropout between two layers; what it sees and what it returns is written down."""

    def __init__(self, at=()):
        super().__init__()
        self.network = torch.nn.Sequential(
            torch.nn.Embedding(40, 8), torch.nn.Dropout(0.3), torch.nn.Linear(8, 40)
        )
        self.at = dict(at)
        self.losses = []

    def loss(self, batch):
        logits = self.network(batch["input_ids"]).flatten(0, 1)
        return torch.nn.functional.cross_entropy(logits, batch["target_ids"].flatten())

    def training_step(self, batch, batch_idx):
        self.happen("train", self.trainer.fit_loop.total_batch_idx)
        loss = self.loss(batch)
        self.losses.append((self.trainer.current_epoch, batch_idx, loss.item().hex()))
        return loss

    def validation_step(self, batch, batch_idx):
        self.happen("val", self.global_step)
        torch.rand(3)  # as a predictor draws
        self.loss(batch)

    def on_before_optimizer_step(self, optimizer):
        self.happen("update", self.trainer.fit_loop.total_batch_idx)

    def happen(self, place, number):
        if (what := self.at.get((place, number))) is None:
            return
        if isinstance(what, signal.Signals):
            os.kill(os.getpid(), what)
        else:
            raise what

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.05)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }


@dataclass
class Result:
    """What a run did.

    Attributes:
        losses: epoch, place in it, and the loss, of each batch.
        weights: at the end, of the model and averaged.
        exception: what ended it, if something did.
    """

    losses: list = field(default_factory=list)
    weights: list = field(default_factory=list)
    exception: BaseException | None = None


def train(
    folder,
    steps,
    *,
    resume=None,
    at=(),
    workers=0,
    generator=None,
    accumulate=1,
    validate_every=3,
    every=1,
    exact=True,
    more: tuple[Callback, ...] = (),
):
    """Train to `steps` optimizer steps; with `at`, something happens at a batch."""
    torch.manual_seed(0)
    module = Small(at)
    ema = EMACallback(decay=0.5, apply_ema_at_train_end=False)
    saving = ThinningCheckpoint(
        dirpath=str(folder), save_top_k=-1, save_last=True, every_n_train_steps=every
    )
    callbacks = [ema, saving, StepOnExceptionCheckpoint(str(folder)), *more]
    trainer = Trainer(
        accelerator="cpu",
        max_steps=steps,
        accumulate_grad_batches=accumulate,
        val_check_interval=validate_every,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        callbacks=[*callbacks, ExactResume()] if exact else callbacks,
    )
    own = None if generator is None else torch.Generator().manual_seed(generator)
    result = Result(module.losses)
    try:
        trainer.fit(module, Data(workers, own), ckpt_path=resume and str(resume))
    except BaseException as exception:  # a SystemExit or an interrupt among them
        result.exception = exception
    averages = [] if ema.ema is None else ema.ema.shadow_params
    result.weights = [p.detach().clone() for p in [*module.parameters(), *averages]]
    return result


def goes_on_as(result, whole):
    """Whether a resumed run's losses are the last ones of the whole run, and its weights equal."""
    same = all(torch.equal(a, b) for a, b in zip(result.weights, whole.weights, strict=True))
    return bool(result.losses) and result.losses == whole.losses[-len(result.losses) :] and same


class Watching(Callback):
    """Notes after which steps a file is there."""

    def __init__(self, path, seen):
        self.path, self.seen = path, seen

    def on_train_batch_start(self, trainer, *args):
        self.look(trainer)

    def on_train_end(self, trainer, *args):
        self.look(trainer)

    def look(self, trainer):
        self.seen.append((trainer.global_step, self.path.exists()))
