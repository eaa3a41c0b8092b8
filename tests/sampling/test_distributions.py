"""Pieces, inversion and the nucleus against plain Python on one row at a time."""

import pytest
import torch

from xlm_mlm.sampling import distributions
from xlm_mlm.sampling.distributions import draw_from_nucleus, invert, row_pieces


def rows_of(kind, rows, vocabulary, dtype=torch.float32):
    """Probabilities; bf16 logits have many equals, which fp32 ones hardly do."""
    generator = torch.Generator().manual_seed(vocabulary)
    logits = torch.randn(rows, vocabulary, generator=generator) * {"flat": 0.1, "peaked": 4.0}[kind]
    if vocabulary > 3:
        logits[:, ::3] = -torch.inf
    return logits.to(dtype).float().softmax(dim=-1)


def naive_nucleus(p, top_p):
    wanted, mass, kept = top_p * sum(p), 0.0, []
    for token in sorted(range(len(p)), key=lambda i: -p[i]):
        if kept and mass >= wanted:
            break
        kept.append(token)
        mass += p[token]
    return sorted(kept)


def naive_draw(p, ids, uniform):
    target, mass = uniform * sum(p[i] for i in ids), 0.0
    for i in ids:
        mass += p[i]
        if mass > target:
            return i
    return max(i for i in ids if p[i] > 0)


@pytest.mark.parametrize("rows", [0, 1, 2, 3, 4, 5, 6, 7, 9, 23, 64])
@pytest.mark.parametrize("values", [1, 20, 33, 1000])
def test_pieces_are_all_rows_in_order_and_none_is_alone(monkeypatch, rows, values):
    monkeypatch.setattr(distributions, "_CPU_PIECE", values)
    given = torch.arange(rows * 5.0).view(rows, 5)
    pieces = row_pieces(given)
    assert torch.equal(torch.cat(pieces), given)
    assert all(len(piece) * 5 <= max(values, 20) for piece in pieces)
    assert rows < 2 or all(len(piece) >= 2 for piece in pieces)


@pytest.mark.parametrize("vocabulary", [1, 2, 3, 40])
def test_inversion_takes_the_first_entry_past_the_number(vocabulary):
    p = rows_of("flat", 1, vocabulary)
    uniform = torch.linspace(0, 1 - 2**-53, 400, dtype=torch.float64)
    drawn = invert(p.expand(400, -1), uniform).tolist()
    p, ids = p[0].tolist(), range(vocabulary)
    assert drawn == [naive_draw(p, ids, u) for u in uniform.tolist()]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["flat", "peaked"])
@pytest.mark.parametrize("vocabulary", [1, 2, 5, 255, 256, 257, 1500])
@pytest.mark.parametrize("top_p", [1e-300, 0.05, 0.5, 0.9, 1 - 1e-7])
def test_the_nucleus_is_the_one_that_sorting_gives(vocabulary, kind, dtype, top_p):
    p = rows_of(kind, 3, vocabulary, dtype)
    uniform = torch.linspace(0, 1 - 2**-53, 100, dtype=torch.float64)
    for row in p:
        drawn = draw_from_nucleus(row.expand(100, -1), uniform, top_p).tolist()
        plain = row.tolist()
        ids = naive_nucleus(plain, top_p)
        assert drawn == [naive_draw(plain, ids, u) for u in uniform.tolist()]


@pytest.mark.parametrize("vocabulary", [8, 256, 512, 4096])
def test_of_equal_tokens_the_first_are_kept(vocabulary):
    # Powers of two, so that a half is reached exactly.
    p = torch.full((1, vocabulary), 1 / vocabulary)
    uniform = torch.linspace(0, 1 - 2**-53, 2 * vocabulary, dtype=torch.float64)
    drawn = draw_from_nucleus(p.expand(2 * vocabulary, -1), uniform, 0.5)
    assert drawn.unique().tolist() == list(range(vocabulary // 2))


def test_both_ways_to_a_nucleus_agree(monkeypatch):
    p = rows_of("peaked", 50, 400)
    uniform = torch.rand(50, dtype=torch.float64)
    ways = []
    for likely in (1, 20, 256, 400):
        monkeypatch.setattr(distributions, "_LIKELY", likely)
        ways.append(draw_from_nucleus(p, uniform, 0.9).tolist())
    assert all(way == ways[0] for way in ways)
    # They are different ways: some nuclei are wider than 20 tokens, and none than 256.
    sizes = [len(naive_nucleus(row.tolist(), 0.9)) for row in p]
    assert max(sizes) > 20
    assert max(sizes) < 256


@pytest.mark.parametrize("draw", [invert, lambda p, u: draw_from_nucleus(p, u, 0.7)])
def test_a_row_does_not_depend_on_its_neighbours(draw):
    p = torch.cat((rows_of("flat", 6, 3000), rows_of("peaked", 6, 3000)))
    uniform = torch.rand(12, dtype=torch.float64)
    whole = draw(p, uniform)
    backwards = draw(p.flip(0), uniform.flip(0)).flip(0)
    alone = torch.cat([draw(p[i : i + 1], uniform[i : i + 1]) for i in range(12)])
    assert torch.equal(whole, backwards)
    assert torch.equal(whole, alone)


def test_probabilities_are_added_up_in_double_precision():
    # Near 1 the numbers of fp32 are 1.2e-7 apart: a dozen rare tokens would share one of them.
    p = torch.full((1, 100_001), 1e-8)
    p[0, 0] = 1.0
    each = p[0, 1].double()
    tokens = torch.linspace(1, 100_000, 400, dtype=torch.float64).round()
    uniform = (1 + each * (tokens - 0.5)) / (1 + each * 100_000)
    assert invert(p.expand(400, -1), uniform).tolist() == tokens.tolist()
