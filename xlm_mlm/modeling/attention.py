"""Self-attention over a host layer's weights, for all positions or for some queries only."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Integer
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import flex_attention
from xlm.modules.rotary_transformer import RotaryTransformerLayer

from xlm_mlm.modeling.masks import (
    check_block_mask,
    dense_from_block_mask,
    host_checkable,
    open_empty_rows,
    validity,
)
from xlm_mlm.modeling.rotary import RotaryTables, rotate


class AttentionContext(NamedTuple):
    """What every layer of one forward pass shares.

    Attributes:
        tables: rotary angles of every position.
        mask: True where a query (dim 2) may see a key (dim 3); None: it sees all.
        block_mask: set when FlexAttention's kernel evaluates the mask instead.
        flash_only: allow no kernel but FlashAttention.
    """

    tables: RotaryTables
    mask: Bool[Tensor, "B H Q L"] | None
    block_mask: Any | None
    flash_only: bool


class Queries(NamedTuple):
    """Some positions of a batch, laid out as a grid of one line a row.

    Attributes:
        flat: row-major indices into B x L.
        rows: the row of each.
        columns: the column of each.
        slots: the place of each in its row's line of the grid.
        width: length of the grid's lines: the most positions any row has.
    """

    flat: Integer[Tensor, "N"]
    rows: Integer[Tensor, "N"]
    columns: Integer[Tensor, "N"]
    slots: Integer[Tensor, "N"]
    width: int


def lay_out_queries(flat: Integer[Tensor, "N"], batch: int, length: int) -> Queries:
    """Sort positions into lines; costs a look at the counts, so for the CPU only."""
    rows = flat.div(length, rounding_mode="floor")
    order = rows.argsort(stable=True)
    counts = torch.bincount(rows, minlength=batch)
    starts = counts.cumsum(0) - counts
    slots = torch.empty_like(flat)
    slots[order] = torch.arange(flat.numel(), device=flat.device) - starts[rows[order]]
    return Queries(flat, rows, flat - rows * length, slots, int(counts.max()))


def prepare_mask(
    attention_mask: Tensor | None,
    block_mask: Any | None,
    x_t: Integer[Tensor, "B L"],
    *,
    heads: int,
    use_flex_attn: bool,
    force_flash_attn: bool,
) -> tuple[Tensor | None, Any | None]:
    """Turn what the caller gave into a dense mask or a `BlockMask` for the kernel.

    Returns:
        (dense mask or None, `BlockMask` or None); at most one of them is set.

    Raises:
        ValueError: a mask that does not fit the input, or `force_flash_attn` where
            FlashAttention cannot serve.
    """
    batch, length = x_t.shape
    if force_flash_attn and x_t.device.type != "cuda":
        raise ValueError(
            f"force_flash_attn=True needs a CUDA device, but the input is on {x_t.device}; "
            "build the model with force_flash_attn=False"
        )
    if block_mask is not None:
        if use_flex_attn and x_t.device.type == "cuda":
            check_block_mask(block_mask, batch, length, heads)
            return None, block_mask
        # FlexAttention has no backward on the CPU: the same mask, densely.
        return dense_from_block_mask(block_mask, batch, length, x_t.device, heads), None
    valid = None if attention_mask is None else validity(attention_mask, batch, length)
    if force_flash_attn:
        _check_flash(valid)
        return None, None
    if valid is None or (host_checkable(valid) and bool(valid.all())):
        return None, None
    mask = open_empty_rows(valid)
    return (mask[:, None, None, :] if mask.ndim == 2 else mask[:, None]), None


def _check_flash(valid: Tensor | None) -> None:
    if valid is not None and not bool(valid.all()):
        raise ValueError(
            "force_flash_attn=True cannot hide padding, and "
            f"{int((~valid).sum())} positions of attention_mask are hidden; build the model with "
            "force_flash_attn=False, or use batches without padding"
        )


@functools.cache
def _flex_kernel() -> Callable[..., Tensor]:
    # Uncompiled, FlexAttention materialises all scores; compiled once a process.
    return torch.compile(flex_attention)


def attend(
    layer: RotaryTransformerLayer,
    x: Float[Tensor, "B L D"],
    context: AttentionContext,
) -> Float[Tensor, "B L D"]:
    """Attention of one layer at every position, before the output projection."""
    batch, length, width = x.shape
    qkv = layer.attn_qkv(x).view(batch, length, 3, layer.n_heads, layer.head_dim)
    qk, v = qkv[:, :, :2].permute(2, 0, 3, 1, 4), qkv[:, :, 2].transpose(1, 2)
    q, k = rotate(qk, context.tables).unbind(0)
    if context.block_mask is not None:
        out = _flex_kernel()(q, k, v, block_mask=context.block_mask)
    else:
        out = _sdpa(layer, q, k, v, context.mask, context)
    return out.transpose(1, 2).reshape(batch, length, width)


def attend_from(
    layer: RotaryTransformerLayer,
    x: Float[Tensor, "B L D"],
    queries: Queries,
    context: AttentionContext,
) -> Float[Tensor, "N D"]:
    """Attention of one layer at some positions only: keys and values of all, queries of those."""
    batch, length, width = x.shape
    heads, head_dim = layer.n_heads, layer.head_dim
    weight = layer.attn_qkv.weight
    kv = F.linear(x, weight[width:]).view(batch, length, 2, heads, head_dim)
    k, v = kv.permute(2, 0, 3, 1, 4).unbind(0)
    k = rotate(k, context.tables)

    q = F.linear(x.reshape(-1, width)[queries.flat], weight[:width])
    cos, sin = (_pick(table[:, 0], queries) for table in context.tables)
    # Rotated as N "positions" of one row, then laid out in lines.
    q = rotate(q.view(-1, heads, head_dim).transpose(0, 1), (cos, sin)).transpose(0, 1)
    grid = q.new_zeros(batch, queries.width, heads, head_dim)
    grid = grid.index_put((queries.rows, queries.slots), q)

    mask = context.mask
    if mask is not None and mask.shape[2] > 1:
        lines = mask.new_ones(batch, mask.shape[1], queries.width, length)
        source = mask.expand(batch, -1, -1, -1)[queries.rows, :, queries.columns]
        lines[queries.rows, :, queries.slots] = source
        mask = lines
    out = _sdpa(layer, grid.transpose(1, 2), k, v, mask, context)
    return out.transpose(1, 2)[queries.rows, queries.slots].reshape(-1, width)


def _pick(table: Float[Tensor, "B L R"], queries: Queries) -> Float[Tensor, "N R"]:
    rows = queries.rows if table.shape[0] > 1 else torch.zeros_like(queries.rows)
    return table[rows, queries.columns]


def _sdpa(
    layer: RotaryTransformerLayer,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    context: AttentionContext,
) -> Tensor:
    dropout = layer.dropout if layer.training else 0.0
    if context.flash_only:
        with sdpa_kernel([SDPBackend.FLASH_ATTENTION]):
            return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)
