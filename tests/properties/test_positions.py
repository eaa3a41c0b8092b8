"""Rotary positions: how they are counted, what they turn, and that padding shifts nothing."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from properties.strategies import (
    MASK,
    PAD,
    forced_packing,
    plain_tokens,
    rectangles,
    rows_of,
    small_numbers,
    tiny_model,
)

from xlm_mlm.decoding.state import begin
from xlm_mlm.modeling.rotary import checked_positions, derived_positions, gather_tables, rotate

flags = st.booleans()
# Single precision through one layer of width 8: some tens of roundings of 6e-8 each.
CLOSE = {"atol": 1e-5, "rtol": 1e-5}


@given(rectangles(flags))
def test_positions_count_valid_tokens_only(rows):
    found = derived_positions(torch.tensor(rows))
    for row, got in zip(rows, found.tolist(), strict=True):
        assert got == [max(sum(row[: c + 1]) - 1, 0) for c in range(len(row))]


@st.composite
def padded(draw):
    """Texts, and how much padding each has on its left and right; all rows are of one length."""
    texts = draw(rows_of(plain_tokens, most=5))
    width = max(map(len, texts)) + draw(st.integers(0, 3))
    lefts = [draw(st.integers(0, width - len(text))) for text in texts]
    ids = [
        [PAD] * left + text + [PAD] * (width - left - len(text))
        for text, left in zip(texts, lefts, strict=True)
    ]
    valid = [
        [left <= c < left + len(text) for c in range(width)]
        for text, left in zip(texts, lefts, strict=True)
    ]
    return texts, torch.tensor(ids), torch.tensor(valid)


@given(padded())
def test_a_text_has_the_same_positions_wherever_its_padding_is(case):
    texts, _, valid = case
    found = derived_positions(valid)
    for row, where, text in zip(found, valid, texts, strict=True):
        assert row[where].tolist() == list(range(len(text)))


@given(padded(), flags)
def test_a_text_has_the_same_logits_wherever_its_padding_is(case, packs):
    texts, ids, valid = case
    with torch.no_grad(), forced_packing(packs):
        found = tiny_model()(ids, attention_mask=valid)
    for row, where, text in zip(found, valid, texts, strict=True):
        alone = tiny_model()(torch.tensor([text])).detach()[0]
        torch.testing.assert_close(row[where], alone, **CLOSE)
        assert row.isfinite().all()


@given(rows_of(plain_tokens, rows=1), st.integers(0, 40))
def test_only_differences_of_positions_matter(rows, shift):
    ids, model = torch.tensor(rows), tiny_model()
    positions = torch.arange(ids.shape[1])[None]
    with torch.no_grad():
        expected, shifted = model(ids), model(ids, positions=positions + shift)
    torch.testing.assert_close(shifted, expected, **CLOSE)


@given(rows_of(plain_tokens, rows=1), st.data())
def test_positions_travel_with_their_tokens(rows, choose):
    """Attention is blind to columns: with tokens and positions permuted, so are the logits."""
    ids = torch.tensor(rows)
    order = torch.tensor(choose.draw(st.permutations(range(ids.shape[1]))))
    with torch.no_grad():
        expected = tiny_model()(ids)[:, order]
        permuted = tiny_model()(ids[:, order], positions=order[None])
    torch.testing.assert_close(permuted, expected, **CLOSE)


@st.composite
def turned(draw):
    """A head's channels at some places, and the place of each; the first 4 of 6 are rotated."""
    places = draw(st.lists(st.integers(0, 15), min_size=1, max_size=5))
    channels = draw(
        st.lists(
            st.lists(small_numbers, min_size=6, max_size=6),
            min_size=len(places),
            max_size=len(places),
        )
    )
    return places, channels


def tables():
    angles = torch.arange(16)[:, None] / 10000 ** (torch.arange(2) / 2)
    return angles.cos(), angles.sin()


@given(turned())
def test_pairs_of_channels_are_turned_by_the_angle_of_their_place(case):
    places, channels = case
    found = rotate(torch.tensor(channels), gather_tables(*tables(), 16, torch.tensor(places)))
    for place, old, new in zip(places, channels, found.tolist(), strict=True):
        expected = list(old)
        for i in range(2):
            angle = place / 10000 ** (i / 2)
            expected[i] = old[i] * math.cos(angle) - old[i + 2] * math.sin(angle)
            expected[i + 2] = old[i + 2] * math.cos(angle) + old[i] * math.sin(angle)
        # The angle itself is rounded: up to 15 radians, to 1e-6.
        assert new == pytest.approx(expected, abs=1e-5)
        assert new[4:] == old[4:]


@given(st.integers(0, 6), st.integers(1, 5))
def test_without_positions_the_tables_begin_at_the_first(extra, length):
    columns = torch.arange(length)
    for given_positions in (None, columns[None], columns.expand(1 + extra, -1)):
        for whole, table in zip(
            tables(), gather_tables(*tables(), length, given_positions), strict=True
        ):
            copies = 1 if given_positions is None else len(given_positions)
            assert torch.equal(table, whole[:length].repeat(copies, 1))


@given(rectangles(st.integers(-2, 9)), st.sampled_from([torch.long, torch.int32, torch.uint8]))
def test_positions_outside_the_tables_are_refused(rows, kind):
    given_positions = torch.tensor(rows).to(kind)
    batch, length = given_positions.shape
    outside = [p for p in given_positions.flatten().tolist() if not 0 <= p < 8]
    if outside:
        with pytest.raises(ValueError, match=r"position -?\d+ is outside the model's max_length"):
            checked_positions(given_positions, batch, length, 8)
    else:
        found = checked_positions(given_positions, batch, length, 8)
        assert found.tolist() == rows
        assert found.dtype == torch.long


@given(padded(), st.integers(0, 3), st.sampled_from(["neither", "mask", "positions", "both"]))
def test_what_is_appended_counts_on_where_the_row_ends(case, count, named):
    _, ids, valid = case
    batch, before = {"input_ids": ids}, [ids.clone(), valid.clone()]
    positions = derived_positions(valid)
    batch |= {"attention_mask": valid} if named in ("mask", "both") else {}
    batch |= {"positions": positions} if named in ("positions", "both") else {}
    state = begin(batch, MASK, count)
    assert state["x"].tolist() == [[*row, *[MASK] * count] for row in ids.tolist()]
    assert state["masked"].tolist() == [[t == MASK for t in row] for row in state["x"].tolist()]
    if "attention_mask" in batch:
        seen = [[*row, *[True] * count] for row in valid.tolist()]
        assert state["attention_mask"].tolist() == seen
        # Random numbers are looked up by places, which padding does not shift.
        places = [[max(sum(row[: c + 1]) - 1, 0) for c in range(len(row))] for row in seen]
        assert state["places"].tolist() == places
    if "positions" in batch:
        expected = [[*row, *(row[-1] + 1 + n for n in range(count))] for row in positions.tolist()]
        assert state["positions"].tolist() == expected
    assert torch.equal(ids, before[0])
    assert torch.equal(valid, before[1])
