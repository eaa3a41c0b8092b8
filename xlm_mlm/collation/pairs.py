"""The layout of a prompt and its answer in one row: `[prompt][BOS][answer][EOS]`."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int64, Integer

from xlm_mlm.checks import require_bool, require_int, shown
from xlm_mlm.collation.base import SpecialIds
from xlm_mlm.collation.mask_sampling import MaskSampler
from xlm_mlm.collation.masking import masked_batch
from xlm_mlm.collation.padding import (
    Truncate,
    fit_width,
    size_limit,
    span,
    write_token,
)
from xlm_mlm.collation.randomness import RandomSource
from xlm_mlm.collation.rows import (
    Ragged,
    check_ids,
    check_rows,
    count_of,
    keep_first,
    keep_last,
    write_rows,
)
from xlm_mlm.types_mlm import MLMBatch


class PairLayout(NamedTuple):
    """How rows of a prompt and an answer are laid out.

    Attributes:
        ids: the special tokens.
        limit: the most positions a row may take; None for no limit.
        answer_limit: the most positions of an answer and its EOS; None for what there is.
        truncate: see `fit_width`.
        loss_on_padding: whether the padding after an answer is part of it.
    """

    ids: SpecialIds
    limit: int | None
    answer_limit: int | None
    truncate: Truncate
    loss_on_padding: bool


class Pair(NamedTuple):
    """Rows holding a prompt and an answer each.

    Attributes:
        ids: the tokens, padding included.
        starts: column of the first token of each prompt.
        answer_starts: column after the prompt and its BOS.
        answer_lengths: tokens of each answer, EOS counted.
    """

    ids: Int64[np.ndarray, "B L"]
    starts: Integer[np.ndarray, "B"] | int
    answer_starts: Integer[np.ndarray, "B"]
    answer_lengths: Integer[np.ndarray, "B"]


def write_pair(
    prompts: Ragged,
    answers: Ragged,
    ended: Bool[np.ndarray, "B"],
    starts: Integer[np.ndarray, "B"] | int,
    width: int,
    ids: SpecialIds,
) -> Pair:
    """Write each prompt from its start, then BOS, the answer, and EOS where the answer `ended`."""
    rows = np.full((len(ended), width), ids.pad, dtype=np.int64)
    write_rows(rows, prompts, starts)
    answer_starts = starts + prompts.lengths
    if ids.bos is not None:
        write_token(rows, answer_starts, ids.bos)
        answer_starts = answer_starts + 1
    write_rows(rows, answers, answer_starts)
    lengths = answers.lengths
    if ids.eos is not None:
        # A column of -1 is none: an answer that was cut did not end here.
        write_token(rows, np.where(ended, answer_starts + lengths, -1), ids.eos)
        lengths = lengths + ended
    check_ids(rows, ids.vocabulary, prompts, answers)
    return Pair(rows, starts, answer_starts, lengths)


def masked_pair(
    pair: Pair, room: Integer[np.ndarray, "B"] | int, mask_id: int, sampler: MaskSampler
) -> MLMBatch:
    """Mask tokens on the answer's side.

    Args:
        pair: the rows.
        room: positions after each prompt (and BOS) that are visible and may be masked.
        mask_id: token that stands for a masked one.
        sampler: draws the masks.
    """
    width, ends = pair.ids.shape[1], pair.answer_starts + room
    visible = span(pair.starts, ends, width)
    eligible = span(pair.answer_starts, ends, width)
    return masked_batch(pair.ids, visible, eligible, mask_id, sampler, name_fixed=True)


def cut_answers(
    answers: Ragged, limit: int | None, layout: PairLayout
) -> tuple[Ragged, Bool[np.ndarray, "B"], int]:
    """Cut answers on the right.

    Returns:
        The answers, which of them have room for what follows them, and the positions of the
        answer's side in this batch, EOS counted.
    """
    lengths = answers.lengths
    whole = np.full(len(lengths), True) if limit is None else lengths < limit
    width = fit_width(lengths + (layout.ids.eos is not None), limit, layout.truncate)
    return keep_first(answers, limit), whole, width


def right_padded_batch(
    prompts: Ragged, answers: Ragged, layout: PairLayout, sampler: MaskSampler
) -> MLMBatch:
    """Lay out checked rows with all padding on the right, and mask the answer's side."""
    ids = layout.ids
    prompt_limit, answer_limit = _limits(answers.lengths, layout)
    kept, ended, room = cut_answers(answers, answer_limit, layout)
    cut_prompts = keep_last(prompts, prompt_limit)
    before = cut_prompts.lengths + (ids.bos is not None)
    taken = kept.lengths + (ended & (ids.eos is not None))
    shared = layout.loss_on_padding and layout.answer_limit is not None
    width = fit_width(before + (room if shared else taken), layout.limit, layout.truncate)
    pair = write_pair(cut_prompts, kept, ended, 0, width, ids)
    if not layout.loss_on_padding:
        return masked_pair(pair, pair.answer_lengths, ids.mask, sampler)
    return masked_pair(pair, room if shared else width - before, ids.mask, sampler)


def prepare_prefix_suffix_ids(
    prefix_ids: Sequence[Any],
    suffix_ids: Sequence[Any],
    pad_token_id: int,
    mask_token_id: int,
    eos_token_id: int | None = None,
    bos_token_id: int | None = None,
    max_seq_len: int | None = None,
    truncate: Truncate = "block",
    loss_on_padding: bool = True,
    suffix_block_size: int | None = None,
    *,
    generator: torch.Generator | None = None,
) -> MLMBatch:
    """Rows `[prefix][BOS][suffix][EOS]`, padded on the right, masked on the suffix's side.

    A suffix always finds room: prefixes are cut on the left, and a suffix is cut, on the right,
    only where it exceeds what it may have; it then has no EOS. A row has one mask rate
    t ~ U[0, 1]. What is hidden from attention has the target -100.

    Args:
        prefix_ids: the prompts; may be empty.
        suffix_ids: the answers, one a prompt.
        pad_token_id: token of the padding.
        mask_token_id: token that stands for a masked one.
        eos_token_id: token after the suffix; None for none.
        bos_token_id: token before the suffix; None for none.
        max_seq_len: positions of a row; needed unless `truncate` is None.
        truncate: "block" gives exactly `max_seq_len` columns, "max" as many as the longest row
            needs up to that, None as many as the longest row needs, with nothing cut.
        loss_on_padding: whether padding after the suffix is visible and may be masked.
        suffix_block_size: positions for suffix and EOS, the same after every prefix; the rest of
            `max_seq_len` is for the prefix and BOS. None lets a prefix have what the suffix
            leaves, and a row be visible up to its end.
        generator: source of the random numbers; None for torch's global one.

    Raises:
        ValueError: no rows, not one suffix a prefix, an empty suffix, rows that are not token
            ids, or sizes that are out of range or leave no room.
    """
    limit = size_limit("max_seq_len", max_seq_len, truncate)
    if suffix_block_size is not None:
        suffix_block_size = require_int("suffix_block_size", suffix_block_size, 1)
    require_bool("loss_on_padding", loss_on_padding)
    for name, rows in (("prefix_ids", prefix_ids), ("suffix_ids", suffix_ids)):
        if count_of(rows) is None:
            raise ValueError(f"{name} is {shown(rows)}; it must be a list of rows of token ids")
    if len(prefix_ids) == 0 or len(prefix_ids) != len(suffix_ids):
        raise ValueError(
            f"there are {len(prefix_ids)} prefix_ids and {len(suffix_ids)} suffix_ids; there must "
            "be at least one row, and one suffix for each prefix"
        )
    prefixes = check_rows(prefix_ids, "prefix_ids", allow_empty=True)
    suffixes = check_rows(suffix_ids, "suffix_ids")
    given = (pad_token_id, mask_token_id, bos_token_id, eos_token_id)
    checked: list[Any] = [
        None
        if value is None and name in ("bos", "eos")
        else require_int(f"{name}_token_id", value, 0)
        for name, value in zip(("pad", "mask", "bos", "eos"), given, strict=True)
    ]
    ids = SpecialIds(*checked).distinct("the call")
    layout = PairLayout(ids, limit, suffix_block_size, truncate, loss_on_padding)
    sampler = MaskSampler("bernoulli", None, RandomSource(generator))
    return right_padded_batch(prefixes, suffixes, layout, sampler)


def _limits(
    answer_lengths: Integer[np.ndarray, "B"], layout: PairLayout
) -> tuple[Integer[np.ndarray, "B"] | int | None, int | None]:
    """The most tokens each prompt and each answer may keep."""
    if layout.limit is None:
        return None, None
    lead, tail = layout.ids.bos is not None, layout.ids.eos is not None
    least = layout.answer_limit or 1
    room = layout.limit - lead
    if room < least:
        raise ValueError(
            f"rows may take {layout.limit} positions, but BOS ({int(lead)}) and the answer "
            f"({least}) take {lead + least}; raise max_seq_len or lower suffix_block_size"
        )
    if layout.answer_limit is not None:
        return room - least, least
    return room - np.minimum(answer_lengths + tail, room), room
