"""Rows and their masks put together: what the model sees, and what it has to guess."""

import numpy as np
import torch
from jaxtyping import Bool, Int64

from xlm_mlm.collation.mask_sampling import MaskSampler
from xlm_mlm.types_mlm import IGNORE_INDEX, MLMBatch


def masked_batch(
    ids: Int64[np.ndarray, "B L"],
    visible: Bool[np.ndarray, "B L"] | None,
    eligible: Bool[np.ndarray, "#B L"] | None,
    mask_id: int,
    sampler: MaskSampler,
    name_fixed: bool = False,
) -> MLMBatch:
    """Mask some tokens of a padded batch.

    Args:
        ids: the tokens, padding included.
        visible: True where a token may be attended to; elsewhere the target is -100, as it is
            where the data themselves hold the mask token. None for everywhere.
        eligible: True where a token may be masked; within `visible`. None for everywhere.
        mask_id: token that stands for a masked one.
        sampler: draws the masks.
        name_fixed: whether the batch says which positions are never masked, as it must where the
            targets do not: some that are known are not eligible.
    """
    masked, weights = sampler.draw(ids, eligible, mask_id)
    attended = np.ones_like(masked) if visible is None else sampler.repeat(visible)
    batch: MLMBatch = {
        "input_ids": torch.from_numpy(hide(sampler.repeat(ids), masked, mask_id)),
        "attention_mask": torch.from_numpy(attended),
        "target_ids": torch.from_numpy(sampler.repeat(targets_of(ids, visible, mask_id))),
    }
    if name_fixed and eligible is not None:
        fixed = np.empty_like(masked)
        # The copies of a row one below the other; one row of `eligible` may stand for all.
        np.logical_not(eligible, out=fixed.reshape(-1, *ids.shape))
        batch["fixed_positions_mask"] = torch.from_numpy(fixed)
    if weights is not None:
        batch["elbo_weights"] = torch.from_numpy(weights)
    return batch


def hide(
    ids: Int64[np.ndarray, "B L"], masked: Bool[np.ndarray, "B L"], mask_id: int
) -> Int64[np.ndarray, "B L"]:
    """A copy with the mask token where `masked`.

    By arithmetic, as a choice at each of many random places takes a processor three times as long.
    """
    hidden = ids - mask_id
    hidden *= ~masked
    hidden += mask_id
    return hidden


def targets_of(
    ids: Int64[np.ndarray, "B L"], visible: Bool[np.ndarray, "B L"] | None, mask_id: int
) -> Int64[np.ndarray, "B L"]:
    """The tokens, with -100 where they are not visible or no token is known.

    `ids` itself where that is nowhere.
    """
    # A mask that is in the data already hides a token nobody knows.
    hidden = ids == mask_id
    if visible is not None:
        hidden |= ~visible
    return np.where(hidden, IGNORE_INDEX, ids) if hidden.any() else ids
