"""`job_type=mlm_generate`: predict the rows of an experiment's prediction dataloaders."""

import logging
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import hydra
import torch
from lightning.fabric.utilities.apply_func import move_data_to_device
from omegaconf import DictConfig, OmegaConf, open_dict
from torch.utils.data import DataLoader
from tqdm import tqdm
from xlm.utils.model_loading import load_model_for_inference

from xlm_mlm.checkpoints import Checkpoint, read_checkpoint
from xlm_mlm.checks import require_int
from xlm_mlm.generation.files import (
    HISTORY,
    META,
    PREDICTIONS,
    PartialFile,
    collect,
    discard_parts,
    locked,
    prepare,
    publish,
    read_meta,
    records_in,
)
from xlm_mlm.generation.lines import read_rows
from xlm_mlm.generation.options import GenerationOptions, choose_device, read_options
from xlm_mlm.generation.processes import Processes, joined
from xlm_mlm.generation.provenance import identity, resolved, versions, write_meta
from xlm_mlm.generation.rows import count_rows, rows_of_rank, seed_batch
from xlm_mlm.history.files import on_full_disk
from xlm_mlm.history_mlm import HistoryTopKPlugin

logger = logging.getLogger(__name__)

HISTORY_K = 5
_KEPT = "whole batches that were predicted are kept: make room, and the same command goes on"


def run(cfg: DictConfig) -> Path:
    """Predict every row, and write the predictions and what made them.

    Returns:
        The predictions' file.

    Raises:
        ValueError: an option, the checkpoint, or the experiment does not fit.
        FileNotFoundError: there is no such checkpoint.
        RuntimeError: another process ended early.
        OSError: a file can't be written.
    """
    # First of all, so that an error of one is noticed by the others.
    with joined() as processes:
        options = read_options(cfg)
        device = choose_device(options.device, processes.local_rank)
        source = options.ckpt_path or options.model_only_checkpoint_path
        checkpoint = read_checkpoint(source) if source else None
        return _Run(cfg, options, processes, device, checkpoint).run()


class _Run:
    def __init__(
        self,
        cfg: DictConfig,
        options: GenerationOptions,
        processes: Processes,
        device: torch.device,
        checkpoint: Checkpoint | None,
    ) -> None:
        self.cfg, self.options, self.processes, self.device = cfg, options, processes, device
        self.checkpoint = checkpoint
        seed = cfg.get("seed")
        self.seed = 0 if seed is None else require_int("seed", seed, 0)
        self.folder = options.output_dir
        self.started = time.time()
        self.run_id = identity(
            cfg,
            checkpoint=checkpoint.sha256 if checkpoint else None,
            weights=options.weights,
            limit=options.limit,
            fields=options.fields,
            history=options.history,
            if_exists=options.if_exists,
            world=processes.world,
            data=OmegaConf.select(cfg, "paths.data_dir", default=None),
        )

    def run(self) -> Path:
        with locked(self.folder) if self.processes.rank == 0 else nullcontext():
            return self._run()

    def _run(self) -> Path:
        first, start = self.processes.rank == 0, 0
        if first:
            start = prepare(
                self.folder,
                self.processes.world,
                self.run_id,
                self.options.if_exists,
                self.options.history,
            )
        start = self.processes.of_first(start)
        datamodule = self._datamodule()
        loaders = prediction_loaders(datamodule)
        harness, weights = self._harness(datamodule)
        self._keep_history(harness.predictor)
        with on_full_disk(_KEPT):
            self._predict(harness, loaders, start)
        self.processes.wait()
        if first:
            with on_full_disk(_KEPT):
                self._finish(loaders, start, weights)
        self.processes.wait()
        return self.folder / PREDICTIONS

    def _datamodule(self) -> Any:
        """Make what the host's generating job makes, in its order."""
        seed_batch(self.seed, 0, 0)
        components = hydra.utils.instantiate(self.cfg.global_components)
        _set_resolver("global_components", lambda name: components[name])
        datamodule = hydra.utils.instantiate(self.cfg.datamodule)
        _set_resolver("tokenizer", lambda name: getattr(datamodule.tokenizer, name))
        _set_resolver("datamodule", lambda name: getattr(datamodule, name))
        datamodule.no_trainer_mode = True
        # The first process makes the data, and the others find it made.
        if self.processes.rank == 0:
            datamodule.prepare_data()
        self.processes.wait()
        if self.processes.rank != 0:
            datamodule.prepare_data()
        with _quiet("xlm.datamodule"):
            datamodule.setup("predict")
        return datamodule

    def _harness(self, datamodule: Any) -> tuple[Any, str]:
        cfg = self.cfg.copy()
        if self.checkpoint is not None:
            # Read by us: the host would unpickle it, and restores no EMA weights.
            with open_dict(cfg):
                cfg.generation.ckpt_path = cfg.generation.checkpoint_path = None
                cfg.generation.model_only_checkpoint_path = None
        precision = torch.get_float32_matmul_precision()
        with _quiet(*(["xlm.utils.model_loading"] if self.checkpoint is not None else [])):
            harness, _ = load_model_for_inference(
                cfg,
                datamodule,
                datamodule.tokenizer,
                config_prefix="generation",
                set_eval_mode=True,
                allow_random_init=self.checkpoint is not None,
            )
        if self.device.type == "cpu":
            # The host asks for `medium`. A CPU that has bfloat16 then makes and keeps a program for
            # every number of tokens that a pass looks at: hundreds of MiB, and no faster.
            torch.set_float32_matmul_precision(precision)
        weights = "as saved"
        if self.checkpoint is not None:
            weights = self.checkpoint.apply(harness.model, self.options.weights)  # type: ignore[arg-type]
        harness.to(self.device)
        return harness, weights

    def _keep_history(self, predictor: Any) -> None:
        if not self.options.history:
            return
        if not hasattr(predictor, "history"):
            raise ValueError(
                f"generation.history is true, and {type(predictor).__name__} keeps no history; "
                "it must have an attribute `history`, as MLMPredictor has"
            )
        if isinstance(predictor.history, HistoryTopKPlugin):
            predictor.history.output_dir = self.folder / HISTORY
        else:
            window = getattr(predictor, "max_new_tokens", None) or None
            predictor.history = HistoryTopKPlugin(self.folder / HISTORY, HISTORY_K, window)

    def _predict(self, harness: Any, loaders: dict[str, DataLoader], start: int) -> None:
        rank, world, limit = self.processes.rank, self.processes.world, self.options.limit
        sizes = {name: loader.batch_size or 1 for name, loader in loaders.items()}
        part = PartialFile(self.folder, rank, world, self.run_id, start, sizes)
        try:
            for number, (name, loader) in enumerate(loaders.items()):
                done = part.done.get(name, 0)
                total = count_rows(loader.dataset, limit)
                share = None if total is None else len(range(rank, total, world))
                batches = iter(rows_of_rank(loader, rank, world, done, limit))
                with _bar(name, share, done, rank) as bar:
                    while True:
                        first = start + rank + world * done
                        seed_batch(self.seed, number, first)
                        batch = next(batches, None)
                        if batch is None:
                            break
                        rows = self._rows(harness, batch, first, number, name)
                        part.write(rows)
                        done += len(rows)
                        bar.update(len(rows))
        finally:
            part.close()

    def _rows(
        self, harness: Any, batch: dict[str, Any], first: int, number: int, name: str
    ) -> list[dict[str, Any]]:
        count = len(batch["input_ids"])
        samples = first + self.processes.world * torch.arange(count)
        with torch.inference_mode():
            moved = move_data_to_device({**batch, "sample_ids": samples}, self.device)
            preds = harness.predictor.predict(moved, 0, number, name)
            rows = harness.predictor.to_dict(moved, preds)
        for field, values in _of_batch(harness, batch).items():
            for row, value in zip(rows, values, strict=True):
                row[field] = value
        wanted = self.options.fields
        # Without its name a record of the history could not be told from one that was lost.
        named = ("fid",) if self.options.history else ()
        if wanted is not None and (unknown := [f for f in wanted if rows and f not in rows[0]]):
            raise ValueError(
                f"generation.fields names {unknown[0]!r}; a row has {', '.join(rows[0])}"
            )
        return [
            {"sample": sample, "dataloader": name}
            | {k: v for k, v in row.items() if wanted is None or k in wanted or k in named}
            for sample, row in zip(samples.tolist(), rows, strict=True)
        ]

    def _finish(self, loaders: dict[str, DataLoader], start: int, weights: str) -> None:
        """Put all in place, in an order in which any part can be done again."""
        limit, world = self.options.limit, self.processes.world
        expected = {name: count_rows(each.dataset, limit) for name, each in loaders.items()}
        made = self._provenance(weights)
        made["rows"] = collect(self.folder, world, expected, start)
        made["first_sample"] = start
        before = read_meta(self.folder) if self.options.if_exists == "append" else {}
        write_meta(self.folder / META, made, before)
        publish(self.folder)
        if self.options.history:
            _prune(self.folder)
        discard_parts(self.folder, world)
        logger.info("wrote %d rows to %s", made["rows"], self.folder / PREDICTIONS)

    def _provenance(self, weights: str) -> dict[str, Any]:
        checkpoint = self.checkpoint
        source: dict[str, Any] = {"repo_id": OmegaConf.select(self.cfg, "hub.repo_id")}
        if checkpoint is not None:
            source = {
                "path": str(checkpoint.path.absolute()),
                "sha256": checkpoint.sha256,
                "step": checkpoint.step,
            }
        return {
            "run": self.run_id,
            "versions": versions(),
            "checkpoint": {**source, "weights": weights},
            "seed": self.seed,
            "device": str(self.device),
            "processes": self.processes.world,
            "started": datetime.fromtimestamp(self.started, UTC).isoformat(timespec="seconds"),
            "seconds": round(time.time() - self.started, 3),
            "config": resolved(self.cfg),
        }


def prediction_loaders(datamodule: Any) -> dict[str, DataLoader]:
    """The dataloaders of the predict split that are to be predicted, by name.

    Raises:
        ValueError: there is none.
    """
    names = datamodule.dataloader_names.get("predict", {})
    with _quiet("xlm.datamodule"):
        made = datamodule.predict_dataloader()
    made = made if isinstance(made, list) else [made]
    found = {names[i]: each for i, each in enumerate(made) if "prediction" in names[i]}
    if not found:
        has = f"has {', '.join(names.values())}" if names else "is empty"
        raise ValueError(
            f"the predict split of this experiment {has}; rows are predicted of dataloaders whose "
            "name holds 'prediction', under datamodule.dataset_managers.predict"
        )
    return found


def _of_batch(harness: Any, batch: dict[str, Any]) -> dict[str, list[Any]]:
    """What the experiment's `log_predictions` takes from a batch: the truth, and further fields."""
    loggers = harness.log_predictions
    loggers = loggers if isinstance(loggers, list) else [loggers] if loggers is not None else []
    found: dict[str, list[Any]] = {}
    for each in loggers:
        target = batch.get(getattr(each, "inject_target", None) or "")
        if target is not None:
            tokenizer = harness.tokenizer
            # Positions without a target are no tokens.
            ids = torch.where(target < 0, tokenizer.pad_token_id, target)
            found["truth"] = tokenizer.batch_decode(ids, skip_special_tokens=True)
        for field in getattr(each, "additional_fields_from_batch", None) or ():
            if field in batch:
                found[field] = list(batch[field])
    return found


def _prune(folder: Path) -> None:
    """Remove the records of rows that were begun, and predicted again after an interruption."""
    kept = {row.get("fid") for row in read_rows(folder / PREDICTIONS)}
    for record in records_in(folder):
        if record.name not in kept:
            shutil.rmtree(record)


def _bar(name: str, total: int | None, done: int, rank: int) -> Any:
    return tqdm(
        desc=name, total=total, initial=done, unit="row", file=sys.stderr, disable=rank != 0
    )


def _set_resolver(name: str, resolve: Any) -> None:
    OmegaConf.clear_resolver(name)
    OmegaConf.register_new_resolver(name, resolve)


@contextmanager
def _quiet(*names: str) -> Iterator[None]:
    """Hold back the host's warnings about what is done on purpose here.

    The datamodule is not told of other processes, since rows are shared out here; the loader is
    given no checkpoint, since its weights are replaced at once.
    """
    hosts = [logging.getLogger(name) for name in names]
    levels = [host.level for host in hosts]
    for host in hosts:
        host.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for host, level in zip(hosts, levels, strict=True):
            host.setLevel(level)
