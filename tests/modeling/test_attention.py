"""Laying out queries, and attention from them, against attention of everything."""

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
