"""The decoding loop: passes, stopping, results. The rules of sampling live in `sampling/`."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Integer
from torch import Tensor
from xlm import flags
from xlm.harness import Predictor

from xlm_mlm.checks import require_int, require_token_id, shown
from xlm_mlm.collation.samples import Process
from xlm_mlm.decoding.hooks import LogitsShiftBy1
from xlm_mlm.decoding.network import Network
from xlm_mlm.decoding.parts import checked_part
from xlm_mlm.decoding.passes import Pass
from xlm_mlm.decoding.prompts import PromptBatch, batch_prompts
from xlm_mlm.decoding.recording import HistoryPluginBase
from xlm_mlm.decoding.results import rows_of
from xlm_mlm.decoding.rules import make_rules
from xlm_mlm.decoding.state import begin, checked_sample_ids
from xlm_mlm.modeling.modes import asking
from xlm_mlm.sampling.positions import PositionStrategy
from xlm_mlm.sampling.revise import Revision
from xlm_mlm.sampling.scores import Confidence
from xlm_mlm.sampling.streams import GlobalStream, SampleStreams
from xlm_mlm.types_mlm import MLMBatch, MLMModel, MLMPredictionDict, MLMStepResults

__all__ = ["LogitsShiftBy1", "MLMPredictor"]

logger = logging.getLogger(__name__)

_COUNT = "samples_seen"


class MLMPredictor(torch.nn.Module, Predictor[MLMBatch, MLMPredictionDict]):
    """Fills masks in any order, several in a pass, in at most `max_steps` passes.

    Each pass chooses positions (`confidence`, `threshold`, or `strategy`), draws their tokens
    (`temperature`, `top_k`, `top_p`) and keeps them, unless a `revision` takes some back. No pass
    runs in which nothing is filled.

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
        strategy: a position rule instead of `confidence` and `threshold`: its name, a mapping of
            `name` and options, or an object (`PositionStrategy`). Names: `xlm-mlm plugins`.
            `confidence_temperature` is the confidences' alone, and unused with a threshold.
        revision: a rule that takes committed tokens back, in the same three ways (`Revision`). It
            uses all of `max_steps`, and helps where that is more than there are masks.
        block_length: fill the positions in blocks of this length, from left to right, counted
            from the first that was not given; None is one block. Not with a revision.
        cfg_scale: w in u + (w + 1) (c - u), where c are the logits and u those with the given
            tokens masked (Nie et al., arXiv 2410.18514); twice the work; 0 is off.
        suppress_tokens: ids, or tokens as text, that are never produced.
        allowed_tokens: what may be produced where: see `sampling.constraints.AllowedTokens`. A
            batch may have such a table of booleans, too.

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
        strategy: PositionStrategy | str | Mapping[str, Any] | None = None,
        revision: Revision | str | Mapping[str, Any] | None = None,
        block_length: int | None = None,
        cfg_scale: float = 0.0,
        suppress_tokens: Sequence[int | str] | None = None,
        allowed_tokens: Any = None,
    ) -> None:
        super().__init__()
        self.max_steps = max_steps
        self.max_new_tokens = max_new_tokens
        self.skip_special_tokens = skip_special_tokens
        self.logits_hook = logits_hook
        self.history = history
        options: dict[str, Any] = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
        options |= {"confidence": confidence, "threshold": threshold, "strategy": strategy}
        options |= {"confidence_temperature": confidence_temperature, "revision": revision}
        options |= {"block_length": block_length, "cfg_scale": cfg_scale}
        options |= {"suppress_tokens": suppress_tokens, "allowed_tokens": allowed_tokens}
        self.rules = make_rules(**options)
        self._options = options
        self.tokenizer = tokenizer
        self.model = model
        self.noise_schedule = noise_schedule
        self.reseed(seed)

    def __setattr__(self, name: str, value: Any) -> None:
        # As a submodule the model would be saved, moved and wrapped twice.
        if name == "model":
            object.__setattr__(self, name, value)
        elif name in self.__dict__.get("_options", ()):
            # Together with the others, or not at all.
            changed = {**self._options, name: value}
            self.rules, self._options = make_rules(**changed), changed
        elif name == "seed":
            self.reseed(value)
        else:
            super().__setattr__(name, checked_part(name, value))

    def __getattr__(self, name: str) -> Any:
        if name in self.__dict__.get("_options", ()):
            return self._options[name]
        if name == "seed":
            return getattr(self.streams, "seed", None)
        return super().__getattr__(name)

    def reseed(self, seed: int | None) -> None:
        """Start the samples' random streams, and their count, anew.

        Raises:
            ValueError: the seed is not None or an integer from 0 to 2**64 - 1.
        """
        self.streams = GlobalStream() if seed is None else SampleStreams(seed)
        self.samples_seen = 0

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        # A training checkpoint keeps the count, so that a resumed run numbers its samples on.
        # Without a seed there are no numbers, and the checkpoint is as any other's.
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if isinstance(self.streams, SampleStreams):
            destination[prefix + _COUNT] = torch.tensor(self.samples_seen)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        # Neither a checkpoint without the count nor one that has it for nothing is an error.
        seen = state_dict.pop(prefix + _COUNT, None)
        if seen is not None and isinstance(self.streams, SampleStreams):
            try:
                self.samples_seen = require_int(_COUNT, seen, 0)
            except ValueError as error:
                rest[-1].append(str(error))  # with what else does not fit
        super()._load_from_state_dict(state_dict, prefix, *rest)

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
                `block_mask`, `sample_ids` (Integer[B]) or `allowed_tokens` where there are any.
            batch_idx: unused, part of the host's protocol; so are the next two.
            dataloader_idx: unused.
            dataloader_name: unused.

        Raises:
            KeyError: the batch has no `input_ids`.
            ValueError: there is no model or tokenizer, or the batch does not fit them.
        """
        return self._predict(batch, self.max_new_tokens or 0)

    def _predict(self, batch: MLMBatch, new_tokens: int) -> MLMPredictionDict:
        started, seen = time.perf_counter(), self.samples_seen
        try:
            first = self._begin(batch, new_tokens)
            seconds = torch.zeros(len(first["x"]), dtype=torch.float64)
            for state in self._states(first):
                seconds[state["active"]] = time.perf_counter() - started
        except BaseException:
            # A batch that failed is no sample: tried again, it gets the same numbers.
            self.samples_seen = seen
            raise
        return self._results(state, new_tokens, seconds.tolist())

    def predict_iter(self, batch: MLMBatch) -> Iterator[MLMStepResults]:
        """Fill every mask of a batch, and yield the states as they come.

        Args:
            batch: as in `predict`.

        Returns:
            An iterator over the state before the first pass, then the state after each. They are
            not changed later, and may be kept; their tensors were made in inference mode, so clone
            what autograd is to use. The predictor serves one batch at a time: finish one iterator,
            or close it, before the next.

        Raises:
            KeyError: the batch has no `input_ids`.
            ValueError: there is no model or tokenizer, or the batch does not fit them.
        """
        return self._states(self._begin(batch, self.max_new_tokens or 0))

    def _begin(self, batch: MLMBatch, new_tokens: int) -> MLMStepResults:
        """The state before the first pass."""
        if self.model is None:
            raise ValueError("MLMPredictor has no model; pass model=..., or let the host set it")
        if not callable(self.model):
            raise ValueError(f"model is {shown(self.model)}; it must be a network")
        self.reset()
        state = begin(batch, self._mask_id(), new_tokens)
        state["sample_ids"] = self._sample_ids(batch, len(state["x"]))
        if self.history is not None:
            self.history.use_tokenizer(self.tokenizer)
            self.history.begin(state)
        return state

    def _states(self, state: MLMStepResults) -> Iterator[MLMStepResults]:
        yield state
        while not self.stop(state).all():
            last = state["current_step"] == self.max_steps - 1
            state = self.predict_single_step(state, final_step=last)
            if state["active"].any():
                self._record(state)
                yield state
        if self.history is not None:
            self.history.finalize()

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
        left = max(self.max_steps - step_results["current_step"], 1)
        with asking(self.model):
            return self._pass().run(step_results, 1 if final_step else left)

    def _pass(self) -> Pass:
        """What a pass needs, as the predictor's attributes are now."""
        mask_id = self._mask_id()
        network = Network(self.model, self.logits_hook, self.tokenizer, mask_id, self.rules)
        return Pass(self.rules, network, self.streams, self.history is not None)

    def _sample_ids(self, batch: MLMBatch, rows: int) -> Integer[Tensor, "B"]:
        given = batch.get("sample_ids")
        return self._count(rows) if given is None else checked_sample_ids(given, rows)

    def _count(self, rows: int) -> Integer[Tensor, "B"]:
        """Numbers for the next samples; of W processes, the one of rank r takes every W-th."""
        rank, world = Process.this()
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
