"""The collator for blocks packed beforehand from several texts."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Integer

from xlm_mlm.checks import require_bool, require_int, require_token_id
from xlm_mlm.collation.base import MLMCollator, SpecialIds, vocabulary_of
from xlm_mlm.collation.masking import hide, targets_of
from xlm_mlm.collation.rows import check_ids, check_rows, read_column, write_rows
from xlm_mlm.collation.segments import split_at_eos
from xlm_mlm.types_mlm import PackedFlexMLMBatch


class PackedMLMCollator(MLMCollator):
    """Training on packed blocks: several texts in a row, each ending in EOS, attending to itself.

    Examples hold `input_ids`, all of one length. Each row has a mask rate t ~ U[0, 1], and each
    token is masked with probability t (unless `mask_sampling` says otherwise). Padding, which the
    host's packing leaves at the end of the last block unless told to drop it, is not masked and
    has the target -100.

    Args:
        tokenizer: with mask and EOS tokens.
        block_size: the length the blocks were packed to, the most a row may hold.
        noise_schedule: decides the mask rates, if it is one that draws times (see `MaskSampler`);
            the host's dummy and None leave them uniform.
        use_flex_attn: must be True: there is no other way to keep the texts of a block apart.
        generator: source of the random numbers; None for torch's global one.
        mask_sampling: "bernoulli", "stratified", "exact_count" or "complementary" (each row
            twice); see `MaskSampler`.

    Raises:
        ValueError: `use_flex_attn` is False, `block_size` is below 1, a schedule does not work or
            does not go with `mask_sampling`, a token is missing, or the mask token is also
            another.
    """

    def __init__(
        self,
        tokenizer: Any,
        block_size: int,
        noise_schedule: Any,
        use_flex_attn: bool = False,
        *,
        generator: torch.Generator | None = None,
        mask_sampling: str = "bernoulli",
    ) -> None:
        super().__init__(tokenizer, block_size, noise_schedule, generator, mask_sampling)
        if not require_bool("use_flex_attn", use_flex_attn):
            raise ValueError(
                f"use_flex_attn is {use_flex_attn!r}; packed blocks need it. Set "
                "use_flex_attn=True here and on the model, or use DefaultMLMCollator to let all "
                "tokens of a block attend to each other"
            )
        self.use_flex_attn = use_flex_attn
        self.block_size = require_int("block_size", block_size, 1)
        self._mask_id = require_token_id(tokenizer, "mask", "hide the tokens to be guessed")
        self._eos_id = require_token_id(tokenizer, "eos", "find where the texts of a block end")
        pad_id = getattr(tokenizer, "pad_token_id", None)
        pad = -1 if pad_id is None else pad_id
        self._ids = SpecialIds(
            pad, self._mask_id, None, self._eos_id, vocabulary_of(tokenizer)
        ).distinct(type(tokenizer).__name__)
        # Where padding is EOS (GPT-2), it cannot be told from the ends of texts.
        self._pad_id = None if pad_id == self._eos_id else pad_id

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> PackedFlexMLMBatch:
        """Return `input_ids`, `target_ids`, `positions` and `segment_ids`, each (B, L).

        Positions restart at 0 in each segment. There is no `attention_mask`: the loss builds a
        `BlockMask` from `segment_ids`.

        Raises:
            ValueError: an empty batch or row, something that is not token ids, rows of different
                lengths, or longer than `block_size`.
            KeyError: an example without `input_ids`.
        """
        rows = check_rows(read_column(examples, "input_ids", self._name), "input_ids")
        self._check_lengths(rows.lengths)
        ids = np.empty((len(rows.rows), int(rows.lengths[0])), dtype=np.int64)
        write_rows(ids, rows, 0)
        check_ids(ids, self._ids.vocabulary, rows)
        segments = split_at_eos(ids, self._eos_id)
        real = None if self._pad_id is None else ids != self._pad_id
        sampler, mask = self._sampler, self._mask_id
        masked, weights = sampler.draw(ids, real, mask)
        batch: PackedFlexMLMBatch = {
            "input_ids": torch.from_numpy(hide(sampler.repeat(ids), masked, mask)),
            "target_ids": torch.from_numpy(sampler.repeat(targets_of(ids, real, mask))),
            "positions": torch.from_numpy(sampler.repeat(segments.positions)),
            "segment_ids": torch.from_numpy(sampler.repeat(segments.segment_ids)),
        }
        if weights is not None:
            batch["elbo_weights"] = torch.from_numpy(weights)
        return batch

    def _check_lengths(self, lengths: Integer[np.ndarray, "B"]) -> None:
        shortest, longest = lengths.min(), lengths.max()
        if shortest != longest:
            raise ValueError(
                f"packed rows have lengths from {shortest} to {longest}; they must be blocks of "
                f"one length (block_size is {self.block_size}): pack the dataset, with drop_last"
            )
        if longest > self.block_size:
            raise ValueError(
                f"packed rows have length {longest}, more than block_size {self.block_size}; "
                "pack the dataset with the block_size of the collator"
            )
