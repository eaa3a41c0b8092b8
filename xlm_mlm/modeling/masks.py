"""Attention masks: validated, made safe for rows without a key, dense where no kernel exists."""

from typing import Any

import torch
from jaxtyping import Bool, Integer
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, create_mask

# Not a name that somebody else's mask function might have.
_SEGMENTS = "_xlm_mlm_segment_ids"


def segment_block_mask(segment_ids: Integer[Tensor, "B L"]) -> BlockMask:
    """FlexAttention mask in which a token sees its own segment only.

    Args:
        segment_ids: the segment of each token; built on the device it lives on.

    Returns:
        A `BlockMask` of shape (B, 1, L, L).
    """
    batch, length = segment_ids.shape

    def same_segment(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return segment_ids[b, q] == segment_ids[b, k]

    # So that a device without the kernel need not evaluate every pair (`segments_of`).
    setattr(same_segment, _SEGMENTS, segment_ids)
    return create_block_mask(
        same_segment, batch, None, length, length, device=str(segment_ids.device)
    )


def segments_of(block_mask: BlockMask) -> Integer[Tensor, "B L"] | None:
    """The segments behind a mask of `segment_block_mask`; None for a mask of another origin."""
    return getattr(block_mask.mask_mod, _SEGMENTS, None)


def dense_from_block_mask(
    block_mask: BlockMask, batch: int, length: int, device: torch.device
) -> Bool[Tensor, "B H L L"]:
    """Evaluate a `BlockMask` at every pair of positions, for devices without its kernel.

    The first two sizes are those of the `BlockMask` (1 where it broadcasts).
    """
    mask_batch, mask_heads = block_mask.shape[:2]
    dense = create_mask(
        block_mask.mask_mod, mask_batch, mask_heads, length, length, device=str(device)
    )
    return open_empty_rows(dense)


def check_block_mask(block_mask: Any, batch: int, length: int, heads: int) -> None:
    """Refuse a `BlockMask` that does not fit the input.

    Raises:
        ValueError: it was built for another length, batch size or number of heads.
    """
    if not isinstance(block_mask, BlockMask):
        raise ValueError(
            f"block_mask is a {type(block_mask).__name__}; it must be a FlexAttention BlockMask "
            "(a dense mask goes into attention_mask)"
        )
    mask_batch, mask_heads, queries, keys = block_mask.shape
    if (
        (queries, keys) != (length, length)
        or mask_batch not in (1, batch)
        or mask_heads not in (1, heads)
    ):
        raise ValueError(
            f"block_mask has shape {tuple(block_mask.shape)}; for an input of shape "
            f"({batch}, {length}) it must be (1 or {batch}, 1 or {heads}, {length}, {length})"
        )


def open_empty_rows(mask: Bool[Tensor, "*rows L"]) -> Bool[Tensor, "*rows L"]:
    """Let queries that may see no key at all see every key.

    Softmax over nothing is NaN; such queries are padding, so what they see has no meaning.
    """
    return mask | ~mask.any(dim=-1, keepdim=True)


def validity(attention_mask: Tensor, batch: int, length: int) -> Bool[Tensor, "B *Q L"]:
    """Check an attention mask and return it as booleans.

    Args:
        batch: B.
        length: L.
        attention_mask: (B, L) or (B, L, L), boolean or integers 0 and 1.

    Raises:
        ValueError: another shape, a floating type, or values other than 0 and 1.
    """
    if not isinstance(attention_mask, Tensor):
        raise ValueError(
            f"attention_mask is a {type(attention_mask).__name__}; it must be a tensor"
        )
    shape = tuple(attention_mask.shape)
    if shape not in ((batch, length), (batch, length, length)):
        raise ValueError(
            f"attention_mask has shape {shape}; for an input of shape ({batch}, {length}) it must "
            f"be ({batch}, {length}) or ({batch}, {length}, {length})"
        )
    if attention_mask.dtype == torch.bool:
        return attention_mask
    if attention_mask.is_floating_point() or attention_mask.is_complex():
        raise ValueError(
            f"attention_mask has dtype {attention_mask.dtype}; it must be bool (True = valid) or "
            "integers 0 and 1: an additive mask is not taken"
        )
    if host_checkable(attention_mask) and not ((attention_mask == 0) | (attention_mask == 1)).all():
        raise ValueError(
            f"attention_mask holds values from {int(attention_mask.min())} to "
            f"{int(attention_mask.max())}; integers must be 0 (hidden) or 1 (valid)"
        )
    return attention_mask != 0


WITHOUT_VALUES = "a tensor on the meta device, without values"


def fault_of_ids(ids: Any) -> str:
    """What keeps a value from being a tensor of integers in memory; empty for nothing.

    Tensors of other layouts raise errors of torch's own wherever they are looked at.
    """
    if not isinstance(ids, Tensor):
        return f"a {type(ids).__name__}"
    if ids.is_nested or ids.layout != torch.strided:
        return f"a {'nested' if ids.is_nested else 'sparse'} tensor"
    if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
        return f"a tensor of dtype {ids.dtype}"
    return WITHOUT_VALUES if ids.is_meta else ""


def host_checkable(tensor: Tensor) -> bool:
    """Whether looking at values is free: on the CPU, and not while a compiler traces.

    Elsewhere a look costs a synchronisation in every step, and out-of-range ids end in the
    device's own assertion.
    """
    return tensor.device.type == "cpu" and not torch.compiler.is_compiling()
