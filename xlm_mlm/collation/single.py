"""Collators for rows of one text each: pretraining, infilling, unconditional prediction."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Integer
from torch import Tensor

from xlm_mlm.collation.base import MLMCollator, special_ids
from xlm_mlm.collation.masking import masked_batch
from xlm_mlm.collation.padding import Framed, Truncate, fit_width, frame_right, size_limit
from xlm_mlm.collation.rows import (
    Ragged,
    check_rows,
    keep_first,
    lengths_of,
    pack,
    read_column,
)
from xlm_mlm.types_mlm import MLMBatch


class SingleSegmentCollator(MLMCollator):
    """Base of the collators whose rows read `[BOS] tokens [EOS]`, padded and cut on the right.

    Args:
        tokenizer: with mask and pad tokens, and BOS and EOS where they are added.
        block_size: positions of a row, BOS and EOS counted; a longer row is cut, and then has no
            EOS, for it did not end there.
        noise_schedule: kept for the host's protocol; the mask rate does not depend on it.
        loss_on_padding: whether padding is an ordinary token. If not, it is hidden from
            attention, never masked, and has the target -100 (the pad id when predicting).
        truncate: "block" gives exactly `block_size` columns, "max" as many as the longest row
            needs up to that, None as many as the longest row needs (`block_size` may be None).
        add_bos: begin each row with BOS.
        add_eos: end each row with EOS.
        generator: source of the random numbers; None for torch's global one.

    Raises:
        ValueError: an option is out of range, or the tokenizer lacks a token that is needed.
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
    ) -> None:
        super().__init__(tokenizer, block_size, noise_schedule, generator)
        self.loss_on_padding = loss_on_padding
        self.truncate = truncate
        self.add_bos = add_bos and self._framed
        self.add_eos = add_eos and self._framed
        self._limit = size_limit("block_size", block_size, truncate)
        self._ids = special_ids(tokenizer, self.add_bos, self.add_eos)
        if self._limit is not None and self._limit <= self.add_bos:
            raise ValueError(
                f"block_size is {block_size} and add_bos is True, which leaves no room for a "
                "token; block_size must be at least 2, or add_bos False"
            )

    def _read(self, examples: Sequence[Mapping[str, Any]], name: str) -> list[Any]:
        return check_rows(read_column(examples, name, self._name), name)

    def _cut(self, rows: list[Any], name: str) -> Ragged:
        limit = None if self._limit is None else self._limit - self.add_bos
        return pack(keep_first(rows, limit), name, self._ids.vocabulary)

    def _width(self, rows: list[Any]) -> int:
        extra = int(self.add_bos) + int(self.add_eos)
        return fit_width([n + extra for n in lengths_of(rows)], self._limit, self.truncate)

    def _frame(self, rows: Ragged, width: int) -> Framed:
        return frame_right(rows, width, self._ids.pad, self._ids.bos, self._ids.eos)

    def _visible(self, valid: Bool[Tensor, "B L"]) -> Bool[Tensor, "B L"]:
        return torch.ones_like(valid) if self.loss_on_padding else valid.contiguous()


class DefaultMLMCollator(SingleSegmentCollator):
    """Pretraining: every token may be masked, BOS and EOS included.

    Examples hold `input_ids`. Each row has a mask rate t ~ U[0, 1], and each token is masked with
    probability t; padding takes part only with `loss_on_padding=True`.
    """

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> MLMBatch:
        """Return `input_ids`, `attention_mask` and `target_ids`, each (B, L).

        Raises:
            ValueError: an empty batch or row, or something that is not token ids.
            KeyError: an example without `input_ids`.
        """
        rows = self._read(examples, "input_ids")
        ids, valid = self._frame(self._cut(rows, "input_ids"), self._width(rows))
        visible = self._visible(valid)
        return masked_batch(ids, visible, visible, self._ids.mask, self._random)


class _InfillCollator(SingleSegmentCollator):
    """Reads rows whose `prompt_ids` are their `input_ids` with masks over what is unknown."""

    def _read_pair(
        self, examples: Sequence[Mapping[str, Any]]
    ) -> tuple[Integer[Tensor, "B L"], Framed]:
        """Return the framed prompts, and the framed answers with where their tokens are."""
        prompts = self._read(examples, "prompt_ids")
        answers = self._read(examples, "input_ids")
        for i, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
            if len(prompt) != len(answer):
                raise ValueError(
                    f"row {i} of the batch has {len(prompt)} prompt_ids and {len(answer)} "
                    "input_ids; prompt_ids must be input_ids with some tokens replaced by the "
                    "mask token, so the two have one length"
                )
        width = self._width(answers)
        prompt_ids, _ = self._frame(self._cut(prompts, "prompt_ids"), width)
        answer = self._frame(self._cut(answers, "input_ids"), width)
        self._check_given(prompt_ids, answer.ids)
        return prompt_ids, answer

    def _check_given(self, prompts: Integer[Tensor, "B L"], answers: Tensor) -> None:
        wrong = (prompts != self._ids.mask) & (prompts != answers)
        if not wrong.any():
            return
        row, column = wrong.nonzero()[0].tolist()
        raise ValueError(
            f"row {row} of the batch gives token {int(prompts[row, column])} in prompt_ids where "
            f"input_ids have {int(answers[row, column])} (position {column - self.add_bos}); a "
            f"given token must equal the answer's, and an unknown one must be the mask token "
            f"({self._ids.mask})"
        )


class DefaultInfillMLMCollator(_InfillCollator):
    """Training of infilling: only the positions that `prompt_ids` marks may be masked.

    Examples hold `input_ids` and `prompt_ids`, of one length: the second is the first with the
    mask token at every position to be learnt. Each row has a mask rate t ~ U[0, 1], and each
    marked position is masked with probability t. Padding is never masked, with
    `loss_on_padding=True` either: there it is attended to, with the pad token as its target.
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
        prompts, (ids, valid) = self._read_pair(examples)
        marked = prompts == self._ids.mask
        batch = masked_batch(ids, self._visible(valid), marked, self._ids.mask, self._random)
        batch["fixed_positions_mask"] = ~marked
        return batch


class MLMInfillWithExactTargetPredCollator(_InfillCollator):
    """Prediction of infilling: the input is `prompt_ids` as they are, the target `input_ids`.

    No mask is added. Padding has the pad id in both, whatever `loss_on_padding` says, since the
    host decodes the targets; it is attended to with `loss_on_padding=True` only.
    """

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> MLMBatch:
        """Return `input_ids`, `attention_mask` and `target_ids`, each (B, L).

        Raises:
            ValueError: as in `DefaultInfillMLMCollator`.
            KeyError: an example without one of the fields.
        """
        prompts, (ids, valid) = self._read_pair(examples)
        return {
            "input_ids": prompts,
            "attention_mask": self._visible(valid),
            "target_ids": ids,
        }


class MLMUnconditionalPredCollator(SingleSegmentCollator):
    """Prediction from nothing but masks, as many as each example asks for.

    Examples hold `input_ids`, which are taken as they are and padded on the right; padding is
    hidden from attention. The arguments are those of `DefaultMLMCollator`, so that one config can
    serve both, but `add_bos`, `add_eos` and `loss_on_padding` have no effect: a model trained
    with BOS and EOS predicts them like any other token.
    """

    _framed = False

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> MLMBatch:
        """Return `input_ids`, `attention_mask` and `target_ids` (a copy), each (B, L).

        Raises:
            ValueError: an empty batch or row, or something that is not token ids.
            KeyError: an example without `input_ids`.
        """
        rows = self._read(examples, "input_ids")
        ids, valid = self._frame(self._cut(rows, "input_ids"), self._width(rows))
        return {
            "input_ids": ids,
            "attention_mask": valid.contiguous(),
            "target_ids": ids.clone(),
        }
