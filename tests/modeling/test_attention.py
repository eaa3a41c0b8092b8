"""Laying out queries, and attention from them, against attention of everything."""

import math

import pytest
import torch
from xlm.modules.position import RotaryEmbedding
from xlm.modules.rotary_transformer import RotaryTransformerLayer

from xlm_mlm.modeling.attention import AttentionContext, attend, attend_from, lay_out_queries
from xlm_mlm.modeling.packing import Group
from xlm_mlm.modeling.rotary import gather_tables


def test_every_query_has_a_place_of_its_own_in_its_rows_line():
    flat = torch.tensor([11, 0, 3, 9, 1, 10])
    queries = lay_out_queries(flat, (Group(3, 4),))
    assert queries.at.tolist() == flat.tolist()
    assert queries.rows.tolist() == [2, 0, 0, 2, 0, 2]
    assert queries.columns.tolist() == [3, 0, 3, 1, 1, 2]
    assert queries.slots.tolist() == [0, 0, 1, 1, 2, 2]
    assert queries.widths == [3]
    assert queries.cells.tolist() == [6, 0, 1, 7, 2, 8]


@pytest.mark.parametrize("lines", [1, 4])
@pytest.mark.parametrize("flat", [[2], [0, 5, 6, 11], [11, 4, 0]])
def test_attention_from_queries_equals_attention_of_all_there(lines, flat):
    layer = RotaryTransformerLayer(8, 2).eval()
    positions = torch.tensor([[0, 1, 2, 3], [3, 2, 1, 0], [0, 0, 1, 1]])
    tables = RotaryEmbedding(4, cache_size=8)
    mask = torch.rand(3, 1, lines, 4) < 0.6
    mask[..., 0] = True
    context = AttentionContext(
        gather_tables(tables.cos, tables.sin, 4, positions), (Group(3, 4),), mask
    )
    x, chosen = torch.randn(12, 8), torch.tensor(flat)
    some = attend_from(layer, x, lay_out_queries(chosen, context.groups), context)
    torch.testing.assert_close(some, attend(layer, x, context)[chosen], atol=1e-6, rtol=1e-5)


GROUPS = (Group(2, 3), Group(1, 5))
PLACES = [(0, 3), (3, 6), (6, 11)]


def test_groups_of_several_lengths_have_lines_of_their_own_length():
    queries = lay_out_queries(torch.tensor([10, 4, 6, 3, 10, 5, 9]), GROUPS)
    assert queries.rows.tolist() == [2, 1, 2, 1, 2, 1, 2]
    assert queries.columns.tolist() == [4, 1, 0, 0, 4, 2, 3]
    assert queries.slots.tolist() == [0, 0, 1, 1, 2, 2, 3]
    assert queries.widths == [3, 4]
    # Two lines of three, the first of them empty, then one of four.
    assert queries.cells.tolist() == [6, 3, 7, 4, 8, 5, 9]


def context_of(groups, mask=None):
    tokens = sum(group.sequences * group.length for group in groups)
    tables = RotaryEmbedding(4, cache_size=8)
    positions = torch.randint(8, (tokens,))
    return AttentionContext(gather_tables(tables.cos, tables.sin, tokens, positions), groups, mask)


@pytest.mark.parametrize("asked", [[0], [10], [10, 4, 6, 3, 10], list(range(11)), [6, 7, 8]])
def test_sequences_of_several_lengths_do_not_see_each_other(asked):
    """What is attended to by some, by all, and by each sequence alone, is the same."""
    layer, context, x = RotaryTransformerLayer(8, 2).eval(), context_of(GROUPS), torch.randn(11, 8)
    alone = []
    for start, stop in PLACES:
        tables = tuple(table[start:stop] for table in context.tables)
        own = AttentionContext(tables, (Group(1, stop - start),))
        alone.append(attend(layer, x[start:stop], own))
    expected, chosen = torch.cat(alone), torch.tensor(asked)
    torch.testing.assert_close(attend(layer, x, context), expected, atol=1e-6, rtol=1e-5)
    some = attend_from(layer, x, lay_out_queries(chosen, GROUPS), context)
    torch.testing.assert_close(some, expected[chosen], atol=1e-6, rtol=1e-5)


def naive_attention(q, k, v, visible, keep, p):
    """One head, one query at a time: softmax over what it sees, then what dropout leaves."""
    out = torch.zeros_like(q)
    for t in range(len(q)):
        keys = [s for s in range(len(k)) if visible[t][s]]
        share = torch.stack([q[t] @ k[s] / math.sqrt(q.shape[1]) for s in keys]).softmax(0)
        for s, weight in zip(keys, share, strict=True):
            out[t] += keep[t, s] / (1 - p) * weight * v[s]
    return out


@pytest.mark.parametrize("masked", [False, True])
def test_attention_drops_what_the_mask_of_dropout_says(monkeypatch, masked):
    """Without positions, so that queries, keys and values are the projection's own output."""
    layer, heads, size, p = RotaryTransformerLayer(8, 2, dropout=0.4).train(), 2, 4, 0.4
    recorded = []

    def record(x, p, training):
        assert training
        recorded.append(torch.rand_like(x) >= p)
        return x * recorded[-1] / (1 - p)

    monkeypatch.setattr("xlm_mlm.modeling.attention.dropout", record)
    mask = (torch.rand(2, 1, 3, 3) < 0.6) | torch.eye(3, dtype=torch.bool) if masked else None
    tables = RotaryEmbedding(4, cache_size=8)
    nowhere = gather_tables(tables.cos, tables.sin, 6, torch.zeros(6, dtype=torch.long))
    context, x = AttentionContext(nowhere, (Group(2, 3),), mask), torch.randn(6, 8)
    out = attend(layer, x, context)
    (keep,) = recorded
    assert keep.shape == (heads, 2, 3, 3)
    parts = layer.attn_qkv(x).view(2, 3, 3, heads, size)
    for b in range(2):
        visible = mask[b, 0] if masked else torch.ones(3, 3)
        for h in range(heads):
            q, k, v = parts[b, :, :, h].unbind(dim=1)
            expected = naive_attention(q, k, v, visible, keep[h, b], p)
            found = out.view(2, 3, heads, size)[b, :, h]
            torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("some", [False, True])
def test_on_average_dropout_leaves_attention_as_it_is(some):
    """20,000 sequences alike; the mean of each channel is five of its own errors off at most."""
    count, groups = 20_000, (Group(20_000, 2),)
    layer = RotaryTransformerLayer(4, 1, dropout=0.3)
    x, tables = torch.randn(2, 4), RotaryEmbedding(4, cache_size=8)
    context = AttentionContext(gather_tables(tables.cos, tables.sin, 2, None), groups)
    expected = attend(layer.eval(), x, context._replace(groups=(Group(1, 2),)))[1]
    layer.train()
    line, last = x.repeat(count, 1), torch.arange(1, 2 * count, 2)
    if some:
        out = attend_from(layer, line, lay_out_queries(last, groups), context)
    else:
        out = attend(layer, line, context)[last]
    deviation = out.std(dim=0) / math.sqrt(count)
    assert (deviation > 0).all()
    assert ((out.mean(dim=0) - expected).abs() <= 5 * deviation).all()


def test_without_training_nothing_is_dropped(monkeypatch):
    monkeypatch.setattr("xlm_mlm.modeling.attention.dropout", lambda *a: pytest.fail("dropped"))
    layer = RotaryTransformerLayer(8, 2, dropout=0.5).eval()
    x, context = torch.randn(11, 8), context_of(GROUPS)
    assert torch.equal(attend(layer, x, context), attend(layer, x, context))
