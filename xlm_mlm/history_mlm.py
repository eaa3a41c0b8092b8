"""A record of every pass of the decoding loop, one folder a sample.

`docs/history.md` specifies the files and bounds their size; `xlm_mlm.history` holds what they
are made of, and `read_traces`, which reads whole samples.
"""

import json
import shutil
import time
import uuid
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor

from xlm_mlm.checks import require_choice, require_int, require_path
from xlm_mlm.decoding.recording import HistoryPluginBase
from xlm_mlm.history.files import (
    BEFORE,
    FORMAT,
    META,
    count_steps,
    narrow,
    read_meta,
    sample_folder,
    step_file,
    write_tensors,
    write_vocabulary,
    write_whole,
)
from xlm_mlm.history.reading import read_step, read_trace, read_traces
from xlm_mlm.history.trace import Trace
from xlm_mlm.history.vocabulary import check_reader, texts_of
from xlm_mlm.types_mlm import MLMStepResults

__all__ = ["HistoryPluginBase", "HistoryTopKPlugin", "Trace", "read_traces"]

# Probabilities are made for so many logits at a time: what fits a cache is faster.
_PIECE = 2**22
_DTYPES = {"float16": torch.float16, "float32": torch.float32}


class HistoryTopKPlugin(HistoryPluginBase):
    """Writes the k most probable tokens of every position after every pass.

    Args:
        output_dir: where the samples' folders go.
        k: tokens kept a position; the whole vocabulary if None.
        max_new_tokens: keep probabilities for that many last positions only; for all if None.
        dtype: `float16` or `float32`, of the probabilities on disk.
        tokenizer: says which token is the mask and what each reads as; the predictor's if None.

    Raises:
        ValueError: `k` or `max_new_tokens` below 1, another `dtype`, or something that is no
            tokenizer.
    """

    def __init__(
        self,
        output_dir: str | Path,
        k: int | None = None,
        max_new_tokens: int | None = None,
        *,
        dtype: Literal["float16", "float32"] = "float32",
        tokenizer: Any | None = None,
    ) -> None:
        self.output_dir = require_path("output_dir", output_dir)
        self.k = None if k is None else require_int("k", k, 1)
        self.max_new_tokens = (
            None if max_new_tokens is None else require_int("max_new_tokens", max_new_tokens, 1)
        )
        self.dtype = require_choice("dtype", dtype, _DTYPES)
        self.tokenizer = None if tokenizer is None else check_reader(tokenizer)
        self._told: Any = None
        self._vocabulary: tuple[Any, str | None] = (None, None)
        self._fids: list[str] = []
        self._begun: list[int] = []
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
        folder = sample_folder(output_dir, full_id)
        meta = read_meta(folder)
        dtype: Any = meta.get("dtype")
        opened = cls(output_dir, meta.get("k"), meta.get("max_new_tokens"), dtype=dtype)
        opened._fids = [full_id]
        opened._begun = [meta.get("begun") or 0]
        opened._steps = [count_steps(folder)]
        return opened

    def use_tokenizer(self, tokenizer: Any) -> None:
        """Take the predictor's tokenizer, unless one was given.

        Raises:
            ValueError: it would be used, and can't say what its tokens read as.
        """
        if self.tokenizer is None and tokenizer is not None:
            check_reader(tokenizer)
        self._told = tokenizer

    def begin(self, step_results: MLMStepResults) -> None:
        """Make a folder for every row of the batch, and keep the row as it is.

        If that fails, the folders of the batch are taken away again.

        Raises:
            OSError: the files cannot be written.
        """
        self.reset()
        now = time.time_ns()
        try:
            for row, sequence in enumerate(narrow(step_results["x"]).cpu()):
                # Unique without asking anyone: other processes may write beside us.
                folder = self.output_dir / uuid.uuid4().hex
                folder.mkdir(parents=True)
                self._fids.append(folder.name)
                self._begun.append(now + row)
                self._steps.append(0)
                write_tensors(folder / BEFORE, {"before": sequence})
                self._write_meta(row, finished=False)
        except BaseException:
            for fid in self._fids:
                shutil.rmtree(self.output_dir / fid, ignore_errors=True)  # no records yet
            self.reset()
            raise

    def update_history(self, step_results: MLMStepResults) -> None:
        """Write a pass for the rows that took part in it.

        Args:
            step_results: with `logits`, 0 or anything at positions that were not masked.

        Raises:
            ValueError: there are no logits, or another number of rows than before.
            OSError: the files cannot be written.
        """
        logits = step_results["logits"]
        if logits is None:
            raise ValueError(
                "the step results hold no logits; HistoryTopKPlugin needs those of every masked "
                "position (MLMPredictor(history=...) provides them)"
            )
        masked = _masked_before(step_results).cpu()
        if not self._fids:
            self.begin(self._as_before(step_results, masked))
        x = step_results["x"]
        if len(x) != len(self._fids):
            raise ValueError(
                f"the step results hold {len(x)} rows, the batch began with {len(self._fids)}; "
                "call reset() before another batch"
            )
        rows = step_results["active"].nonzero().flatten().tolist()
        passes = [self._top(logits[row], x[row], masked[row]) for row in rows]
        for row, tensors in zip(rows, passes, strict=True):
            self._write_step(row, {name: each.cpu() for name, each in tensors.items()})

    def _top(
        self, logits: Float[Tensor, "L V"], x: Integer[Tensor, "L"], masked: Bool[Tensor, "L"]
    ) -> dict[str, Tensor]:
        """What is kept of a row: p and pids (W, k), entropy (W,), and x (L,)."""
        window = slice(-self.max_new_tokens if self.max_new_tokens else None, None)
        seen, vocabulary = logits[window], logits.shape[-1]
        k = min(self.k or vocabulary, vocabulary)
        p = seen.new_zeros(len(seen), k, dtype=torch.float32)
        ids = x.new_zeros(len(seen), k)
        entropy = p.new_full((len(seen),), torch.nan)
        p[:, 0], ids[:, 0] = 1.0, x[window]
        # Found on the CPU, so that the device is not waited for.
        places = masked[window].nonzero().flatten().to(seen.device, non_blocking=True)
        for piece in places.split(max(1, _PIECE // vocabulary)):
            spread = seen[piece].float().softmax(dim=-1)
            best = spread.topk(k, dim=-1)
            p[piece], ids[piece] = best.values, best.indices.to(ids.dtype)
            entropy[piece] = torch.special.entr(spread).sum(dim=-1)
        dtype = _DTYPES[self.dtype]
        return {"p": p.to(dtype), "entropy": entropy.to(dtype), "pids": narrow(ids), "x": narrow(x)}

    def reset(self) -> None:
        """Forget the current batch; what was written stays."""
        self._fids, self._begun, self._steps = [], [], []

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
        folder, steps = self._only(), self._steps[0]
        if isinstance(step, bool) or not isinstance(step, int) or not 0 <= step < steps:
            raise ValueError(f"step is {step!r}; the record has {steps} passes, from 0 on")
        whole = read_step(folder, step)
        return {name: whole[name] for name in ("p", "pids", "x")}

    def trace(self) -> Trace:
        """The one open sample, whole.

        Raises:
            ValueError: several samples are open, or none, or a file is damaged.
        """
        return read_trace(self._only(), {})

    def to_dataframe(self) -> Any:
        """The one open sample as a pandas table; see `Trace.to_dataframe`."""
        return self.trace().to_dataframe()

    def _repr_html_(self) -> str | None:
        """The one open sample as a table, for notebooks; nothing if there is not just one."""
        return self.trace()._repr_html_() if len(self._fids) == 1 else None

    def _only(self) -> Path:
        if len(self._fids) != 1:
            raise ValueError(
                f"{len(self._fids)} samples are open; open one with "
                "HistoryTopKPlugin.from_serialized(output_dir, fid)"
            )
        return self.output_dir / self._fids[0]

    def _as_before(self, step_results: MLMStepResults, masked: Bool[Tensor, "B L"]) -> Any:
        """Results of a foreign loop, which began without `begin`: the sequences before the pass."""
        mask_id = self._mask_id()
        x = step_results["x"]
        unknown = -1 if mask_id is None else mask_id
        return {"x": x.masked_fill(masked.to(x.device), unknown)}

    def _mask_id(self) -> int | None:
        return getattr(self._reader(), "mask_token_id", None)

    def _reader(self) -> Any:
        return self._told if self.tokenizer is None else self.tokenizer

    def _write_step(self, row: int, tensors: dict[str, Tensor]) -> None:
        folder, step = self.output_dir / self._fids[row], self._steps[row]
        kept = {name: tensors[name] for name in ("p", "entropy")}
        write_tensors(folder / step_file(step, "p"), kept)
        # The sequence last: it says that the pass is there.
        for name in ("pids", "x"):
            write_tensors(folder / step_file(step, name), {name: tensors[name]})
        self._steps[row] += 1

    def _write_meta(self, row: int, *, finished: bool) -> None:
        meta = {
            "format": FORMAT,
            "k": self.k,
            "max_new_tokens": self.max_new_tokens,
            "dtype": self.dtype,
            "mask_id": self._mask_id(),
            "vocabulary": self._write_vocabulary(),
            "begun": self._begun[row],
            "finished": finished,
            "num_steps": self._steps[row],
        }
        write_whole(self.output_dir / self._fids[row] / META, json.dumps(meta).encode())

    def _write_vocabulary(self) -> str | None:
        reader = self._reader()
        known, name = self._vocabulary
        if reader is not known:
            name = None if reader is None else write_vocabulary(self.output_dir, texts_of(reader))
            self._vocabulary = (reader, name)
        return name


def _masked_before(step_results: MLMStepResults) -> Bool[Tensor, "B L"]:
    """The positions that were masked when the pass began."""
    if "masked" not in step_results or "filled" not in step_results:
        # Results of a foreign loop: a position without logits was not looked at.
        return torch.as_tensor(step_results["logits"]).ne(0).any(dim=-1)
    left = step_results["masked"]
    if "taken_back" in step_results:
        left = left & ~step_results["taken_back"].to(left.device)
    return torch.logical_or(left, step_results["filled"])
