"""The decoding loop: passes, stopping, results. The rules of sampling live in `sampling/`."""

import dataclasses
import logging
import time
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor
from xlm import flags
from xlm.harness import Predictor

from xlm_mlm.checks import require_int, require_token_id
from xlm_mlm.decoding.hooks import LogitsShiftBy1
from xlm_mlm.decoding.prompts import PromptBatch, batch_prompts
from xlm_mlm.decoding.recording import HistoryPluginBase
from xlm_mlm.decoding.results import dense_logits, rows_of
from xlm_mlm.decoding.state import advance, at_work, begin, evaluating, masks_left
from xlm_mlm.model_mlm import call_model, logits_at_positions, pick
from xlm_mlm.sampling.candidates import Candidates
from xlm_mlm.sampling.positions import Confidence, PositionStrategy, make_strategy
from xlm_mlm.sampling.streams import GlobalStream, Purpose, SampleStreams
from xlm_mlm.sampling.tokens import TokenSampler, suppress
from xlm_mlm.types_mlm import MLMBatch, MLMModel, MLMPredictionDict, MLMStepResults

__all__ = ["LogitsShiftBy1", "MLMPredictor"]

logger = logging.getLogger(__name__)


class MLMPredictor(torch.nn.Module, Predictor[MLMBatch, MLMPredictionDict]):
    """Fills masks in any order, several in a pass, in at most `max_steps` passes.

    Each pass chooses positions (`confidence`, `threshold`, or `strategy`), draws their tokens
    (`temperature`, `top_k`, `top_p`) and keeps them. No pass runs in which nothing is filled.

    Args:
        max_steps: most forward passes a sample may take.
        max_new_tokens: masks appended behind each row; None or 0 fills masks in place.
        tokenizer: the host sets it when it is None; so it does with the next two.
        model: the network; it is not registered as a submodule. Logits that it makes in a pass
            are the predictor's to change.
        noise_schedule: unused, part of the host's protocol.
        top_k: draw among the k most probable tokens.
        top_p: draw among the most probable tokens whose probabilities reach p.
        confidence: None fills positions at random; `top_prob`, `prob_diff` or `entropy` rank
            them by the model's confidence.
        threshold: with a confidence: fill as many as keep their summed uncertainty, less the
            largest, under it, instead of spreading the masks evenly over the passes.
        skip_special_tokens: leave special tokens out of the text.
        temperature: of the draw; 0 takes the most probable token.
        confidence_temperature: of the noise on the ranking; 0 ranks greedily.
        logits_hook: called with the logits (B, L, V) before anything else looks at them. With a
            true attribute `pointwise` it is taken to work position by position and gets those of
            the needed positions only, (N, V).
        history: keeps a record of every pass.
        seed: gives every sample random numbers of its own, so that its output does not depend on
            its batch. Without it, torch's global generator is used.
        strategy: a position rule of your own, instead of `confidence` and `threshold`.
            `confidence_temperature` is the confidences' alone, and unused with a threshold.

    Raises:
        ValueError: an option out of range, or options that contradict each other.
    """

    model: Any
    tokenizer: Any

    def __init__(
        self,
        max_steps: int,
        max_new_tokens: int | None = None,
        tokenizer: Any | None = None,
        model: MLMModel | None = None,
        noise_schedule: Any | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        confidence: Confidence | None = None,
        threshold: float | None = None,
        skip_special_tokens: bool = True,
        *,
        temperature: float = 1.0,
        confidence_temperature: float = 1.0,
        logits_hook: Callable[[Tensor], Tensor] | None = None,
        history: HistoryPluginBase | None = None,
        seed: int | None = None,
        strategy: PositionStrategy | None = None,
    ) -> None:
        super().__init__()
        _check_parts(logits_hook, history, strategy)
        self.max_steps = require_int("max_steps", max_steps, 1)
        if max_new_tokens is not None:
            require_int("max_new_tokens", max_new_tokens, 0)
        if strategy is not None and (confidence, threshold) != (None, None):
            raise ValueError(
                f"strategy is set together with confidence={confidence!r} and "
                f"threshold={threshold!r}; give one or the other"
            )
        named = make_strategy(confidence, threshold, confidence_temperature)
        self.strategy = named if strategy is None else strategy
        self.sampler = TokenSampler(temperature, top_k, top_p)
        self.max_new_tokens = max_new_tokens
        self.tokenizer = tokenizer
        self.model = model
        self.noise_schedule = noise_schedule
        self.skip_special_tokens = skip_special_tokens
        self.logits_hook = logits_hook
        self.history = history
        self.reseed(seed)

    def __setattr__(self, name: str, value: Any) -> None:
        # As a submodule the model would be saved, moved and wrapped twice.
        if name == "model":
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def reseed(self, seed: int | None) -> None:
        """Start the samples' random streams, and their count, anew.

        Raises:
            ValueError: the seed is not None or an integer from 0 to 2**64 - 1.
        """
        self.streams = GlobalStream() if seed is None else SampleStreams(seed)
        self.samples_seen = 0

    def reset(self) -> None:
        """Forget what was recorded of earlier batches; random streams go on."""
        if self.history is not None:
            self.history.reset()

    def predict(
        self,
        batch: MLMBatch,
        batch_idx: int | None = None,
        dataloader_idx: int | None = None,
        dataloader_name: str | None = None,
    ) -> MLMPredictionDict:
        """Fill every mask of a batch, which is left as it is.

        Args:
            batch: `input_ids` (B, L), with `attention_mask`, `positions`, `segment_ids`,
                `block_mask` or `sample_ids` (Integer[B]) where there are any.
            batch_idx: unused, part of the host's protocol; so are the next two.
            dataloader_idx: unused.
            dataloader_name: unused.

        Raises:
            KeyError: the batch has no `input_ids`.
            ValueError: there is no model or tokenizer, or the batch does not fit them.
        """
        return self._predict(batch, self.max_new_tokens or 0)

    def _predict(self, batch: MLMBatch, new_tokens: int) -> MLMPredictionDict:
        if self.model is None:
            raise ValueError("MLMPredictor has no model; pass model=..., or let the host set it")
        self.reset()
        started = time.perf_counter()
        state = begin(batch, self._mask_id(), new_tokens)
        state["sample_ids"] = self._sample_ids(batch, len(state["x"]))
        if self.history is not None:
            self.history.use_tokenizer(self.tokenizer)
            self.history.begin(state)
        seconds = torch.zeros(len(state["x"]), dtype=torch.float64)
        while not self.stop(state).all():
            last = state["current_step"] == self.max_steps - 1
            state = self.predict_single_step(state, final_step=last)
            seconds[state["active"]] = time.perf_counter() - started
            self._record(state)
        if self.history is not None:
            self.history.finalize()
        return self._results(state, new_tokens, seconds.tolist())

    def predict_single_step(
        self, step_results: MLMStepResults, final_step: bool = False
    ) -> MLMStepResults:
        """Run one pass over the rows that still have a mask, in inference and eval mode.

        Args:
            step_results: the state that the last pass returned; it is left as it is.
            final_step: fill every mask that is left.

        Returns:
            The state after the pass, all B rows of it.
        """
        with torch.inference_mode(), evaluating(self.model):
            return self._step(step_results, final_step)

    def _step(self, step_results: MLMStepResults, final_step: bool) -> MLMStepResults:
        masked = masks_left(step_results, self._mask_id())
        candidates = Candidates.of(masked)
        if not len(candidates.rows):
            return {**step_results, "active": torch.zeros_like(step_results["active"])}
        left = max(self.max_steps - step_results["current_step"], 1)
        asked: dict[str, Any] = {"passes_left": 1 if final_step else left}
        if getattr(self.strategy, "needs_noise", True):
            asked["noise"] = self._noise(step_results, candidates, Purpose.POSITION)
        candidates = dataclasses.replace(candidates, **asked)
        length, kept = masked.shape[1], None
        if self.strategy.needs_logits or self.history is not None:
            every = candidates.flat(candidates.valid, length)
            all_logits = self._logits(step_results, candidates.rows, every)
            chosen = self._select(candidates, all_logits)
            flat = candidates.flat(chosen, length)
            # Indices from the CPU: a boolean index would synchronise on CUDA.
            picked = chosen[candidates.valid].nonzero().squeeze(1)
            logits = all_logits[picked.to(all_logits.device)]
            if self.history is not None:
                kept = dense_logits(all_logits, every, masked.shape)
        else:
            chosen = self._select(candidates, None)
            flat = candidates.flat(chosen, length)
            logits = self._logits(step_results, candidates.rows, flat)
        uniform = None
        if not self.sampler.greedy:
            uniform = self._noise(step_results, candidates, Purpose.TOKEN)[chosen]
        tokens = self.sampler(logits, uniform)
        return advance(step_results, masked, flat, tokens, kept)

    def _select(self, candidates: Candidates, logits: Tensor | None) -> Bool[Tensor, "A K"]:
        """Ask the strategy, and hold it to its promise; the pass's one synchronisation."""
        seen: Any = {} if logits is None else {"logits": logits}
        chosen: Any = self.strategy.select(dataclasses.replace(candidates, **seen))
        fits = isinstance(chosen, Tensor) and chosen.shape == candidates.valid.shape
        if fits and chosen.dtype == torch.bool:
            chosen = chosen.cpu()
            fits = bool(chosen.any(dim=1).all() and not (chosen & ~candidates.valid).any())
        else:
            fits = False
        if not fits:
            raise ValueError(
                f"{type(self.strategy).__name__}.select must return booleans of the shape of "
                "`valid` that mark at least one candidate of every line and only valid ones; it "
                "did not"
            )
        return candidates.valid if candidates.passes_left == 1 else chosen

    def _logits(
        self, state: MLMStepResults, rows: Integer[Tensor, "A"], flat: Integer[Tensor, "N"]
    ) -> Float[Tensor, "N V"]:
        """Logits at flat positions of the whole batch, from a pass over some rows of it."""
        inputs = at_work(state, rows)
        length = state["x"].shape[1]
        if len(inputs["x_t"]) < len(state["x"]):
            line_of = torch.zeros(len(state["x"]), dtype=torch.long)
            line_of[rows] = torch.arange(len(rows))
            flat = line_of[flat // length] * length + flat % length
        flat = flat.to(inputs["x_t"].device)
        hook = self.logits_hook
        pointwise = getattr(hook, "pointwise", False)
        if hook is None or pointwise:
            logits = logits_at_positions(self.model, flat=flat, **inputs)
            logits = logits if hook is None else hook(logits)
        else:
            logits = pick(hook(call_model(self.model, **inputs)), flat, inputs["x_t"])
        # Made in this pass, and nobody else's: not a view of a parameter, nor kept by a hook.
        ours = logits.is_inference() and logits.is_contiguous() and not pointwise
        return suppress(logits, [self._mask_id()], in_place=ours)

    def _noise(
        self, state: MLMStepResults, candidates: Candidates, purpose: Purpose
    ) -> Float[Tensor, "A K"]:
        places, ids = candidates.columns, candidates.rows
        # A state made by hand may have neither: a row is then its own sample.
        if "places" in state:
            places = state["places"][candidates.rows].gather(1, places)
        if "sample_ids" in state:
            ids = state["sample_ids"][ids]
        return self.streams.uniform(ids, state["current_step"], purpose, places)

    def _sample_ids(self, batch: MLMBatch, rows: int) -> Integer[Tensor, "B"]:
        given: Any = batch.get("sample_ids")
        if given is None:
            return self._count(rows)
        ids = given.cpu() if isinstance(given, Tensor) else torch.tensor(list(given))
        whole = not (ids.is_floating_point() or ids.dtype == torch.bool)
        if ids.shape != (rows,) or not whole or (ids < 0).any():
            raise ValueError(
                f"sample_ids are {given}; they must be {rows} integers of at least 0, one a row"
            )
        return ids.long()

    def _count(self, rows: int) -> Integer[Tensor, "B"]:
        """Numbers for the next samples; of W processes, the one of rank r takes every W-th."""
        rank, world = 0, 1
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
        first, self.samples_seen = self.samples_seen, self.samples_seen + rows
        return rank + world * torch.arange(first, self.samples_seen)

    def _mask_id(self) -> int:
        return require_token_id(self.tokenizer, "mask", "find the positions to fill")

    def _record(self, state: MLMStepResults) -> None:
        if self.history is not None:
            self.history.update_history(state)
        if flags.DEBUG_PRINT_PREDS:
            for text in self.decode(state)[0]:
                logger.info("after pass %d: %s", state["current_step"], text)

    def _results(
        self, state: MLMStepResults, new_tokens: int, seconds: list[float]
    ) -> MLMPredictionDict:
        text, ids = self.decode(state)
        start = ids.shape[1] - new_tokens
        preds: MLMPredictionDict = {
            "loss": None,
            "text": text,
            # Cloned outside inference mode, so that metrics may use it as any other tensor.
            "ids": ids.clone(),
            "time_taken": seconds,
            "output_start_idx": torch.full((len(ids),), start, device=ids.device),
            "steps_taken": state["steps_taken"].tolist(),
        }
        if self.history is not None:
            preds["fid"] = [entry["fid"] for entry in self.history.to_dict()]
        return preds

    def stop(self, step_results: MLMStepResults) -> Bool[Tensor, "B"]:
        """Rows with no mask left, on the CPU."""
        return step_results["done"]

    def decode(self, results: MLMStepResults) -> tuple[list[str], Integer[Tensor, "B L"]]:
        """Text of every row, prompt included, and the rows themselves."""
        x = results["x"]
        texts = self.tokenizer.batch_decode(x, skip_special_tokens=self.skip_special_tokens)
        return texts, x

    def to_dict(
        self,
        batch: MLMBatch,
        preds: MLMPredictionDict,
        batch_idx: int | None = None,
        dataloader_idx: int | None = None,
        dataloader_name: str | None = None,
    ) -> list[dict[str, Any]]:
        """One dictionary a sample, of plain strings, numbers and lists.

        The host's per-sample metrics (`metric_*`) are passed through.
        """
        return rows_of(preds)

    def generate(self, prompts: list[str]) -> list[str]:
        """Fill the masks of each prompt, or continue it by `max_new_tokens` if it has none.

        Args:
            prompts: texts; they are tokenised as they stand, nothing is added.

        Returns:
            The texts in order: a filled prompt whole, of a continued one the continuation.

        Raises:
            ValueError: a prompt without a mask while `max_new_tokens` is None, or something that
                is no list of strings.
        """
        texts: dict[int, str] = {}
        groups = batch_prompts(prompts, self.tokenizer, self.max_new_tokens)
        numbers = self._count(len(prompts))
        device = getattr(next(iter(self._parameters_of_model()), None), "device", "cpu")
        for group in groups:
            # A prompt's number is its place in the list, whatever is decoded with it.
            batch = group.to(device)
            batch["sample_ids"] = numbers[group.indices]
            preds = self._predict(batch, group.new_tokens)
            texts.update(self._texts_of(group, preds["ids"]))
        return [texts[i] for i in range(len(prompts))]

    def _parameters_of_model(self) -> Any:
        return self.model.parameters() if isinstance(self.model, torch.nn.Module) else ()

    def _texts_of(self, group: PromptBatch, ids: Integer[Tensor, "B L"]) -> dict[int, str]:
        rows = group.outputs(ids.cpu())
        texts = [
            self.tokenizer.decode(row, skip_special_tokens=self.skip_special_tokens) for row in rows
        ]
        return dict(zip(group.indices, texts, strict=True))


def _check_parts(logits_hook: Any, history: Any, strategy: Any) -> None:
    if logits_hook is not None and not callable(logits_hook):
        raise ValueError(f"logits_hook is {logits_hook!r}; it must be callable")
    if history is not None and not isinstance(history, HistoryPluginBase):
        raise ValueError(
            f"history is {history!r}; it must derive from HistoryPluginBase, as "
            "HistoryTopKPlugin(output_dir) does"
        )
    if strategy is not None and not (
        callable(getattr(strategy, "select", None)) and hasattr(strategy, "needs_logits")
    ):
        raise ValueError(
            f"strategy is {strategy!r}; it must be an object with `needs_logits` and "
            "`select(candidates)`"
        )
