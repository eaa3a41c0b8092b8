"""Samples read back whole."""

import heapq
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from xlm_mlm.checks import require_int, require_path, shown
from xlm_mlm.history.files import (
    BEFORE,
    META,
    count_steps,
    read_meta,
    read_tensors,
    read_vocabulary,
    sample_folder,
    step_file,
)
from xlm_mlm.history.trace import Trace

_VOCABULARY = 2**20  # tokens at most, where nobody says
_ROUNDING = 1e-3  # of half-precision numbers near 1


def read_traces(
    history_dir: str | Path, fids: Sequence[str] | None = None, limit: int | None = None
) -> list[Trace]:
    """Read the samples of a history, in the order in which they were begun.

    Args:
        history_dir: the folder given to the history as `output_dir`, or that of one sample.
        fids: only these, in this order.
        limit: at most so many.

    Raises:
        FileNotFoundError: there is no such folder or sample, or it holds none.
        ValueError: `limit` is below 1, a name is no plain folder name, or a file is damaged.
    """
    if limit is not None:
        require_int("limit", limit, 1)
    history_dir = require_path("history_dir", history_dir)
    if fids is not None and (isinstance(fids, str) or not isinstance(fids, Sequence)):
        raise ValueError(f"fids is {shown(fids)}; it must be a list of samples' names")
    if fids is None and (history_dir / META).is_file():
        history_dir, fids = history_dir.absolute().parent, [history_dir.absolute().name]
    if fids is None:
        folders = [history_dir / name for name in _begun(history_dir, limit)]
    else:
        folders = [sample_folder(history_dir, fid) for fid in fids][:limit]
    vocabularies: dict[str | None, dict[int, str]] = {}
    return [read_trace(folder, vocabularies) for folder in folders]


def _begun(history_dir: Path, limit: int | None) -> list[str]:
    """Names of samples in the order in which they were begun; of many, no more than asked for."""
    if not history_dir.is_dir():
        raise FileNotFoundError(f"{history_dir} is no folder")
    with os.scandir(history_dir) as entries:
        begun = (
            (read_meta(Path(each)).get("begun") or 0, each.name)
            for each in entries
            if not each.is_symlink() and os.path.isfile(os.path.join(each, META))
        )
        first = sorted(begun) if limit is None else heapq.nsmallest(limit, begun)
    if not first:
        raise FileNotFoundError(
            f"{history_dir} holds no samples; it must be the output_dir of a history, in which "
            f"every sample has a folder with a {META}"
        )
    return [name for _, name in first]


def read_trace(folder: Path, vocabularies: dict[str | None, dict[int, str]]) -> Trace:
    """Read one sample; `vocabularies` keeps what samples share.

    Raises:
        ValueError: a file is damaged, or its tensors do not fit the others.
    """
    meta = read_meta(folder)
    name = meta.get("vocabulary")
    if name not in vocabularies:
        vocabularies[name] = read_vocabulary(folder.parent, name)
    (before,) = read_tensors(folder / BEFORE, "before")
    steps = [read_step(folder, step) for step in range(count_steps(folder))]
    _check(folder, before, steps, meta.get("mask_id"))
    length = len(before)
    width = min(meta.get("max_new_tokens") or length, length)
    # No pass says how many tokens were kept: at most all that there are.
    k = min(meta.get("k") or 1, len(vocabularies[name]) or _VOCABULARY)
    none = {
        "x": before.new_zeros(0, length),
        "p": torch.zeros(0, width, k),
        "pids": before.new_zeros(0, width, k),
        "entropy": torch.zeros(0, width),
    }
    mask_id = meta.get("mask_id")
    last = steps[-1]["x"] if steps else before
    # A batch that was stopped leaves samples that were complete before it was.
    complete = mask_id is not None and not (last == mask_id).any()
    whole = {key: torch.stack([step[key] for step in steps]) for key in none} if steps else none
    return Trace(
        fid=folder.name,
        before=before,
        mask_id=mask_id,
        texts=vocabularies[name],
        finished=meta.get("finished") is True or complete,
        **whole,
    )


def read_step(folder: Path, step: int) -> dict[str, Any]:
    """`p`, `pids`, `x` and `entropy` of a pass."""
    p, entropy = read_tensors(folder / step_file(step, "p"), "p", "entropy")
    (pids,) = read_tensors(folder / step_file(step, "pids"), "pids")
    (x,) = read_tensors(folder / step_file(step, "x"), "x")
    return {"p": p, "pids": pids, "x": x, "entropy": entropy}


def _check(
    folder: Path, before: torch.Tensor, steps: list[dict[str, Any]], mask_id: int | None
) -> None:
    if before.ndim != 1 or before.is_floating_point():
        raise ValueError(
            f"{folder / BEFORE} has shape {list(before.shape)} and type {before.dtype}; it must "
            "hold one row of token ids"
        )
    # Where the mask was not known, -1 stands for it.
    _between(folder / BEFORE, "token id", before, -1 if mask_id is None else 0)
    shape = steps[0]["p"].shape if steps else None
    for number, step in enumerate(steps):
        fits = (
            step["x"].shape == before.shape
            and step["p"].ndim == 2
            and 1 <= step["p"].shape[0] <= len(before)
            and step["p"].shape[1] >= 1
            and step["p"].shape == step["pids"].shape == shape
            and step["entropy"].shape == step["p"].shape[:1]
            and not (step["x"].is_floating_point() or step["pids"].is_floating_point())
        )
        if not fits:
            shapes = {key: list(value.shape) for key, value in step.items()}
            raise ValueError(
                f"pass {number} in {folder} has the shapes {shapes}, which do not fit each other, "
                f"the passes before, or the sequence's length {len(before)}"
            )
        if step["p"].isinf().any() or step["entropy"].isinf().any():
            raise ValueError(f"pass {number} in {folder} holds an infinite probability or entropy")
        path = folder / step_file(number, "p")
        _between(path, "probability", step["p"], -_ROUNDING, 1 + _ROUNDING)
        _between(path, "entropy", step["entropy"], -_ROUNDING)
        for name in ("pids", "x"):
            _between(folder / step_file(number, name), "token id", step[name], 0)


def _between(
    path: Path, what: str, values: torch.Tensor, least: float, most: float = math.inf
) -> None:
    """Refuse values that can't be; a NaN is none."""
    wrong = values[(values < least) | (values > most)]
    if len(wrong):
        raise ValueError(f"{path} holds the {what} {wrong[0].item():g}, which there can't be")
