"""Collators for rows of a prompt and the answer that continues it."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from xlm_mlm.checks import require_bool, require_field, require_int, shown
from xlm_mlm.collation.base import MLMCollator, special_ids
from xlm_mlm.collation.padding import (
    Truncate,
    check_truncate,
    fit_width,
    frame_left,
    frame_right,
)
from xlm_mlm.collation.pairs import (
    PairLayout,
    cut_answers,
    masked_pair,
    right_padded_batch,
    write_pair,
)
from xlm_mlm.collation.rows import (
    Ragged,
    check_ids,
    check_rows,
    keep_last,
    read_column,
    require_examples,
)
from xlm_mlm.collation.samples import with_sample_ids
from xlm_mlm.types_mlm import MLMBatch

DEFAULT_PASS_THROUGH = ("answer", "target")
"""Fields that prediction carries along where the examples have them."""

_OWN_FIELDS = {
    "input_ids",
    "attention_mask",
    "target_ids",
    "fixed_positions_mask",
    "elbo_weights",
    "sample_ids",
}


class MLMSeq2SeqTrainCollator(MLMCollator):
    """Training on `[prompt][BOS][suffix][EOS]`, padded on the right only.

    Examples hold `prompt_ids`, which may be empty, and the suffix in `target_ids`, or else in
    `input_ids`. Only the suffix's side is masked: each row has a mask rate t ~ U[0, 1] (unless
    `mask_sampling` says otherwise). Prompts are cut to `input_block_size` on the left, suffixes to
    `block_size` on the right (one that is cut has no EOS), so that a suffix always fits.

    Args:
        tokenizer: with mask and pad tokens, and BOS and EOS where they are added.
        noise_schedule: decides the mask rates, if it is one that draws times (see `MaskSampler`);
            the host's dummy and None leave them uniform.
        block_size: positions of the suffix, EOS counted.
        input_block_size: positions of the prompt, BOS not counted.
        add_bos: put BOS between prompt and suffix.
        add_eos: end the suffix with EOS.
        truncate: "block" gives `input_block_size` + BOS + `block_size` columns, "max" as many as
            the batch needs up to that, None as many as it needs, with nothing cut.
        loss_on_padding: with True, exactly `block_size` positions after each prompt and BOS (as
            many as the longest suffix of the batch needs, unless `truncate` is "block") are
            visible and may be masked, padding included; with False, the suffix and its EOS alone.
            What is not visible has the target -100.
        target_field: where the suffix is; only for the default is `input_ids` tried as well.
        generator: source of the random numbers; None for torch's global one.
        mask_sampling: "bernoulli", "stratified", "exact_count" or "complementary" (each row
            twice); see `MaskSampler`.

    Raises:
        ValueError: an option is missing or out of range, a schedule does not work or does not go
            with `mask_sampling`, or the tokenizer lacks a token.
    """

    _sizes_required = True

    def __init__(
        self,
        tokenizer: Any,
        noise_schedule: Any,
        block_size: int | None = None,
        input_block_size: int | None = None,
        add_bos: bool = True,
        add_eos: bool = True,
        truncate: Truncate = "block",
        loss_on_padding: bool = True,
        target_field: str = "target_ids",
        *,
        generator: torch.Generator | None = None,
        mask_sampling: str = "bernoulli",
    ) -> None:
        super().__init__(tokenizer, block_size, noise_schedule, generator, mask_sampling)
        self.add_bos = require_bool("add_bos", add_bos)
        self.add_eos = require_bool("add_eos", add_eos)
        self.truncate = check_truncate(truncate)
        self.loss_on_padding = require_bool("loss_on_padding", loss_on_padding)
        self.prompt_field = "prompt_ids"
        self.target_field = _check_field("target_field", target_field)
        self._ids = special_ids(tokenizer, add_bos, add_eos)
        self.block_size = self._size("block_size", block_size)
        self.input_block_size = self._size("input_block_size", input_block_size)
        cuts = self.truncate is not None
        self._answer_limit = self.block_size if cuts else None
        self._prompt_limit = self.input_block_size if cuts else None

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> MLMBatch:
        """Return `input_ids`, `attention_mask`, `target_ids`, `fixed_positions_mask`, all (B, L).

        `fixed_positions_mask` is False where a token may be masked.

        Raises:
            ValueError: an empty batch or suffix, or something that is not token ids.
            KeyError: an example without a prompt or suffix.
        """
        prompts, answers = self._prompts(examples), self._answers(examples)
        limit = None
        if self._answer_limit is not None and self._prompt_limit is not None:
            limit = self._prompt_limit + self.add_bos + self._answer_limit
        layout = self._layout(limit, self.block_size)
        return right_padded_batch(prompts, answers, layout, self._sampler)

    def _layout(self, limit: int | None, answer_limit: int | None) -> PairLayout:
        return PairLayout(self._ids, limit, answer_limit, self.truncate, self.loss_on_padding)

    def _size(self, name: str, size: int | None) -> int | None:
        """Check a size and return it."""
        if size is not None:
            return require_int(name, size, 1)
        if self._sizes_required:
            raise ValueError(
                f"{name} is None; {self._name} needs block_size (positions of the suffix) and "
                "input_block_size (positions of the prompt), both integers of at least 1"
            )
        return None

    def _prompts(self, examples: Sequence[Mapping[str, Any]]) -> Ragged:
        values = read_column(examples, self.prompt_field, self._name)
        return check_rows(values, self.prompt_field, allow_empty=True)

    def _answers(self, examples: Sequence[Mapping[str, Any]]) -> Ragged:
        return check_rows(self._suffixes(examples), self.target_field)

    def _suffixes(self, examples: Sequence[Mapping[str, Any]]) -> list[Any]:
        name = self.target_field
        other = "input_ids" if name == "target_ids" else name
        require_examples(examples, self._name)
        try:
            return [example[name if name in example else other] for example in examples]
        except (KeyError, TypeError, IndexError):
            return [self._suffix(example, i) for i, example in enumerate(examples)]

    def _suffix(self, example: Mapping[str, Any], index: int) -> Any:
        name = self.target_field
        if name == "target_ids" and name not in example and "input_ids" in example:
            name = "input_ids"
        return require_field(example, name, index, self._name)


class MLMSeq2SeqCollator(MLMSeq2SeqTrainCollator):
    """Training with the prompt padded on the left and the suffix on the right.

    All prompts end at one position, as they do in prediction. Fields and options are those of
    `MLMSeq2SeqTrainCollator`, and further:

    Args:
        prompt_field: where the prompt is.
        pass_through_fields: fields of the examples that the batch carries as lists; None for none.

    Raises:
        ValueError: as there, or a field to carry has the name of one that the batch has.
    """

    _default_pass_through: tuple[str, ...] = ()

    def __init__(
        self,
        tokenizer: Any,
        noise_schedule: Any,
        block_size: int | None = None,
        input_block_size: int | None = None,
        add_bos: bool = True,
        add_eos: bool = True,
        truncate: Truncate = "block",
        loss_on_padding: bool = True,
        target_field: str = "target_ids",
        prompt_field: str = "prompt_ids",
        pass_through_fields: Sequence[str] | None = None,
        *,
        generator: torch.Generator | None = None,
        mask_sampling: str = "bernoulli",
    ) -> None:
        super().__init__(
            tokenizer,
            noise_schedule,
            block_size,
            input_block_size,
            add_bos,
            add_eos,
            truncate,
            loss_on_padding,
            target_field,
            generator=generator,
            mask_sampling=mask_sampling,
        )
        self.prompt_field = _check_field("prompt_field", prompt_field)
        self.pass_through_fields = _check_pass_through(pass_through_fields)

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> MLMBatch:
        """Return `input_ids`, `attention_mask`, `target_ids`, `fixed_positions_mask`, all (B, L).

        `fixed_positions_mask` is False where a token may be masked.

        Raises:
            ValueError: an empty batch or suffix, or something that is not token ids.
            KeyError: an example without a prompt, suffix or field to carry.
        """
        prompts, answers = self._prompts(examples), self._answers(examples)
        layout = self._layout(None, self._answer_limit)
        kept, ended, room = cut_answers(answers, self._answer_limit, layout)
        before = self._prompt_width(prompts)
        cut = keep_last(prompts, self._prompt_limit)
        starts = before - self.add_bos - cut.lengths
        pair = write_pair(cut, kept, ended, starts, before + room, self._ids)
        positions = room if self.loss_on_padding else pair.answer_lengths
        batch = masked_pair(pair, positions, self._ids.mask, self._sampler)
        return self._carry(examples, batch)

    def _prompt_width(self, prompts: Ragged) -> int:
        """Columns up to where the answer begins, BOS counted."""
        return fit_width(prompts.lengths, self._prompt_limit, self.truncate) + self.add_bos

    def _carry(self, examples: Sequence[Mapping[str, Any]], batch: Any) -> Any:
        """Add the fields to be carried to the batch."""
        if self.pass_through_fields is not None:
            for name in self.pass_through_fields:
                values = [
                    require_field(example, name, i, self._name)
                    for i, example in enumerate(examples)
                ]
                batch[name] = self._sampler.repeat(values)
            return batch
        for name in self._default_pass_through:
            if any(name in example for example in examples):
                batch[name] = [example.get(name) for example in examples]
        return batch


class MLMSeq2SeqPredCollator(MLMSeq2SeqCollator):
    """Prediction: the input is the left-padded prompt with BOS, the target the suffix.

    Options are those of `MLMSeq2SeqCollator`, with these differences: `block_size=None` pads the
    targets to the longest suffix, `input_block_size=None` the prompts to the longest prompt, both
    uncut; `pass_through_fields=None` carries `answer` and `target` where examples have them;
    `loss_on_padding` and `mask_sampling` have no effect. An example may lack the suffix (unless
    `target_field` names one), or have an empty one.
    """

    _masks = False
    numbers_samples = True
    _sizes_required = False
    _default_pass_through = DEFAULT_PASS_THROUGH

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> MLMBatch:
        """Return `input_ids` and `attention_mask` (B, P) and `target_ids` (B, S).

        Targets read suffix and EOS, padded on the right with the pad id; `target_ids` is absent
        when every suffix is empty. And `sample_ids` (B,), where the examples have the field
        `sample_id`.

        Raises:
            ValueError: an empty batch, a prompt of no tokens without BOS, something that is not
                token ids, a batch in which some suffixes are empty and some not, or as in
                `sample_ids_of`.
            KeyError: an example without a prompt or field to carry.
        """
        prompts = self._prompts(examples)
        cut = keep_last(prompts, self._prompt_limit)
        if not self.add_bos and not cut.lengths.all():
            raise ValueError(
                f"{self.prompt_field} of row {cut.lengths.argmin()} of the batch is empty and "
                "add_bos is False; there must be at least one token to continue from"
            )
        ids, vocabulary = self._ids, self._ids.vocabulary
        framed = frame_left(cut, self._prompt_width(prompts), ids.pad, ids.bos)
        check_ids(framed.ids, vocabulary, cut)
        batch = {
            "input_ids": torch.from_numpy(framed.ids),
            "attention_mask": torch.from_numpy(framed.valid),
        }
        answers = self._known_answers(examples)
        if answers is not None:
            layout = self._layout(None, self._answer_limit)
            kept, _, width = cut_answers(answers, self._answer_limit, layout)
            targets = frame_right(kept, width, ids.pad, None, ids.eos).ids
            check_ids(targets, vocabulary, kept)
            batch["target_ids"] = torch.from_numpy(targets)
        return self._carry(examples, with_sample_ids(batch, examples))

    def _known_answers(self, examples: Sequence[Mapping[str, Any]]) -> Ragged | None:
        """The suffixes; None when every one is empty."""
        rows = check_rows(
            [[] if value is None else value for value in self._suffixes(examples)],
            self.target_field,
            allow_empty=True,
        )
        if not rows.lengths.any():
            return None
        if not rows.lengths.all():
            known = int((rows.lengths > 0).argmax())
            raise ValueError(
                f"row {rows.lengths.argmin()} of the batch has an empty suffix and row {known} has "
                f"one of {rows.lengths[known]} tokens; a batch must have the answers of all its "
                "rows or of none (batch them apart)"
            )
        return rows

    def _suffix(self, example: Mapping[str, Any], index: int) -> Any:
        if self.target_field == "target_ids" and not ({"target_ids", "input_ids"} & set(example)):
            return None
        return super()._suffix(example, index)


def _check_field(option: str, name: str) -> str:
    if not isinstance(name, str):
        raise ValueError(f"{option} is {shown(name)}; it must be the name of a field")
    return name


def _check_pass_through(fields: Sequence[str] | None) -> list[str] | None:
    if fields is None:
        return None
    names = isinstance(fields, Sequence) and not isinstance(fields, str | bytes)
    if not names or not all(isinstance(name, str) for name in fields):
        raise ValueError(
            f"pass_through_fields is {shown(fields)}; it must be a list of field names"
        )
    taken = sorted(set(fields) & _OWN_FIELDS)
    if taken:
        raise ValueError(
            f"pass_through_fields has {', '.join(taken)}, which the batch has already; carry "
            "other fields only"
        )
    return list(fields)
