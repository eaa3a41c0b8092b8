"""Checkpoints as the host writes them, read without unpickling, and put into a model."""

import hashlib
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file
from torch import Tensor

from xlm_mlm.checks import require_choice, require_path
from xlm_mlm.history.files import not_regular

Weights = Literal["auto", "raw", "ema"]
WEIGHTS = ("auto", "raw", "ema")
_PREFIX = "model."
_SHOWN = 5


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds of a model.

    Attributes:
        path: the file.
        config: the experiment's config as the host saved it, with the interpolations that it
            leaves to run time; empty if the file holds weights alone.
        step: optimizer steps taken; None if the file holds weights alone.
        tensors: the model's weights by name.
        ema: the exponential moving averages of its trainable parameters, in their order.
    """

    path: Path
    config: dict[str, Any]
    step: int | None
    tensors: dict[str, Tensor] = field(repr=False)
    ema: list[Tensor] | None = field(repr=False)

    @property
    def has_ema(self) -> bool:
        """Whether the training kept a moving average of the weights."""
        return self.ema is not None

    @cached_property
    def sha256(self) -> str:
        """Of the file's bytes, in hexadecimal."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def apply(self, model: torch.nn.Module, which: Weights = "auto") -> Literal["raw", "ema"]:
        """Put the weights into a model; one that they do not fit is left as it was.

        Args:
            model: of the same shape as the one that was trained.
            which: `raw` as the optimizer left them, `ema` their moving average, or `auto`: the
                average if there is one.

        Returns:
            Which weights the model has now.

        Raises:
            ValueError: the weights do not fit, or some are no numbers, or there is no average.
        """
        require_choice("weights", which, WEIGHTS)
        if which == "ema" and self.ema is None:
            raise ValueError(
                f"{self.path} holds no EMA weights; it was trained without the callback that "
                "averages them. Take weights=raw, or auto"
            )
        self._check(model.state_dict())
        refuse_no_numbers(self.tensors, self.path)
        averaged: list[tuple[torch.nn.Parameter, Tensor]] = []
        if which != "raw" and self.ema is not None:
            averaged = self._pairs(model, self.ema)
            names = (name for name, each in model.named_parameters() if each.requires_grad)
            refuse_no_numbers(dict(zip(names, self.ema, strict=True)), self.path, "the average of ")
        model.load_state_dict(self.tensors)
        with torch.no_grad():
            for parameter, average in averaged:
                parameter.copy_(average)
        return "ema" if averaged else "raw"

    def _check(self, wanted: Mapping[str, Tensor]) -> None:
        """Compare names and shapes, before anything is changed."""
        findings = []
        if missing := wanted.keys() - self.tensors.keys():
            findings.append(f"it lacks {_some(missing)}")
        if unknown := self.tensors.keys() - wanted.keys():
            findings.append(f"the model has no {_some(unknown)}")
        findings += [
            f"{name} holds {tensor.dtype}, in the model {wanted[name].dtype}"
            for name, tensor in self.tensors.items()
            if name in wanted and tensor.is_floating_point() != wanted[name].is_floating_point()
        ][:_SHOWN]
        findings += [
            f"{name} has shape {list(self.tensors[name].shape)}, in the model {list(tensor.shape)}"
            for name, tensor in wanted.items()
            if name in self.tensors and self.tensors[name].shape != tensor.shape
        ][:_SHOWN]
        if findings:
            raise ValueError(f"{self.path} does not fit the model: {'; '.join(findings)}")

    def _pairs(
        self, model: torch.nn.Module, ema: list[Tensor]
    ) -> list[tuple[torch.nn.Parameter, Tensor]]:
        trainable = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        if len(trainable) != len(ema):
            raise ValueError(
                f"{self.path} does not fit the model: it averages {len(ema)} parameters, and the "
                f"model has {len(trainable)} that are trained"
            )
        for (name, parameter), average in zip(trainable, ema, strict=True):
            if parameter.shape != average.shape:
                raise ValueError(
                    f"{self.path} does not fit the model: the average of {name} has shape "
                    f"{list(average.shape)}, in the model {list(parameter.shape)}"
                )
        return [
            (parameter, average) for (_, parameter), average in zip(trainable, ema, strict=True)
        ]


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a training checkpoint, or a file of a model's weights alone.

    Only tensors and plain values are read; a file that would run code is refused.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no checkpoint, or holds more than tensors and plain values.
    """
    path = require_path("checkpoint", path)
    if (wrong := not_regular(path)) is not None:
        raise FileNotFoundError(f"checkpoint {path} {wrong}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is odd about a file, its error says
            content = _content(path)
    except Exception as error:  # damaged files end in whatever the unpickler trips over
        if isinstance(error, OSError) and error.filename is not None:
            raise  # it can't be opened; a seek beyond the end of a short file names none
        raise ValueError(_refusal(path, error)) from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}; it must hold named weights")
    whole = isinstance(content.get("state_dict"), dict)
    tensors = _model_part(content["state_dict"]) if whole else content
    named = all(isinstance(n, str) and isinstance(t, Tensor) for n, t in tensors.items())
    if not tensors or not named:
        raise ValueError(f"{path} holds no weights of a model; it must be a checkpoint of the host")
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.is_meta:
            kind = "no values" if tensor.is_meta else f"the layout {tensor.layout}"
            raise ValueError(f"{path}: {name} has {kind}; weights must be dense tensors")
    config, step, ema = (content.get(key) for key in ("hyper_parameters", "global_step", "ema"))
    return Checkpoint(
        path=path,
        config=config if whole and isinstance(config, dict) else {},
        step=step if whole and isinstance(step, int) else None,
        tensors=tensors,
        ema=_averages(path, ema) if whole and ema is not None else None,
    )


def refuse_no_numbers(tensors: Mapping[str, Tensor], path: Path, what: str = "") -> None:
    """Refuse weights of which some are NaN or infinite, as those of a training that diverged.

    Raises:
        ValueError: there are some; the message names the first tensor and the file.
    """
    for name, tensor in tensors.items():
        # A number of one byte can't be asked.
        wide = tensor.float() if tensor.element_size() == 1 else tensor
        wrong = 0 if wide.isfinite().all() else int((~wide.isfinite()).sum())
        if wrong:
            raise ValueError(
                f"{path}: {what}{name} holds NaN or infinity in {wrong} of {tensor.numel()} "
                "places; it must hold numbers. Did the training diverge?"
            )


def _content(path: Path) -> Any:
    if path.suffix == ".safetensors":
        return load_file(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def _model_part(state: dict[str, Any]) -> dict[str, Any]:
    return {
        name.removeprefix(_PREFIX): value
        for name, value in state.items()
        if isinstance(name, str) and name.startswith(_PREFIX)
    }


def _averages(path: Path, ema: Any) -> list[Tensor]:
    averages = ema.get("shadow_params") if isinstance(ema, dict) else None
    if not isinstance(averages, list) or not all(isinstance(each, Tensor) for each in averages):
        raise ValueError(f"{path} holds a moving average without its list of tensors")
    return averages


def _refusal(path: Path, error: Exception) -> str:
    reason = str(error)
    if found := re.search(r"GLOBAL ([\w.]+)", reason):
        return (
            f"{path} holds more than tensors and plain values ({found[1]}); reading it could run "
            "code, so it is refused"
        )
    first = reason.strip().partition("\n")[0].partition(". ")[0]
    kind = type(error).__name__
    return f"{path} is damaged, or no checkpoint: {f'{kind}: {first}' if first else kind}"


def _some(names: Any) -> str:
    shown = sorted(names)
    more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
    return ", ".join(shown[:_SHOWN]) + more
