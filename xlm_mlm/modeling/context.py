"""What a forward pass needs to know of its batch, worked out once, before the first layer."""

from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor

from xlm_mlm.modeling.attention import AttentionContext
from xlm_mlm.modeling.masks import (
    check_block_mask,
    dense_from_block_mask,
    host_checkable,
    open_empty_rows,
    segments_of,
    validity,
)
from xlm_mlm.modeling.packing import Group, Packing, pack_rows, pack_segments, pays
from xlm_mlm.modeling.rotary import checked_positions, derived_positions, gather_tables


class Line(NamedTuple):
    """The tokens of a batch in one line, the order in which the layers see them.

    Attributes:
        tokens: their ids.
        context: what the layers share.
        at: places in the line of the positions that were asked for; None: all of them.
        packing: where the tokens went; None: they stand in row-major order.
    """

    tokens: Integer[Tensor, "N"]
    context: AttentionContext
    at: Integer[Tensor, "M"] | None
    packing: Packing | None

    def distinct(self) -> tuple[Integer[Tensor, "U"], Integer[Tensor, "N"] | None]:
        """The ids without repetition, and the place of each token's among them.

        Before the first layer a token's state is its embedding, and masks are many and alike. All
        ids and None where too few repeat to be worth it.
        """
        ids, repeats = self.tokens.unique(return_inverse=True)
        return (ids, repeats) if 2 * len(ids) <= len(repeats) else (self.tokens, None)

    def spread(self, states: Float[Tensor, "N D"], batch: int, length: int) -> Tensor:
        """Put the states of all tokens back into (B, L, D); zeros where a token was left out."""
        if self.packing is not None:
            everywhere = states.new_zeros(batch * length, states.shape[-1])
            states = everywhere.index_copy(0, self.packing.tokens, states)
        return states.view(batch, length, -1)


def lay_out(
    model: Any,
    x_t: Integer[Tensor, "B L"],
    attention_mask: Tensor | None,
    positions: Tensor | None,
    block_mask: Any | None,
    logits_at: Integer[Tensor, "M"] | None,
) -> Line:
    """Turn what the caller gave into a line of tokens and what attention needs.

    Raises:
        ValueError: a mask, positions or indices that do not fit the input, or `force_flash_attn`
            where FlashAttention cannot serve.
    """
    batch, length = x_t.shape
    if positions is not None:
        positions = checked_positions(positions, batch, length, model.max_length)
    valid = None
    if block_mask is not None:
        check_block_mask(block_mask, batch, length, model.nhead)
    elif attention_mask is not None:
        valid = validity(attention_mask, batch, length)
    if model.force_flash_attn:
        _check_flash(x_t, valid)
    if model.force_flash_attn or (
        valid is not None and host_checkable(valid) and bool(valid.all())
    ):
        valid = None
    # Only padding shifts positions; without it the tables are sliced, not gathered.
    if positions is None and valid is not None and valid.ndim == 2:
        positions = derived_positions(valid)
    packing = _packing(model, x_t, valid, block_mask, logits_at)
    at = logits_at
    if packing is not None:
        if positions is None:
            positions = torch.arange(length, device=x_t.device)[None]
        positions = positions.expand(batch, -1).flatten()[packing.tokens]
        at = None if logits_at is None else packing.places[logits_at]
        tokens, groups, mask, kernel = x_t.flatten()[packing.tokens], packing.groups, None, None
    else:
        tokens, groups = x_t.flatten(), (Group(batch, length),)
        mask, kernel = _masks(model, x_t, valid, block_mask)
    rotary = model.encoder[0].rotary_emb
    tables = gather_tables(rotary.cos, rotary.sin, length, positions)
    flash_only = model.force_flash_attn and block_mask is None
    return Line(tokens, AttentionContext(tables, groups, mask, kernel, flash_only), at, packing)


def _packing(
    model: Any,
    x_t: Integer[Tensor, "B L"],
    valid: Bool[Tensor, "B *L L"] | None,
    block_mask: Any | None,
    logits_at: Integer[Tensor, "M"] | None,
) -> Packing | None:
    """How to leave padding and other segments out of the work, where that pays; else None."""
    if not host_checkable(x_t):
        return None
    segments = None if block_mask is None else segments_of(block_mask)
    if segments is not None and segments.shape in (x_t.shape, (1, x_t.shape[1])):
        packing = pack_segments(segments.expand(x_t.shape))
    elif valid is not None and valid.ndim == 2 and bool(valid.any()):
        packing = pack_rows(valid)
    else:
        return None
    if not pays(packing, x_t.shape[1], model.embed_tokens.embedding_dim):
        return None
    if logits_at is not None and bool((packing.places[logits_at] < 0).any()):
        # Someone asks for what is hidden: it is computed as in a padded batch.
        return None
    return packing


def _masks(
    model: Any, x_t: Integer[Tensor, "B L"], valid: Tensor | None, block_mask: Any | None
) -> tuple[Bool[Tensor, "B H Q L"] | None, Any | None]:
    """A dense mask, or a `BlockMask` for the kernel, or neither."""
    if block_mask is not None:
        if model.use_flex_attn and x_t.device.type == "cuda":
            return None, block_mask
        # FlexAttention has no backward on the CPU: the same mask, densely.
        return dense_from_block_mask(block_mask, len(x_t), x_t.shape[1], x_t.device), None
    if valid is None:
        return None, None
    mask = open_empty_rows(valid)
    return (mask[:, None, None, :] if mask.ndim == 2 else mask[:, None]), None


def _check_flash(x_t: Tensor, valid: Tensor | None) -> None:
    if x_t.device.type != "cuda":
        raise ValueError(
            f"force_flash_attn=True needs a CUDA device, but the input is on {x_t.device}; "
            "build the model with force_flash_attn=False"
        )
    if valid is not None and not bool(valid.all()):
        raise ValueError(
            "force_flash_attn=True cannot hide padding, and "
            f"{int((~valid).sum())} positions of attention_mask are hidden; build the model with "
            "force_flash_attn=False, or use batches without padding"
        )
