"""The tasks: a trained model, the batches it is asked about, and how its answers are judged."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
import torch
import xlm.commands.lightning_main  # registers the host's resolvers and search path
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from xlm_mlm.checkpoints import read_checkpoint
from xlm_mlm.generation.job import prediction_loaders
from xlm_mlm.metrics_mlm import exact_match_update_fn, seq2seq_exact_match_update_fn
from xlm_mlm.rebuild import rebuild

HOST = Path(xlm.__file__).parent / "configs" / "lightning_train"


@dataclass
class Task:
    """What a sampler is tried on.

    Attributes:
        title: for the plot.
        unit: what the quality is the share of.
        model: the network.
        tokenizer: its tokenizer.
        batches: as the collators made them.
        masks: the most masks of a row.
        options: of the predictor, for every sampler.
        right: how many answers of a batch are right, and of how many.
        guided: whether a given prompt can be left out to guide.
    """

    title: str
    unit: str
    model: Any
    tokenizer: Any
    batches: list[dict[str, Any]]
    masks: int
    options: dict[str, Any]
    right: Callable[[dict[str, Any], dict[str, Any], Any], tuple[int, int]]
    guided: bool = False


def composed(data: Path, *overrides: str) -> Any:
    """An experiment's config and the datamodule that it describes, with its data made."""
    fixed = [
        *("job_type=name", "job_name=samplers", f"paths.data_dir={data}"),
        *(f"paths.{name}={data}" for name in ("log_dir", "run_dir", "work_dir")),
    ]
    with initialize_config_dir(str(HOST), version_base="1.3"):
        cfg = compose("config", [*fixed, *overrides])
    made = hydra.utils.instantiate(cfg.global_components)
    _resolver("global_components", lambda name: made[name])
    datamodule = hydra.utils.instantiate(cfg.datamodule)
    _resolver("tokenizer", lambda name: getattr(datamodule.tokenizer, name))
    _resolver("datamodule", lambda name: getattr(datamodule, name))
    datamodule.no_trainer_mode = True
    datamodule.prepare_data()
    return cfg, datamodule


def _resolver(name: str, resolve: Any) -> None:
    OmegaConf.clear_resolver(name)
    OmegaConf.register_new_resolver(name, resolve)


def _loaded(path: Path) -> tuple[Any, Any]:
    checkpoint = read_checkpoint(path)
    saved = rebuild(checkpoint.config, False, path, checkpoint.tensors)
    checkpoint.apply(saved.model, "auto")
    return saved.model.eval(), saved.tokenizer


def _whole_rows(update: Callable[..., dict[str, Any]]) -> Any:
    def right(batch: dict[str, Any], preds: dict[str, Any], tokenizer: Any) -> tuple[int, int]:
        both = update(batch, preds, tokenizer)
        equal = (both["pred"] == both["target"]).all(dim=1)
        return int(equal.sum()), len(equal)

    return right


def sudoku(checkpoint: Path, data: Path, rows: int) -> Task:
    """The held-out 4x4 boards of the quickstart."""
    model, tokenizer = _loaded(checkpoint)
    _, datamodule = composed(data, "experiment=quickstart_mlm")
    datamodule.setup("predict")
    (loader,) = prediction_loaders(datamodule).values()
    batches = first_rows(loader, rows)
    masks = max(int((b["input_ids"] == tokenizer.mask_token_id).sum(1).max()) for b in batches)
    return Task(
        "sudoku (quickstart)",
        "boards",
        model,
        tokenizer,
        batches,
        masks,
        {},
        _whole_rows(exact_match_update_fn),
        True,
    )


def star(checkpoint: Path, data: Path, rows: int) -> Task:
    """Paths through star graphs of three arms."""
    model, tokenizer = _loaded(checkpoint)
    cfg, datamodule = composed(
        data, "experiment=star_easy_offline_mlm", f"star_graphs.counts.test={rows}"
    )
    datamodule.setup("predict")
    (loader,) = prediction_loaders(datamodule).values()
    return Task(
        "star graphs (star_easy)",
        "paths",
        model,
        tokenizer,
        first_rows(loader, rows),
        cfg.block_size,
        {"max_new_tokens": cfg.block_size},
        _whole_rows(seq2seq_exact_match_update_fn),
        True,
    )


def text(checkpoint: Path, data: Path, files: str, rows: int) -> Task:
    """Half of the bytes of held-out text, each byte hidden or not by the toss of a coin."""
    model, tokenizer = _loaded(checkpoint)
    _, datamodule = composed(
        data,
        "experiment=local_text_mlm",
        f"data_files={files}",
        "validation_fraction=0.1",
        "packed=false",
    )
    datamodule.setup("validate")
    loaders = datamodule.val_dataloader()
    loader = loaders[0] if isinstance(loaders, list) else loaders
    generator = torch.Generator().manual_seed(0)
    batches = []
    for batch in first_rows(loader, rows):
        target, valid = batch["target_ids"], batch["attention_mask"]
        known = valid & (target >= 0)
        hidden = known & (torch.rand(target.shape, generator=generator) < 0.5)
        x = torch.where(known, target, batch["input_ids"]).masked_fill(
            hidden, tokenizer.mask_token_id
        )
        batches.append({"input_ids": x, "attention_mask": valid, "target_ids": target})
    masks = max(int((b["input_ids"] == tokenizer.mask_token_id).sum(1).max()) for b in batches)

    def right(batch: dict[str, Any], preds: dict[str, Any], tokenizer: Any) -> tuple[int, int]:
        asked = batch["input_ids"] == tokenizer.mask_token_id
        return int((preds["ids"] == batch["target_ids"])[asked].sum()), int(asked.sum())

    return Task("text (local_text)", "bytes", model, tokenizer, batches, masks, {}, right)


def first_rows(loader: Any, rows: int) -> list[dict[str, Any]]:
    """The first rows of a loader, in batches."""
    found: list[dict[str, Any]] = []
    left = rows
    for batch in loader:
        found.append({k: v[:left] for k, v in batch.items() if isinstance(v, torch.Tensor)})
        left -= len(found[-1]["input_ids"])
        if left <= 0:
            break
    return found
