"""The options of `job_type=mlm_generate`, all under `generation`."""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, ListConfig, OmegaConf

from xlm_mlm.checks import require_bool, require_choice, require_int, require_path

IF_EXISTS = ("error", "append", "replace")
WEIGHTS = ("auto", "raw", "ema")


@dataclass
class GenerationOptions:
    """What the user asked for.

    Attributes:
        ckpt_path: a training checkpoint.
        model_only_checkpoint_path: weights alone, instead of `ckpt_path`.
        weights: of the checkpoint: `raw`, `ema`, or `auto`: EMA weights if it has them.
        device: `cpu`, `cuda`, `cuda:1`, `mps`, or `auto`: CUDA if there is one, else MPS, else the
            CPU.
        limit: rows of each dataloader; all if None.
        output_dir: where the files go.
        if_exists: what to do with predictions that are there: `error`, `append` or `replace`.
        fields: of a row, to be written; all if None.
        history: keep a record of every pass, in `output_dir/history`.
        debug: show the traceback of an error.

    Raises:
        ValueError: an option is unknown or out of range.
    """

    output_dir: Path
    ckpt_path: str | None = None
    model_only_checkpoint_path: str | None = None
    weights: str = "auto"
    device: str = "auto"
    limit: int | None = None
    if_exists: str = "error"
    fields: list[str] | None = field(default=None)
    history: bool = False
    debug: bool = False

    def __post_init__(self) -> None:
        self.output_dir = require_path("generation.output_dir", self.output_dir)
        for name in ("ckpt_path", "model_only_checkpoint_path"):
            if getattr(self, name) is not None:
                require_path(f"generation.{name}", getattr(self, name))
        require_choice("generation.weights", self.weights, WEIGHTS)
        require_choice("generation.if_exists", self.if_exists, IF_EXISTS)
        if self.limit is not None:
            self.limit = require_int("generation.limit", self.limit, 1)
        for name in ("history", "debug"):
            require_bool(f"generation.{name}", getattr(self, name))
        if self.fields is not None and not (
            isinstance(self.fields, list) and all(isinstance(each, str) for each in self.fields)
        ):
            raise ValueError(
                f"generation.fields is {self.fields!r}; it must be a list of names, such as "
                "'[text,truth]'"
            )


def read_options(cfg: DictConfig) -> GenerationOptions:
    """Take the options from a composed config.

    Raises:
        ValueError: an option is unknown or out of range, or it isn't said which weights to load.
    """
    given = OmegaConf.select(cfg, "generation", default=None)
    given = {} if given is None else given
    known = [each.name for each in fields(GenerationOptions)]
    if not isinstance(given, DictConfig | dict):
        raise ValueError(f"generation is {given!r}; its keys are {', '.join(known)}")
    values: dict[str, Any] = {str(k): given[k] for k in given if given[k] is not None}
    # The host's other name for the same.
    if "checkpoint_path" in values:
        values.setdefault("ckpt_path", values.pop("checkpoint_path"))
    if unknown := [name for name in values if name not in known]:
        raise ValueError(f"generation.{unknown[0]} is no option; there are {', '.join(known)}")
    if isinstance(values.get("fields"), ListConfig):
        values["fields"] = list(values["fields"])
    values.setdefault("output_dir", Path(cfg.paths.output_dir) / "generated")
    options = GenerationOptions(**values)
    sources = {
        "generation.ckpt_path": options.ckpt_path,
        "generation.model_only_checkpoint_path": options.model_only_checkpoint_path,
        "hub.repo_id": OmegaConf.select(cfg, "hub.repo_id", default=None),
    }
    chosen = [name for name, value in sources.items() if value]
    if len(chosen) != 1:
        found = " and ".join(chosen) if chosen else "none"
        raise ValueError(
            f"{found} of {', '.join(sources)} is given; exactly one must say which weights to load"
        )
    if options.ckpt_path is None and options.weights != "auto":
        raise ValueError(
            f"generation.weights is {options.weights!r}; it chooses among the weights of a "
            f"training checkpoint, and {chosen[0]} holds one kind only"
        )
    return options


def choose_device(asked: str, local_rank: int = 0, name: str = "generation.device") -> torch.device:
    """The device to run on.

    Args:
        asked: as in `GenerationOptions`.
        local_rank: the number of this process on its machine, which takes the GPU of that number.
        name: of the option, for the message.

    Raises:
        ValueError: there is no such device here.
    """
    has_cuda, has_mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if asked == "auto":
        asked = "cuda" if has_cuda else "mps" if has_mps else "cpu"
    try:
        device = torch.device(asked)
    except (RuntimeError, TypeError) as error:
        raise ValueError(
            f"{name} is {asked!r}; it must be auto, cpu, cuda, cuda:N or mps"
        ) from error
    there = {"cpu": True, "cuda": has_cuda, "mps": has_mps}
    if device.type == "cuda" and has_cuda:
        number = local_rank if device.index is None else device.index
        if number >= torch.cuda.device_count():
            raise ValueError(
                f"{name} is {asked!r}, number {number}; this machine has "
                f"{torch.cuda.device_count()} CUDA devices, from 0 on"
            )
        return torch.device("cuda", number)
    if not there.get(device.type, False):
        usable = ", ".join(kind for kind, usable in there.items() if usable)
        raise ValueError(f"{name} is {asked!r}, which is not here; usable: {usable}")
    return device
