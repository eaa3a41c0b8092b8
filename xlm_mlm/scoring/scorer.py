"""Likelihoods and scores of texts under a masked language model read from a checkpoint."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor

from xlm_mlm.checkpoints import Checkpoint, Weights
from xlm_mlm.checks import (
    require_bool,
    require_choice,
    require_int,
    require_token_id,
    shown,
)
from xlm_mlm.generation.opening import open_saved
from xlm_mlm.generation.options import choose_device
from xlm_mlm.likelihood_mlm import (
    bits_per_token,
    content_ids,
    mlm_nll,
    perplexity,
    pseudo_log_likelihood,
)
from xlm_mlm.rebuild import Saved
from xlm_mlm.visible import excerpt

METHODS = ("nll", "pll")
_MASK = "[MASK]"
_ROWS_AND_FRAME = "xlm_mlm.data.text.TextDatasetManager"
"""Makes rows that carry BOS and EOS themselves, so that its collators add neither."""


@dataclass(frozen=True)
class Row:
    """A text as the model sees it.

    Attributes:
        ids: its tokens, with BOS and EOS where they are put.
        start: where the text's own tokens begin, which are scored; the others are given.
        end: where they end.
    """

    ids: list[int]
    start: int
    end: int


class Scorer:
    """A model with its tokenizer, ready to score texts.

    Args:
        saved: model and tokenizer.
        weights: which the model has, for the record.
        checkpoint: where they are from, for the record.
        device: as in `xlm_mlm.generation.options.choose_device`.
        method: `nll`, an estimated bound on the negative log-likelihood, or `pll`, the
            pseudo-log-likelihood.
        num_mc_samples: passes a text, with `nll`.
        seed: of their masks.
        batch_size: masked copies in a forward pass at most.
        add_bos: put BOS before each text; as in training if None.
        add_eos: put EOS behind it; as in training if None.
        name: what the options are called, for messages: their common prefix.

    Raises:
        ValueError: an option is out of range, or the tokenizer lacks a token.
    """

    def __init__(
        self,
        saved: Saved,
        weights: str = "as saved",
        checkpoint: Checkpoint | None = None,
        *,
        device: str = "auto",
        method: str = "nll",
        num_mc_samples: int = 32,
        seed: int = 0,
        batch_size: int = 32,
        add_bos: bool | None = None,
        add_eos: bool | None = None,
        name: str = "",
    ) -> None:
        self.tokenizer, self.weights, self.checkpoint = saved.tokenizer, weights, checkpoint
        self.method = require_choice(f"{name}method", method, METHODS)
        self.passes = require_int(f"{name}num_mc_samples", num_mc_samples, 1)
        self.seed = require_int(f"{name}seed", seed, 0, 2**64 - 1)
        self.batch_size = require_int(f"{name}batch_size", batch_size, 1)
        self.mask_id = require_token_id(self.tokenizer, "mask", "hide the tokens to be scored")
        framed = _frames_documents(checkpoint.config if checkpoint else {})
        for option, asked in (("add_bos", add_bos), ("add_eos", add_eos)):
            if asked is not None:
                require_bool(f"{name}{option}", asked)
        self.bos = self._frame("bos", saved.add_bos or framed if add_bos is None else add_bos)
        self.eos = self._frame("eos", saved.add_eos or framed if add_eos is None else add_eos)
        self.device = choose_device(device, name=f"{name}device")
        self.model = saved.model.to(self.device).eval()

    @classmethod
    def from_checkpoint(
        cls, path: str | Path, *, weights: Weights = "auto", trust: bool = False, **options: Any
    ) -> "Scorer":
        """Load a training checkpoint, or a folder that `xlm-mlm save` wrote.

        Args:
            path: the file or folder.
            weights: of a checkpoint: `raw`, `ema`, or `auto`: the EMA weights if it has them.
            trust: make whatever classes the saved config names.
            options: as above.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it can't be read, or names a class that is not on the list.
        """
        return cls(*open_saved(path, weights, trust), **options)

    def read(self, text: str) -> Row:
        """Turn a text into tokens. Special tokens that are written in it are read as such.

        Padding at its ends is dropped, and a frame that it has already is not put twice: texts of
        predictions may show both.

        Raises:
            ValueError: the text holds a mask, or what the tokenizer lacks, or is too long.
        """
        if not isinstance(text, str):
            raise ValueError(f"the text is {shown(text)}; it must be a string")
        mask = self.tokenizer.mask_token
        if _MASK in text or mask in text:
            raise ValueError(
                f"the text {excerpt(text)} holds {_MASK if _MASK in text else mask}, which stands "
                "for a token nobody knows; only whole texts have a likelihood"
            )
        ids = self._tokens(text)
        if ids[:1] == self.bos:
            ids = ids[1:]
        if ids[-1:] == self.eos:
            ids = ids[:-1]
        row = [*self.bos, *ids, *self.eos]
        longest = getattr(self.model, "max_length", None)
        if isinstance(longest, int) and len(row) > longest:
            frame = f", {len(row) - len(ids)} of them BOS and EOS" if len(row) > len(ids) else ""
            raise ValueError(
                f"the text {excerpt(text)} has {len(row)} tokens{frame}; the model takes at most "
                f"{longest}"
            )
        return Row(row, len(self.bos), len(self.bos) + len(ids))

    def score(self, rows: Iterable[Row]) -> Iterator[dict[str, Any]]:
        """Score texts, in order.

        Yields:
            `nll` (nats), `num_tokens`, `bits_per_token` and `perplexity`; or, with `pll`,
            `pseudo_log_likelihood` (nats), `num_tokens` and `pseudo_perplexity`. None for what is
            no finite number, as a mean over no tokens.

        Raises:
            ValueError: the model gives NaN.
        """
        # So many texts fill a forward pass with their masked copies.
        at_once = max(self.batch_size // self.passes, 1) if self.method == "nll" else 1
        waiting: list[Row] = []
        for row in rows:
            waiting.append(row)
            if len(waiting) == at_once:
                yield from self._scores(waiting)
                waiting = []
        if waiting:
            yield from self._scores(waiting)

    def summary(self, scores: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
        """The same of all texts, with `num_texts`.

        Log-likelihoods are means, in nats a text in which a token counts; the rest is of all tokens
        together.
        """
        name, worst = ("nll", math.inf)
        if self.method == "pll":
            name, worst = "pseudo_log_likelihood", -math.inf
        texts = tokens = counted = 0

        def values() -> Iterator[float]:
            nonlocal texts, tokens, counted
            for each in scores:
                texts += 1
                tokens += each["num_tokens"]
                counted += each["num_tokens"] > 0
                yield worst if each[name] is None else each[name]

        total = math.fsum(values())
        mean = _finite(total / counted) if counted else None
        return {"num_texts": texts, **self._score(total, tokens), name: mean}

    def _scores(self, rows: list[Row]) -> Iterator[dict[str, Any]]:
        values = self._values(rows).tolist()
        for row, value in zip(rows, values, strict=True):
            yield self._score(value, row.end - row.start)

    def _score(self, value: float, tokens: int) -> dict[str, Any]:
        if math.isnan(value):
            raise ValueError("the model gives NaN, no probability; its weights are damaged")
        if self.method == "pll":
            return {
                "pseudo_log_likelihood": _finite(value),
                "num_tokens": tokens,
                "pseudo_perplexity": _finite(perplexity(-value, tokens)),
            }
        return {
            "nll": _finite(value),
            "num_tokens": tokens,
            "bits_per_token": _finite(bits_per_token(value, tokens)),
            "perplexity": _finite(perplexity(value, tokens)),
        }

    def _values(self, rows: list[Row]) -> Float64[Tensor, "B"]:
        width = max(len(row.ids) for row in rows)
        if not width:
            return torch.zeros(len(rows), dtype=torch.float64)
        # What is hidden may be any token.
        ids = torch.full((len(rows), width), self.mask_id)
        valid, maskable = (torch.zeros(len(rows), width, dtype=torch.bool) for _ in range(2))
        for i, row in enumerate(rows):
            ids[i, : len(row.ids)] = torch.tensor(row.ids, dtype=torch.long)
            valid[i, : len(row.ids)] = True
            maskable[i, row.start : row.end] = True
        given = ids.to(self.device), maskable.to(self.device), self.mask_id
        shared: dict[str, Any] = {
            "attention_mask": valid.to(self.device),
            "batch_size": self.batch_size,
        }
        if self.method == "pll":
            return pseudo_log_likelihood(self.model, *given, **shared)
        # A text has the same masks, and so the same score, wherever it stands.
        numbers = content_ids(ids, maskable, valid)
        shared |= {"num_mc_samples": self.passes, "seed": self.seed, "sample_ids": numbers}
        return mlm_nll(self.model, *given, **shared)

    def _tokens(self, text: str) -> list[int]:
        try:
            ids = list(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        # A word that the tokenizer lacks; half a surrogate pair is a TypeError to some.
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"the text {excerpt(text)} can't be tokenised: {error}") from error
        unknown = getattr(self.tokenizer, "unk_token_id", None)
        if unknown is not None and unknown in ids and self.tokenizer.unk_token not in text:
            raise ValueError(
                f"the text {excerpt(text)} holds something that the tokenizer has no token for "
                f"(token {ids.index(unknown)} became {self.tokenizer.unk_token})"
            )
        pad = getattr(self.tokenizer, "pad_token_id", None)
        while pad is not None and ids[-1:] == [pad]:
            ids.pop()
        first = next((i for i, each in enumerate(ids) if each != pad), 0)
        return ids[first:]

    def _frame(self, name: str, wanted: bool) -> list[int]:
        if not wanted:
            return []
        return [require_token_id(self.tokenizer, name, "frame a text as in training")]


def _frames_documents(config: Mapping[str, Any]) -> bool:
    """Whether the training rows carried BOS and EOS, put there when the data were read."""
    found: Any = config
    for key in ("datamodule", "dataset_managers", "train", "lm", "_target_"):
        found = found.get(key) if isinstance(found, Mapping) else None
    return found == _ROWS_AND_FRAME


def _finite(value: float) -> float | None:
    """JSON has no other numbers."""
    return value if math.isfinite(value) else None
