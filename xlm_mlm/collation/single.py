"""Collators for rows of one text each: pretraining, infilling, unconditional prediction."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int64

from xlm_mlm.checks import require_bool
from xlm_mlm.collation.base import MLMCollator, special_ids
from xlm_mlm.collation.masking import masked_batch
from xlm_mlm.collation.padding import Framed, Truncate, fit_width, frame_right, size_limit
from xlm_mlm.collation.rows import Ragged, check_ids, check_rows, keep_first, read_column
from xlm_mlm.collation.samples import with_sample_ids
from xlm_mlm.types_mlm import MLMBatch


class SingleSegmentCollator(MLMCollator):
    """Base of the collators whose rows read `[BOS] tokens [EOS]`, padded and cut on the right.

    Args:
        tokenizer: with mask and pad tokens, and BOS and EOS where they are added.
        block_size: positions of a row, BOS and EOS counted; a longer row is cut, and then has no
            EOS, for it did not end there.
        noise_schedule: decides the mask rates of training, if it is one that draws times (see
            `MaskSampler`); the host's dummy and None leave them uniform.
        loss_on_padding: whether padding is an ordinary token. If not, it is hidden from
            attention, never masked, and has the target -100 (the pad id when predicting).
        truncate: "block" gives exactly `block_size` columns, "max" as many as the longest row
            needs up to that, None as many as the longest row needs (`block_size` may be None).
        add_bos: begin each row with BOS.
        add_eos: end each row with EOS.
        generator: source of the random numbers; None for torch's global one.
        mask_sampling: how training draws its masks: "bernoulli", "stratified", "exact_count" or
            "complementary" (each row twice); see `MaskSampler`.

    Raises:
        ValueError: an option is out of range, a schedule does not work or does not go with
            `mask_sampling`, or the tokenizer lacks a token that is needed.
    """

    # Whether rows get BOS and EOS at all.
    _framed = True

    def __init__(
        self,
        tokenizer: Any,
        block_size: int | None,
        noise_schedule: Any,
        loss_on_padding: bool = True,
        truncate: Truncate = "block",
        add_bos: bool = True,
        add_eos: bool = True,
        *,
        generator: torch.Generator | None = None,
        mask_sampling: str = "bernoulli",
    ) -> None:
        super().__init__(tokenizer, block_size, noise_schedule, generator, mask_sampling)
        self.loss_on_padding = require_bool("loss_on_padding", loss_on_padding)
        self.truncate = truncate
        self.add_bos = require_bool("add_bos", add_bos) and self._framed
        self.add_eos = require_bool("add_eos", add_eos) and self._framed
        self._limit = size_limit("block_size", block_size, truncate)
        if self._limit is not None:
            self.block_size = self._limit
        self._ids = special_ids(tokenizer, self.add_bos, self.add_eos)
        if self._limit is not None and self._limit <= self.add_bos:
            raise ValueError(
                f"block_size is {block_size} and add_bos is True, which leaves no room for a "
                "token; block_size must be at least 2, or add_bos False"
            )

    def _read(self, examples: Sequence[Mapping[str, Any]], name: str) -> Ragged:
        return check_rows(read_column(examples, name, self._name), name)

    def _frame(self, rows: Ragged) -> Framed:
        extra = int(self.add_bos) + int(self.add_eos)
        width = fit_width(rows.lengths + extra, self._limit, self.truncate)
        kept = keep_first(rows, None if self._limit is None else self._limit - self.add_bos)
        framed = frame_right(kept, width, self._ids.pad, self._ids.bos, self._ids.eos)
        check_ids(framed.ids, self._ids.vocabulary, kept)
        return framed

    def _visible(self, framed: Framed) -> Bool[np.ndarray, "B L"] | None:
        """Where tokens may be attended to; None for everywhere."""
        return None if self.loss_on_padding else framed.valid


class DefaultMLMCollator(SingleSegmentCollator):
    """Pretraining: every token may be masked, BOS and EOS included.

    Examples hold `input_ids`. Each row has a mask rate t ~ U[0, 1], and each token is masked with
    probability t (unless `mask_sampling` says otherwise); padding takes part only with
    `loss_on_padding=True`.
    """

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> MLMBatch:
        """Return `input_ids`, `attention_mask` and `target_ids`, each (B, L).

        Raises:
            ValueError: an empty batch or row, or something that is not token ids.
            KeyError: an example without `input_ids`.
        """
        framed = self._frame(self._read(examples, "input_ids"))
        visible = self._visible(framed)
        return masked_batch(framed.ids, visible, visible, self._ids.mask, self._sampler)


class _InfillCollator(SingleSegmentCollator):
    """Reads rows whose `prompt_ids` are their `input_ids` with masks over what is unknown."""

    def _read_pair(
        self, examples: Sequence[Mapping[str, Any]]
    ) -> tuple[Int64[np.ndarray, "B L"], Framed]:
        """Return the framed prompts, and the framed answers with where their tokens are."""
        prompts = self._read(examples, "prompt_ids")
        answers = self._read(examples, "input_ids")
        unequal = np.flatnonzero(prompts.lengths != answers.lengths)
        if len(unequal):
            i = unequal[0]
            raise ValueError(
                f"row {i} of the batch has {prompts.lengths[i]} prompt_ids and "
                f"{answers.lengths[i]} input_ids; prompt_ids must be input_ids with some tokens "
                "replaced by the mask token, so the two have one length"
            )
        prompt_ids, answer = self._frame(prompts).ids, self._frame(answers)
        self._check_given(prompt_ids, answer.ids)
        return prompt_ids, answer

    def _check_given(
        self, prompts: Int64[np.ndarray, "B L"], answers: Int64[np.ndarray, "B L"]
    ) -> None:
        wrong = (prompts != self._ids.mask) & (prompts != answers)
        if not wrong.any():
            return
        row, column = np.argwhere(wrong)[0]
        raise ValueError(
            f"row {row} of the batch gives token {prompts[row, column]} in prompt_ids where "
            f"input_ids have {answers[row, column]} (position {column - self.add_bos}); a "
            f"given token must equal the answer's, and an unknown one must be the mask token "
            f"({self._ids.mask})"
        )


class DefaultInfillMLMCollator(_InfillCollator):
    """Training of infilling: only the positions that `prompt_ids` marks may be masked.

    Examples hold `input_ids` and `prompt_ids`, of one length: the second is the first with the
    mask token at every position to be learnt. Each row has a mask rate t ~ U[0, 1], and each
    marked position is masked with probability t (unless `mask_sampling` says otherwise). Padding is
    never masked, with `loss_on_padding=True` either: there it is attended to, with the pad token as
    its target.
    """

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> MLMBatch:
        """Return `input_ids`, `attention_mask`, `target_ids`, `fixed_positions_mask`, all (B, L).

        `fixed_positions_mask` is False where `prompt_ids` has a mask and True everywhere else:
        given tokens, BOS, EOS, padding.

        Raises:
            ValueError: an empty batch or row, something that is not token ids, prompts and
                answers of different lengths, or a given token that contradicts the answer.
            KeyError: an example without one of the fields.
        """
        prompts, answer = self._read_pair(examples)
        marked = prompts == self._ids.mask
        visible = self._visible(answer)
        mask = self._ids.mask
        return masked_batch(answer.ids, visible, marked, mask, self._sampler, name_fixed=True)


class MLMInfillWithExactTargetPredCollator(_InfillCollator):
    """Prediction of infilling: the input is `prompt_ids` as they are, the target `input_ids`.

    No mask is added, whatever `mask_sampling` says. Padding has the pad id in both, whatever
    `loss_on_padding` says, since the host decodes the targets; it is attended to with
    `loss_on_padding=True` only.
    """

    _masks = False
    numbers_samples = True

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> MLMBatch:
        """Return `input_ids`, `attention_mask` and `target_ids`, each (B, L).

        And `sample_ids` (B,), where the examples have the field `sample_id`.

        Raises:
            ValueError: as in `DefaultInfillMLMCollator` and `sample_ids_of`.
            KeyError: an example without one of the fields.
        """
        prompts, answer = self._read_pair(examples)
        visible = self._visible(answer)
        batch = {
            "input_ids": torch.from_numpy(prompts),
            "attention_mask": torch.from_numpy(
                np.full(prompts.shape, True) if visible is None else visible
            ),
            "target_ids": torch.from_numpy(answer.ids),
        }
        return with_sample_ids(batch, examples)


class MLMUnconditionalPredCollator(SingleSegmentCollator):
    """Prediction from nothing but masks, as many as each example asks for.

    Examples hold `input_ids`, which are taken as they are and padded on the right; padding is
    hidden from attention. The arguments are those of `DefaultMLMCollator`, so that one config can
    serve both, but `add_bos`, `add_eos`, `loss_on_padding` and `mask_sampling` have no effect: a
    model trained with BOS and EOS predicts them like any other token.
    """

    _masks = False
    numbers_samples = True
    _framed = False

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> MLMBatch:
        """Return `input_ids`, `attention_mask` and `target_ids` (a copy), each (B, L).

        And `sample_ids` (B,), where the examples have the field `sample_id`.

        Raises:
            ValueError: an empty batch or row, something that is not token ids, or as in
                `sample_ids_of`.
            KeyError: an example without `input_ids`.
        """
        framed = self._frame(self._read(examples, "input_ids"))
        ids = torch.from_numpy(framed.ids)
        batch = {
            "input_ids": ids,
            "attention_mask": torch.from_numpy(framed.valid),
            "target_ids": ids.clone(),
        }
        return with_sample_ids(batch, examples)
