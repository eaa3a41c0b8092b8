"""The negative log-likelihood of tokens under a masked language model."""

from typing import Any

import torch
from jaxtyping import Bool, Float64, Integer
from torch import Tensor

from xlm_mlm.checks import require_int
from xlm_mlm.likelihood.draws import masks_of_pass, stratified_counts
from xlm_mlm.likelihood.rows import Rows
from xlm_mlm.modeling.modes import asking
from xlm_mlm.sampling.streams import SampleStreams
from xlm_mlm.types_mlm import MLMModel


def mlm_nll(
    model: MLMModel,
    input_ids: Integer[Tensor, "B L"],
    maskable: Bool[Tensor, "B L"],
    mask_id: int | Tensor,
    *,
    attention_mask: Tensor | None = None,
    positions: Integer[Tensor, "B L"] | None = None,
    segment_ids: Integer[Tensor, "B L"] | None = None,
    block_mask: Any | None = None,
    num_mc_samples: int = 8,
    seed: int = 0,
    sample_ids: Integer[Tensor, "B"] | None = None,
    batch_size: int | None = None,
) -> Float64[Tensor, "B"]:
    """Estimate the negative log-likelihood of each row, in nats, without bias.

    What is estimated is the mean, over all orders in which the N maskable tokens can be revealed
    one by one, of the negative log-likelihood in that order: an upper bound on that of the model
    that draws its order, exact where all orders agree (Ou et al., arXiv 2406.03736). It equals the
    mean over n ~ U{1..N} of N/n times the sum of -log p over n masked tokens, drawn uniformly. The
    `num_mc_samples` passes of a row spread their n evenly over 1..N, which about halves the
    variance of as many independent ones.

    The random numbers of a row depend on the seed, its number, the pass and the place alone:
    batch size, padding and the rows beside it change nothing.

    Args:
        model: any model of the `MLMModel` protocol; run in eval and inference mode, and given its
            mode back. One that takes `logits_at` projects masked positions only.
        input_ids: the tokens, none of them masked.
        maskable: True where a token is to be scored; the others are given.
        mask_id: the mask token's id.
        attention_mask: True where a token may be attended to, (B, L) or (B, L, L).
        positions: rotary positions.
        segment_ids: of packed batches, whose segments then do not see each other.
        block_mask: FlexAttention's, instead of `segment_ids`.
        num_mc_samples: passes a row; the standard deviation falls at least as their square root.
        seed: 0 to 2**64 - 1.
        sample_ids: number of each row, 0 or more; 0, 1, 2, ... if None.
        batch_size: rows in a forward pass at most, of all rows' passes together; B if None.

    Returns:
        On the CPU; 0 for a row with nothing to score, infinite where a token is impossible.

    Raises:
        ValueError: a shape, type or number that does not fit, or a mask token, or a token that is
            hidden, among those to be scored; or the model's logits are no distribution: NaN, +inf,
            or -inf alone.
    """
    num_mc_samples = require_int("num_mc_samples", num_mc_samples, 1)
    context = {"attention_mask": attention_mask, "positions": positions}
    packed = {"segment_ids": segment_ids, "block_mask": block_mask}
    rows = Rows(input_ids, maskable, mask_id, **context, **packed)
    ids, streams = _numbers(sample_ids, len(rows.ids)), SampleStreams(seed)
    counts = stratified_counts(rows.counts, num_mc_samples, streams, ids)
    masks = torch.zeros(len(ids), num_mc_samples, rows.ids.shape[1], dtype=torch.bool)
    for k in range(num_mc_samples if int(rows.counts.sum()) else 0):
        masks[:, k] = masks_of_pass(k, counts[:, k], rows.maskable, rows.places, streams, ids)
    weights = rows.counts[:, None] / (counts.clamp_min(1) * num_mc_samples).double()
    total = torch.zeros(len(ids), dtype=torch.float64)
    row, number = rows.copies((rows.counts > 0) * num_mc_samples)
    with asking(model):
        for part in rows.groups(model, counts[row, number], batch_size):
            shown = masks[row[part], number[part]]
            found = rows.log_probs(model, row[part], shown, shown)
            owner = shown.nonzero()[:, 0]
            terms = found * -weights[row[part], number[part]][owner]
            total.index_add_(0, row[part][owner], terms)
    return total


def _numbers(sample_ids: Tensor | None, rows: int) -> Integer[Tensor, "B"]:
    if sample_ids is None:
        return torch.arange(rows)
    if (
        not isinstance(sample_ids, Tensor)
        or tuple(sample_ids.shape) != (rows,)
        or sample_ids.is_floating_point()
        or sample_ids.dtype == torch.bool
        or (rows and int(sample_ids.min()) < 0)
    ):
        raise ValueError(
            f"sample_ids are {sample_ids!r:.80}; they must be a tensor of {rows} integers of at "
            "least 0, one a row"
        )
    return sample_ids.cpu().long()
