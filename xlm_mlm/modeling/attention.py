"""Self-attention over a host layer's weights, for all tokens or for some queries only."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Integer
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import flex_attention
from xlm.modules.rotary_transformer import RotaryTransformerLayer

from xlm_mlm.modeling.dropout import dropout
from xlm_mlm.modeling.masks import host_checkable
from xlm_mlm.modeling.packing import Group
from xlm_mlm.modeling.rotary import RotaryTables, rotate


class AttentionContext(NamedTuple):
    """What every layer of one forward pass shares. The tokens of a pass lie in one line of N.

    Attributes:
        tables: rotary angles of every token, or of every column where all rows share them.
        groups: the rectangles of sequences that the N tokens make up, one after the other.
        mask: True where a query (dim 2) may see a key (dim 3); None: it sees its whole sequence.
            With a mask there is one group, the padded batch.
        block_mask: set when FlexAttention's kernel evaluates the mask instead.
        flash_only: allow no kernel but FlashAttention.
    """

    tables: RotaryTables
    groups: tuple[Group, ...]
    mask: Bool[Tensor, "B H Q L"] | None = None
    block_mask: Any | None = None
    flash_only: bool = False


class Queries(NamedTuple):
    """Some of the tokens, laid out as a grid of one line a sequence; lines of a group are equal.

    Attributes:
        at: their places in the line of N.
        rows: the sequence of each.
        columns: the place of each in its sequence.
        slots: the place of each in its sequence's line of the grid.
        cells: the place of each in the grid, line after line.
        widths: length of the lines in each group: the most queries that any sequence of it has.
    """

    at: Integer[Tensor, "M"]
    rows: Integer[Tensor, "M"]
    columns: Integer[Tensor, "M"]
    slots: Integer[Tensor, "M"]
    cells: Integer[Tensor, "M"]
    widths: list[int]


def lay_out_queries(at: Integer[Tensor, "M"], groups: tuple[Group, ...]) -> Queries:
    """Sort tokens into lines; costs a look at the counts, so for the CPU only."""
    counted = torch.tensor(groups, device=at.device)
    sequences, lengths = counted[:, 0], counted[:, 1].repeat_interleave(counted[:, 0])
    ends = lengths.cumsum(0)
    rows = torch.searchsorted(ends, at, right=True)
    counts = torch.bincount(rows, minlength=len(lengths))
    order = rows.argsort(stable=True)
    slots = torch.empty_like(at)
    slots[order] = (
        torch.arange(len(at), device=at.device) - (counts.cumsum(0) - counts)[rows[order]]
    )
    widths = [int(part.max()) for part in counts.split(sequences.tolist())]
    lines = torch.tensor(widths, device=at.device).repeat_interleave(sequences)
    cells = (lines.cumsum(0) - lines)[rows] + slots
    return Queries(at, rows, at - (ends - lengths)[rows], slots, cells, widths)


@functools.cache
def _flex_kernel() -> Callable[..., Tensor]:
    # Uncompiled, FlexAttention materialises all scores; compiled once a process.
    return torch.compile(flex_attention)


def attend(
    layer: RotaryTransformerLayer,
    x: Float[Tensor, "N D"] | Float[Tensor, "U D"],
    context: AttentionContext,
    repeats: Integer[Tensor, "N"] | None = None,
) -> Float[Tensor, "N D"]:
    """Attention of one layer at every token, before the output projection.

    With `repeats`, the state of token i of the line is `x[repeats[i]]`.
    """
    heads, size, angles = layer.n_heads, layer.head_dim, len(context.tables[0])
    # Heads first: what the rotation writes is then what the matrix products read.
    qkv = layer.attn_qkv(x)
    if repeats is not None:
        qkv = F.embedding(repeats, qkv)
    qkv = qkv.view(-1, 3 * heads, size).transpose(0, 1)
    turned = rotate(qkv[: 2 * heads].unflatten(1, (-1, angles)), context.tables)
    q, k = turned.flatten(1, 2).split(heads)
    widths = [group.length for group in context.groups]
    return _by_group(layer, q, k, qkv[2 * heads :], widths, context.mask, context)


def attend_from(
    layer: RotaryTransformerLayer,
    x: Float[Tensor, "N D"],
    queries: Queries,
    context: AttentionContext,
) -> Float[Tensor, "M D"]:
    """Attention of one layer at some tokens only: keys and values of all, queries of those."""
    width = x.shape[-1]
    heads, size, angles = layer.n_heads, layer.head_dim, len(context.tables[0])
    weight = layer.attn_qkv.weight
    kv = F.linear(x, weight[width:]).view(-1, 2 * heads, size).transpose(0, 1)
    k = rotate(kv[:heads].unflatten(1, (-1, angles)), context.tables).flatten(1, 2)

    q = F.linear(x[queries.at], weight[:width]).view(-1, heads, size).transpose(0, 1)
    cos, sin = (table[queries.at % angles] for table in context.tables)
    cells = sum(n * g.sequences for n, g in zip(queries.widths, context.groups, strict=True))
    grid = q.new_zeros(heads, cells, size).index_copy(1, queries.cells, rotate(q, (cos, sin)))
    mask = context.mask
    if mask is not None and mask.shape[2] > 1:
        mask = _mask_of_queries(mask, queries, context.groups[0].sequences)
    out = _by_group(layer, grid, k, kv[heads:], queries.widths, mask, context)
    return out[queries.cells]


def _mask_of_queries(mask: Tensor, queries: Queries, batch: int) -> Bool[Tensor, "B H Q L"]:
    lines = mask.new_ones(batch, mask.shape[1], queries.widths[0], mask.shape[3])
    source = mask.expand(batch, -1, -1, -1)[queries.rows, :, queries.columns]
    lines[queries.rows, :, queries.slots] = source
    return lines


def _by_group(
    layer: RotaryTransformerLayer,
    q: Float[Tensor, "H M E"],
    k: Float[Tensor, "H N E"],
    v: Float[Tensor, "H N E"],
    widths: list[int],
    mask: Bool[Tensor, "B H Q L"] | None,
    context: AttentionContext,
) -> Float[Tensor, "M D"]:
    """Attention within each sequence; `widths` are the queries of a sequence, group by group."""
    groups = context.groups
    q_sizes = [group.sequences * width for group, width in zip(groups, widths, strict=True)]
    k_sizes = [group.sequences * group.length for group in groups]
    split = zip(groups, q.split(q_sizes, 1), k.split(k_sizes, 1), v.split(k_sizes, 1), strict=True)
    parts = []
    for group, *tensors in split:
        if tensors[0].shape[1]:
            rectangles = [t.unflatten(1, (group.sequences, -1)) for t in tensors]
            out = _within(layer, rectangles[0], rectangles[1], rectangles[2], mask, context)
            parts.append(out.permute(1, 2, 0, 3).flatten(2).flatten(0, 1))
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _within(
    layer: RotaryTransformerLayer,
    q: Float[Tensor, "H S Q E"],
    k: Float[Tensor, "H S L E"],
    v: Float[Tensor, "H S L E"],
    mask: Bool[Tensor, "S H Q L"] | None,
    context: AttentionContext,
) -> Float[Tensor, "H S Q E"]:
    if context.block_mask is not None:
        q, k, v = (t.transpose(0, 1) for t in (q, k, v))
        return _flex_kernel()(q, k, v, block_mask=context.block_mask).transpose(0, 1)
    p = layer.dropout if layer.training else 0.0
    if context.flash_only:
        with sdpa_kernel([SDPBackend.FLASH_ATTENTION]):
            return F.scaled_dot_product_attention(q, k, v, dropout_p=p)
    mask = None if mask is None else mask.transpose(0, 1)
    if p and host_checkable(q) and q.dtype == torch.float32:
        return _with_dropout(q, k, v, mask, p)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=p)


def _with_dropout(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, p: float
) -> Float[Tensor, "H S Q E"]:
    """As torch does it where no kernel has dropout, the CPU, but with dropout that is quicker."""
    scores = (q / math.sqrt(q.shape[-1])) @ k.transpose(-2, -1)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return dropout(scores.softmax(dim=-1), p, True) @ v
