"""Rotary positions against complex multiplication."""

import pytest
import torch
from xlm.modules.position import RotaryEmbedding

from xlm_mlm.modeling.rotary import checked_positions, derived_positions, gather_tables, rotate


@pytest.mark.parametrize("rest", [0, 3])
def test_rotation_is_a_complex_multiplication(rest):
    tables = RotaryEmbedding(6, cache_size=9)
    positions = torch.tensor([[0, 4, 2], [8, 8, 1]])
    x = torch.randn(5, 2 * 3, 6 + rest)
    out = rotate(x, gather_tables(tables.cos, tables.sin, 3, positions))
    angle = positions.view(6, 1) * 10000.0 ** (-torch.arange(0, 6, 2) / 6)
    turned = torch.complex(x[..., :3], x[..., 3:6]) * torch.polar(torch.ones_like(angle), angle)
    expected = torch.cat((turned.real, turned.imag, x[..., 6:]), dim=-1)
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)


def test_without_positions_they_count_from_zero():
    tables = RotaryEmbedding(4, cache_size=9)
    x = torch.randn(3, 2, 5, 4)
    counted = gather_tables(tables.cos, tables.sin, 5, torch.arange(5).expand(2, 5))
    torch.testing.assert_close(
        rotate(x, gather_tables(tables.cos, tables.sin, 5, None)),
        rotate(x.flatten(1, 2), counted).view_as(x),
    )


def test_the_dtype_of_the_states_is_kept():
    tables = RotaryEmbedding(4, cache_size=9)
    x = torch.randn(2, 5, 4, dtype=torch.bfloat16)
    assert rotate(x, gather_tables(tables.cos, tables.sin, 5, None)).dtype == torch.bfloat16


def test_positions_count_valid_tokens_only():
    valid = torch.tensor([[False, False, True, True], [True, False, True, False]])
    assert derived_positions(valid).tolist() == [[0, 0, 0, 1], [0, 0, 1, 1]]


def test_the_last_position_of_the_table_is_taken_and_the_next_refused():
    checked_positions(torch.tensor([[0, 7]]), 1, 2, 8)
    with pytest.raises(ValueError, match="position 8 .* max_length of 8 .*0 to 7"):
        checked_positions(torch.tensor([[0, 8]]), 1, 2, 8)


def test_positions_of_one_row_serve_all_and_come_back_as_int64():
    shared = checked_positions(torch.tensor([[3, 1]], dtype=torch.int16), 5, 2, 8)
    assert shared.dtype == torch.int64
    assert shared.tolist() == [[3, 1]]
    with pytest.raises(ValueError, match="positions are a list"):
        checked_positions([[3, 1]], 5, 2, 8)
