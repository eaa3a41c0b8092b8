"""Filling the blanks of texts with a saved model, and saying how sure it was."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Integer
from torch import Tensor

from xlm_mlm.checkpoints import Weights
from xlm_mlm.checks import require_bool, require_int, require_token_id, shown
from xlm_mlm.decoding.recording import HistoryPluginBase
from xlm_mlm.generation.opening import open_saved
from xlm_mlm.generation.options import choose_device
from xlm_mlm.predictor_mlm import MLMPredictor
from xlm_mlm.rebuild import Saved
from xlm_mlm.types_mlm import MLMBatch, MLMStepResults
from xlm_mlm.visible import excerpt

MASK = "[MASK]"
_RULES = ("confidence", "threshold", "strategy", "revision")
_OPTIONS = (
    *_RULES,
    *("confidence_temperature", "temperature", "top_k", "top_p"),
    *("block_length", "cfg_scale", "suppress_tokens", "allowed_tokens"),
)
# Of drawn candidates some are equal; so many rounds are made to find as many as were asked for.
_ROUNDS = 4
MOST_DRAWN = 1000


@dataclass(frozen=True)
class Filled:
    """A token that was put in a blank.

    Attributes:
        position: its place among the text's tokens, from 0.
        token_id: which token.
        token: what it reads as.
        p: the model's probability of it in the pass that chose it.
        step: that pass, from 1.
    """

    position: int
    token_id: int
    token: str
    p: float
    step: int


@dataclass(frozen=True)
class Candidate:
    """One way to fill a text.

    Attributes:
        text: the whole text.
        score: the sum of the chosen tokens' log-probabilities, in nats.
        tokens: what was filled, by position.
    """

    text: str
    score: float
    tokens: list[Filled]


@dataclass(frozen=True)
class View:
    """The tokens of a text after a pass.

    Attributes:
        step: passes so far; 0 before the first.
        ids: the tokens, masks included, without the BOS and EOS that were put around them.
        p: of each filled token, its probability in the pass that chose it; None elsewhere.
        new: the positions filled in this pass.
    """

    step: int
    ids: list[int]
    p: list[float | None]
    new: list[int]


class Filler:
    """A model with its tokenizer, ready to fill texts.

    Args:
        saved: model and tokenizer.
        weights: which the model has, for the record.
        device: as in `xlm_mlm.generation.options.choose_device`.
        options: of the predictor, instead of the saved ones: `max_steps`, and those of its rules
            and draws. A rule that is given replaces the saved one, of whichever kind; tokens to
            suppress are added to the saved ones.
        frame: put BOS and EOS around a text; as in training if None.

    Raises:
        ValueError: an option is out of range, or the tokenizer has no mask token.
    """

    def __init__(
        self,
        saved: Saved,
        weights: str = "as saved",
        device: str = "auto",
        options: dict[str, Any] | None = None,
        frame: bool | None = None,
    ) -> None:
        self.tokenizer, self.weights = saved.tokenizer, weights
        self.device = choose_device(device, name="device")
        self.model = saved.model.to(self.device).eval()
        self.mask_id = require_token_id(self.tokenizer, "mask", "find the blanks")
        kept = {key: saved.predictor.get(key) for key in _OPTIONS if key in saved.predictor}
        given = {key: value for key, value in (options or {}).items() if value is not None}
        # One of the ways to choose positions, or to shape the draw, replaces the others.
        if given.keys() & {"strategy", "revision"}:
            kept = {key: value for key, value in kept.items() if key not in _RULES}
        if "revision" in given:
            kept.pop("block_length", None)  # does not go with it
        if "suppress_tokens" in given:
            more = kept.pop("suppress_tokens", None) or ()
            given["suppress_tokens"] = [*more, *given["suppress_tokens"]]
        if given.keys() & {"confidence", "threshold"}:
            kept = {k: value for k, value in kept.items() if k not in ("strategy", "revision")}
        if "top_p" in given:
            kept.pop("top_k", None)
        if "top_k" in given:
            kept.pop("top_p", None)
        self.options = {"max_steps": saved.predictor.get("max_steps", 32)} | kept | given
        if frame is not None:
            require_bool("frame", frame)
        self.before = self._special("bos") if (saved.add_bos if frame is None else frame) else []
        self.after = self._special("eos") if (saved.add_eos if frame is None else frame) else []
        self._predictor(0)  # refuses bad options now

    @classmethod
    def from_checkpoint(
        cls, path: str | Path, *, weights: Weights = "auto", trust: bool = False, **more: Any
    ) -> "Filler":
        """Load a training checkpoint, or a folder that `xlm-mlm save` wrote.

        Args:
            path: the file or folder.
            weights: of a checkpoint: `raw`, `ema`, or `auto`: the EMA weights if it has them.
            trust: make whatever classes the saved config names.
            more: `device`, `options` and `frame`, as above.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it can't be read, or names a class that is not on the list.
        """
        opened = open_saved(path, weights, trust)
        return cls(opened.saved, opened.weights, **more)

    def fill(
        self,
        text: str,
        candidates: int = 1,
        *,
        seed: int = 0,
        max_new_tokens: int = 0,
        watch: Callable[[View], None] | None = None,
    ) -> list[Candidate]:
        """Fill every blank of a text.

        One blank: the most probable tokens, exactly. Several: one greedy way, and others drawn
        from the model, each different, best score first. Where too few differ, more are drawn at
        twice the temperature, and again; scores are those of the model as it is.

        Args:
            text: with the tokenizer's mask token, or `[MASK]`, for each blank.
            candidates: how many ways, at most; with several blanks no more than `MOST_DRAWN`.
            seed: of the draws.
            max_new_tokens: blanks to put behind the text.
            watch: called before the first pass and after each of the greedy way.

        Returns:
            At least one candidate; fewer than asked for if no more were found.

        Raises:
            ValueError: the text has no blank, is too long, or holds what the tokenizer lacks; a
                number is out of range.
        """
        require_int("candidates", candidates, 1)
        if not isinstance(text, str):
            raise ValueError(f"the text is {shown(text)}; it must be a string")
        row = self._row(text, require_int("max_new_tokens", max_new_tokens, 0))
        observer = _Observer(self, watch)
        found = {tuple(row): c for row, c in self._greedy(row, seed, observer)}
        if candidates > 1:
            blanks = int((row == self.mask_id).sum())
            if blanks > 1 and candidates > MOST_DRAWN:
                raise ValueError(
                    f"candidates is {candidates}; of several blanks at most {MOST_DRAWN}"
                )
            found |= self._ranked(row, candidates, observer) if blanks == 1 else {}
            for drawn in range(_ROUNDS if blanks > 1 else 0):
                if len(found) >= candidates:
                    break
                for key, one in self._drawn(row, candidates, seed, drawn):
                    found.setdefault(tuple(key), one)
        best = sorted(found.values(), key=lambda each: -each.score)
        return best[:candidates]

    def texts(self) -> list[str]:
        """What each token id reads as."""
        from xlm_mlm.history.vocabulary import texts_of

        if not hasattr(self, "_texts"):
            self._texts = texts_of(self.tokenizer)
        return self._texts

    def _special(self, name: str) -> list[int]:
        return [require_token_id(self.tokenizer, name, "frame a text as in training")]

    def _row(self, text: str, new: int) -> Integer[Tensor, "L"]:
        mask = self.tokenizer.mask_token
        if mask != MASK:
            text = text.replace(MASK, mask)
        try:
            ids = list(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        # A word that the tokenizer lacks; half a surrogate pair is a TypeError to some.
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"the text {excerpt(text)} can't be tokenised: {error}") from error
        longest = getattr(self.model, "max_length", None)
        # A text that goes on has not ended.
        length = len(self.before) + len(ids) + (new or len(self.after))
        if isinstance(longest, int) and length > longest:
            raise ValueError(f"the text has {length} tokens; the model takes {longest}")
        ids += [self.mask_id] * new
        if self.mask_id not in ids:
            raise ValueError(
                f"the text {excerpt(text)} has no blank; put {mask} where a token is to be "
                "filled in"
            )
        unknown = getattr(self.tokenizer, "unk_token_id", None)
        if unknown is not None and unknown in ids and self.tokenizer.unk_token not in text:
            raise ValueError(
                f"the text {excerpt(text)} holds something that the tokenizer has no token for "
                f"(token {ids.index(unknown)} became {self.tokenizer.unk_token})"
            )
        return torch.tensor([*self.before, *ids, *([] if new else self.after)])

    def _predictor(self, seed: int, **options: Any) -> MLMPredictor:
        return MLMPredictor(
            tokenizer=self.tokenizer,
            model=self.model,
            seed=seed,
            skip_special_tokens=False,
            **(self.options | options),
        )

    def _greedy(self, row: Tensor, seed: int, observer: "_Observer") -> Any:
        greedy = {"temperature": 0.0, "top_k": None, "top_p": None}
        return self._run(self._predictor(seed, **greedy), row[None], observer)

    def _drawn(self, row: Tensor, count: int, seed: int, number: int) -> Any:
        # A model that was saved to be greedy is drawn from as it is; one that is sure of its
        # tokens draws the same ones, until it is warmed.
        temperature = (self.options.get("temperature") or 1.0) * 2**number
        one = self._predictor(seed, temperature=temperature)
        first = 1 + number * count
        return self._run(one, row.expand(count, -1), _Observer(self, None), first)

    def _run(
        self, predictor: MLMPredictor, rows: Tensor, observer: "_Observer", first: int = 0
    ) -> list[tuple[list[int], Candidate]]:
        predictor.history = observer
        batch: MLMBatch = {
            "input_ids": rows.to(self.device),
            "attention_mask": torch.ones_like(rows, dtype=torch.bool, device=self.device),
            "target_ids": None,
            "sample_ids": torch.arange(first, first + len(rows)),
        }
        ids = predictor.predict(batch)["ids"].tolist()
        return [(row, self.candidate(row, observer.filled[n])) for n, row in enumerate(ids)]

    def _ranked(
        self, row: Tensor, count: int, observer: "_Observer"
    ) -> dict[tuple[int, ...], Candidate]:
        """The most probable tokens of the only blank, which the greedy way has just looked at."""
        place = int((row == self.mask_id).nonzero())
        assert observer.logits is not None
        p = observer.logits[0, place].float().softmax(-1)
        best = p.topk(min(count, int((p > 0).sum())))
        found = {}
        for chance, token in zip(best.values.tolist(), best.indices.tolist(), strict=True):
            filled = row.clone()
            filled[place] = token
            ids = filled.tolist()
            found[tuple(ids)] = self.candidate(ids, {place: (token, chance, 1)})
        return found

    def candidate(self, row: list[int], filled: dict[int, tuple[int, float, int]]) -> Candidate:
        """What was filled, as the user sees it: without the frame."""
        texts, shift = self.texts(), len(self.before)
        tokens = [
            Filled(place - shift, token, _text(texts, token), p, step)
            for place, (token, p, step) in sorted(filled.items())
        ]
        score = sum(math.log(each.p) if each.p > 0 else -math.inf for each in tokens)
        return Candidate(self.text_of(self.inner(row)), score, tokens)

    def inner(self, row: list[int]) -> list[int]:
        """A row without the BOS and EOS that were put around the text."""
        row = row[len(self.before) :]
        return row[: -len(self.after)] if self.after and row[-1:] == self.after else row

    def text_of(self, ids: list[int]) -> str:
        """Tokens as text, special tokens included."""
        return self.tokenizer.decode(ids, skip_special_tokens=False)


class _Observer(HistoryPluginBase):
    """Notes of each row what was filled, with what probability, in which pass."""

    def __init__(self, filler: Filler, watch: Callable[[View], None] | None) -> None:
        self.filler, self.watch = filler, watch
        self.filled: list[dict[int, tuple[int, float, int]]] = []
        self.logits: Tensor | None = None
        self._steps = 0

    def begin(self, step_results: MLMStepResults) -> None:
        self.filled = [{} for _ in step_results["x"]]
        self._show(step_results, [])

    def update_history(self, step_results: MLMStepResults) -> None:
        self._steps += 1
        logits, x = step_results["logits"], step_results["x"]
        assert logits is not None
        self.logits = logits
        new: list[int] = []
        for row, place in step_results["filled"].nonzero().tolist():
            token = int(x[row, place])
            p = float(logits[row, place].float().softmax(-1)[token])
            self.filled[row][place] = (token, p, self._steps)
            if row == 0:
                new.append(place)
        for row, place in step_results["taken_back"].nonzero().tolist():
            del self.filled[row][place]
        self._show(step_results, new)

    def _show(self, step_results: MLMStepResults, new: list[int]) -> None:
        if self.watch is None:
            return
        shift = len(self.filler.before)
        ids = self.filler.inner(step_results["x"][0].tolist())
        known = self.filled[0]
        p = [known[n + shift][1] if n + shift in known else None for n in range(len(ids))]
        self.watch(View(self._steps, ids, p, [place - shift for place in new]))

    def reset(self) -> None:
        self._steps = 0

    def to_dict(self) -> list[dict[str, Any]]:
        return [{"fid": ""} for _ in self.filled]


def _text(texts: list[str], token: int) -> str:
    return texts[token] if token < len(texts) else f"#{token}"
