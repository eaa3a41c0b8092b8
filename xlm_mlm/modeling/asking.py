"""What a forward pass may be asked for: positions, their targets and weights; checked."""

import math

import torch
from jaxtyping import Integer
from torch import Tensor

from xlm_mlm.modeling.masks import host_checkable
from xlm_mlm.types_mlm import IGNORE_INDEX


def check_logits_at(logits_at: Tensor, positions: int) -> None:
    """Refuse what is no list of flat indices below `positions` (looked for on the CPU only)."""
    if not isinstance(logits_at, Tensor) or logits_at.ndim != 1 or logits_at.dtype != torch.long:
        raise ValueError(
            f"logits_at is {logits_at!r:.80}; it must be a flat tensor of int64 indices into "
            "batch x length"
        )
    if logits_at.numel() and host_checkable(logits_at):
        low, high = int(logits_at.min()), int(logits_at.max())
        if low < 0 or high >= positions:
            raise ValueError(
                f"logits_at holds indices from {low} to {high}; batch x length is {positions}, so "
                f"valid ones are 0 to {positions - 1}"
            )


def check_target_weights(weights: Tensor | None, targets: Tensor | None) -> None:
    """Refuse weights that are not one for each target, or (on the CPU only) not finite."""
    if weights is None:
        return
    if not isinstance(weights, Tensor) or weights.is_complex():
        raise ValueError(f"target_weights are {weights!r:.80}; they must be a tensor of numbers")
    # Of another shape they would broadcast, and count every term several times.
    if targets is None or weights.shape != targets.shape:
        asked = "None" if targets is None else f"of shape {tuple(targets.shape)}"
        raise ValueError(
            f"target_weights have shape {tuple(weights.shape)} and targets are {asked}; there must "
            "be one weight for each target"
        )
    # A sum is quicker to look at; it may overflow, too.
    if not host_checkable(weights) or math.isfinite(weights.sum()):
        return
    if count := int((~weights.isfinite()).sum()):
        raise ValueError(
            f"target_weights hold {count} of {weights.numel()} that are NaN or infinite; they must "
            "be finite"
        )


def check_targets(targets: Integer[Tensor, "N"], logits_at: Tensor | None, vocabulary: int) -> None:
    """Refuse targets that cannot be scored.

    Raises:
        ValueError: not one for each position of `logits_at`, or (looked for on the CPU only)
            outside the vocabulary.
    """
    if not isinstance(targets, Tensor) or targets.dtype != torch.long:
        raise ValueError(f"targets are {targets!r:.80}; they must be a tensor of int64 token ids")
    if logits_at is None or targets.shape != logits_at.shape:
        asked = "None" if logits_at is None else f"of shape {tuple(logits_at.shape)}"
        raise ValueError(
            f"targets have shape {tuple(targets.shape)} and logits_at is {asked}; there must be "
            "one target for each position asked for"
        )
    check_target_ids(targets, vocabulary)


def check_target_ids(targets: Integer[Tensor, "N"], vocabulary: int) -> None:
    """Refuse targets outside the vocabulary (looked for on the CPU only).

    Raises:
        ValueError: there are some.
    """
    if not targets.numel() or not host_checkable(targets):
        return
    low, high = int(targets.min()), int(targets.max())
    if low < 0 or high >= vocabulary:
        raise ValueError(
            f"target id {high if high >= vocabulary else low} is outside the vocabulary of "
            f"{vocabulary}; a position that is not to count has the target {IGNORE_INDEX}"
        )
