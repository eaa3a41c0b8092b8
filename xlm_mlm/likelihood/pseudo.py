"""Pseudo-log-likelihood: every token scored with all others visible."""

from typing import Any

import torch
from jaxtyping import Bool, Float64, Integer
from torch import Tensor

from xlm_mlm.likelihood.rows import Rows, check_shape
from xlm_mlm.modeling.modes import asking
from xlm_mlm.types_mlm import MLMModel


def pseudo_log_likelihood(
    model: MLMModel,
    input_ids: Integer[Tensor, "B L"],
    maskable: Bool[Tensor, "B L"],
    mask_id: int | Tensor,
    *,
    word_ids: Integer[Tensor, "B L"] | None = None,
    attention_mask: Tensor | None = None,
    positions: Integer[Tensor, "B L"] | None = None,
    segment_ids: Integer[Tensor, "B L"] | None = None,
    block_mask: Any | None = None,
    batch_size: int | None = None,
    per_token: bool = False,
) -> Float64[Tensor, "B"] | Float64[Tensor, "B L"]:
    """Sum over the tokens of log p(token | all others), in nats (Salazar et al., arXiv 1910.14659).

    A score for comparing texts, not a log-likelihood nor a bound on one: it counts what tokens
    tell about each other twice. One forward pass a token. The pieces of one word give each other
    away; with `word_ids` those to the right are masked as well (PLL-word-l2r: Kauf and Ivanova,
    arXiv 2305.10588).

    Args:
        model: as in `mlm_nll`, and so are the arguments that are not named here.
        input_ids: the tokens, none of them masked.
        maskable: True where a token is to be scored; the others are given and stay visible.
        mask_id: the mask token's id.
        word_ids: equal numbers in a row for tokens of one word.
        attention_mask: True where a token may be attended to.
        positions: rotary positions.
        segment_ids: of packed batches.
        block_mask: instead of `segment_ids`.
        batch_size: rows in a forward pass at most; B if None.
        per_token: return each token's log-probability, 0 where nothing is scored.

    Returns:
        On the CPU; 0 for a row with nothing to score.

    Raises:
        ValueError: as in `mlm_nll`.
    """
    context = {"attention_mask": attention_mask, "positions": positions}
    packed = {"segment_ids": segment_ids, "block_mask": block_mask}
    rows = Rows(input_ids, maskable, mask_id, **context, **packed)
    words = None
    if word_ids is not None:
        check_shape("word_ids", word_ids, [tuple(rows.ids.shape)])
        words = word_ids.cpu()
    scores = torch.zeros(rows.ids.shape, dtype=torch.float64)
    row, number = rows.copies(rows.counts)
    # The pass of number j scores the row's maskable position of rank j.
    rank = rows.maskable.long().cumsum(dim=1) - 1
    there = (number < rows.counts[row]).long() if len(row) else number
    with asking(model):
        for part in rows.groups(model, there, batch_size):
            of = row[part]
            scored = rows.maskable[of] & (rank[of] == number[part, None])
            hidden = scored if words is None else scored | _rest_of_word(rows, words, of, scored)
            found = rows.log_probs(model, of, hidden, scored)
            copy, column = scored.nonzero(as_tuple=True)
            scores[of[copy], column] = found
    return scores if per_token else scores.sum(dim=1)


def _rest_of_word(
    rows: Rows,
    words: Integer[Tensor, "B L"],
    of: Integer[Tensor, "M"],
    scored: Bool[Tensor, "M L"],
) -> Bool[Tensor, "M L"]:
    """What follows the scored token in its word; nothing in a copy that scores none."""
    column = scored.long().argmax(dim=1, keepdim=True)
    same = words[of] == words[of].gather(1, column)
    later = torch.arange(scored.shape[1]) > column
    return same & later & rows.maskable[of] & scored.any(dim=1, keepdim=True)
