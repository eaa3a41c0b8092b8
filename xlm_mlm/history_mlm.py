"""A record of every pass of the decoding loop, one folder a sample.

Format 1. In the folder of a sample, per pass N (from 0, five digits): `N.p.safetensors` (fp32
probabilities, most probable first), `N.pids.safetensors` (their token ids) and
`N.x.safetensors` (the sequence after the pass), each holding one tensor named as the file. The
sequence is written last, so that a pass is complete if its sequence is there. `meta.json` holds
the format's number, the two options, and, once the sample is finished, the number of passes.
Files appear whole or not at all, and nothing is ever unpickled.
"""

import json
import os
import re
import uuid
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Integer
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from xlm_mlm.checks import require_int
from xlm_mlm.decoding.recording import HistoryPluginBase
from xlm_mlm.types_mlm import MLMStepResults

__all__ = ["HistoryPluginBase", "HistoryTopKPlugin"]

FORMAT = 1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


class HistoryTopKPlugin(HistoryPluginBase):
    """Writes the k most probable tokens of every position after every pass.

    Args:
        output_dir: where the samples' folders go.
        k: tokens kept a position; the whole vocabulary if None.
        max_new_tokens: keep probabilities for that many last positions only; for all if None.

    Raises:
        ValueError: `k` or `max_new_tokens` below 1.
    """

    def __init__(
        self, output_dir: str | Path, k: int | None = None, max_new_tokens: int | None = None
    ) -> None:
        self.output_dir = Path(output_dir)
        self.k = None if k is None else require_int("k", k, 1)
        self.max_new_tokens = (
            None if max_new_tokens is None else require_int("max_new_tokens", max_new_tokens, 1)
        )
        self._fids: list[str] = []
        self._steps: list[int] = []

    @classmethod
    def from_serialized(cls, output_dir: str | Path, full_id: str) -> "HistoryTopKPlugin":
        """Open the record of one sample.

        Args:
            output_dir: the folder given when it was written.
            full_id: the sample's `fid`.

        Raises:
            ValueError: `full_id` is no plain folder name, or the format is unknown.
            FileNotFoundError: there is no such record.
        """
        if not isinstance(full_id, str) or not _NAME.fullmatch(full_id):
            raise ValueError(
                f"full_id is {full_id!r}; it must be a folder's plain name, as `to_dict` gives it"
            )
        folder = Path(output_dir) / full_id
        meta_file = folder / "meta.json"
        if folder.is_symlink() or not meta_file.is_file():
            raise FileNotFoundError(f"{folder} holds no history (no meta.json)")
        meta = json.loads(meta_file.read_text())
        if not isinstance(meta, dict) or meta.get("format") != FORMAT:
            found = meta.get("format") if isinstance(meta, dict) else meta
            raise ValueError(f"{meta_file} has format {found!r}; this version reads {FORMAT}")
        opened = cls(output_dir, meta.get("k"), meta.get("max_new_tokens"))
        opened._fids = [full_id]
        steps = 0
        while (folder / _file(steps, "x")).is_file():
            steps += 1
        opened._steps = [steps]
        return opened

    def begin(self, step_results: MLMStepResults) -> None:
        """Make a folder for every row of the batch."""
        self.reset()
        for _ in range(len(step_results["x"])):
            # Unique without asking anyone: other processes may write beside us.
            fid = uuid.uuid4().hex
            (self.output_dir / fid).mkdir(parents=True)
            self._fids.append(fid)
            self._steps.append(0)
            self._write_meta(len(self._fids) - 1, finished=False)

    def update_history(self, step_results: MLMStepResults) -> None:
        """Write a pass for the rows that took part in it.

        Args:
            step_results: with `logits`, 0 or anything at positions that were not masked.

        Raises:
            ValueError: there are no logits, or another number of rows than before.
        """
        if not self._fids:
            self.begin(step_results)
        logits = step_results["logits"]
        if logits is None:
            raise ValueError(
                "the step results hold no logits; HistoryTopKPlugin needs those of every masked "
                "position (MLMPredictor(history=...) provides them)"
            )
        x = step_results["x"]
        if len(x) != len(self._fids):
            raise ValueError(
                f"the step results hold {len(x)} rows, the batch began with {len(self._fids)}; "
                "call reset() before another batch"
            )
        was_masked = _masked_before(step_results)
        active = step_results["active"].tolist()
        for row in (row for row, took_part in enumerate(active) if took_part):
            p, ids = self._top(logits[row], x[row], was_masked[row])
            step = self._steps[row]
            self._write(row, step, {"p": p, "pids": ids, "x": x[row]})
            self._steps[row] += 1

    def _top(
        self, logits: Float[Tensor, "L V"], x: Integer[Tensor, "L"], masked: Bool[Tensor, "L"]
    ) -> tuple[Float[Tensor, "W k"], Integer[Tensor, "W k"]]:
        x = x.long()
        if self.max_new_tokens is not None:
            window = slice(-self.max_new_tokens, None)
            logits, x, masked = logits[window], x[window], masked[window]
        k = min(self.k or logits.shape[-1], logits.shape[-1])
        looked_at = masked.to(logits.device)
        best = logits[looked_at].float().softmax(dim=-1).topk(k, dim=-1)
        p = best.values.new_zeros(len(logits), k)
        ids = best.indices.new_zeros(len(logits), k)
        p[:, 0], ids[:, 0] = 1.0, x
        p[looked_at], ids[looked_at] = best
        return p, ids

    def reset(self) -> None:
        """Forget the current batch; what was written stays."""
        self._fids, self._steps = [], []

    def to_dict(self) -> list[dict[str, Any]]:
        """`{"fid": folder's name}` for each row of the current batch."""
        return [{"fid": fid} for fid in self._fids]

    def finalize(self) -> None:
        """Note in each sample's `meta.json` that it is finished, and its number of passes."""
        for row in range(len(self._fids)):
            self._write_meta(row, finished=True)

    def get_num_steps(self) -> int:
        """Passes recorded: of the sample opened, or the most of any row of the current batch."""
        return max(self._steps, default=0)

    def get(self, step: int) -> dict[str, Tensor]:
        """Read a pass of one sample.

        Args:
            step: 0 for the first pass.

        Returns:
            `p` and `pids`, (max_new_tokens or L, k), and `x`, (L,). Where a position was not
            masked in that pass, they hold the committed token with probability 1.

        Raises:
            ValueError: several samples are open, or none, the pass is out of range, or its files
            are damaged.
        """
        if len(self._fids) != 1:
            raise ValueError(
                f"{len(self._fids)} samples are open; open one with "
                "HistoryTopKPlugin.from_serialized(output_dir, fid)"
            )
        steps = self._steps[0]
        if isinstance(step, bool) or not isinstance(step, int) or not 0 <= step < steps:
            raise ValueError(f"step is {step!r}; the record has {steps} passes, from 0 on")
        folder = self.output_dir / self._fids[0]
        try:
            return {
                name: load_file(folder / _file(step, name))[name] for name in ("p", "pids", "x")
            }
        except (SafetensorError, KeyError) as error:
            raise ValueError(f"pass {step} in {folder} cannot be read: {error}") from error

    def _write(self, row: int, step: int, tensors: dict[str, Tensor]) -> None:
        for name, tensor in tensors.items():
            data = save({name: tensor.detach().cpu().contiguous()})
            _replace(self.output_dir / self._fids[row] / _file(step, name), data)

    def _write_meta(self, row: int, *, finished: bool) -> None:
        meta = {
            "format": FORMAT,
            "k": self.k,
            "max_new_tokens": self.max_new_tokens,
            "finished": finished,
            "num_steps": self._steps[row],
        }
        _replace(self.output_dir / self._fids[row] / "meta.json", json.dumps(meta).encode())


def _file(step: int, name: str) -> str:
    return f"{step:05d}.{name}.safetensors"


def _replace(path: Path, data: bytes) -> None:
    """Write a file so that it appears whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(data)
    os.replace(partial, path)


def _masked_before(step_results: MLMStepResults) -> Bool[Tensor, "B L"]:
    """The positions that were masked when the pass began."""
    if "masked" not in step_results or "filled" not in step_results:
        # Results of a foreign loop: a position without logits was not looked at.
        return torch.as_tensor(step_results["logits"]).ne(0).any(dim=-1)
    return torch.logical_or(step_results["masked"], step_results["filled"])
