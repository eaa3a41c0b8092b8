"""Padding-free layouts against loops, and the rule of when they pay."""

import pytest
import torch

from xlm_mlm.modeling.packing import Group, Packing, pack_rows, pack_segments, pays

VALID = {
    "ragged": ["0011100", "1111111", "1010001", "1110000"],
    "one row": ["0110"],
    "one token": ["1"],
    "rows without a token": ["000", "010", "000"],
    "no token": ["000", "000"],
    "nothing hidden": ["111", "111"],
}

SEGMENTS = {
    "contiguous": [[0, 0, 0, 1, 1, 2], [4, 4, 5, 5, 5, 5]],
    "scattered": [[0, 1, 0, 2, 1, 0], [1, 1, 0, 1, 0, 0]],
    "the same number in every row": [[3, 3], [3, 3], [3, 3]],
    "one a token": [[0, 1, 2, 3]],
    "one token": [[-7]],
    "far apart": [[-(2**40), 2**40, -(2**40)], [2**40, 0, 0]],
}


def sequences_in_order(packing):
    """The packed tokens, cut into sequences as the groups say."""
    sizes = [group.length for group in packing.groups for _ in range(group.sequences)]
    return [part.tolist() for part in packing.tokens.split(sizes)] if sizes else []


def check_layout(packing, expected, size):
    """Sequences, in any order but of growing length, and where each token went."""
    found = sequences_in_order(packing)
    assert sorted(found) == sorted(expected)
    assert [len(s) for s in found] == sorted(len(s) for s in expected)
    lengths = [group.length for group in packing.groups]
    assert lengths == sorted(set(lengths)), "one group a length"
    line = [token for sequence in found for token in sequence]
    places = [line.index(t) if t in line else -1 for t in range(size)]
    assert packing.places.tolist() == places


@pytest.mark.parametrize("name", VALID)
def test_each_row_is_a_sequence_of_its_valid_tokens(name):
    valid = torch.tensor([[digit == "1" for digit in row] for row in VALID[name]])
    length = valid.shape[1]
    expected = []
    for number, row in enumerate(VALID[name]):
        tokens = [number * length + t for t in range(length) if row[t] == "1"]
        expected += [tokens] if tokens else []
    check_layout(pack_rows(valid), expected, valid.numel())


@pytest.mark.parametrize("name", SEGMENTS)
def test_each_segment_of_a_row_is_a_sequence(name):
    rows, expected = SEGMENTS[name], {}
    for b, row in enumerate(rows):
        for t, segment in enumerate(row):
            expected.setdefault((b, segment), []).append(b * len(row) + t)
    segments = torch.tensor(rows)
    before = segments.clone()
    check_layout(pack_segments(segments), list(expected.values()), segments.numel())
    assert torch.equal(segments, before)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32])
def test_segments_may_fill_a_narrow_type(dtype):
    limits = torch.iinfo(dtype)
    rows = [[limits.min, limits.max, limits.min], [limits.max, limits.max, limits.min]]
    packing = pack_segments(torch.tensor(rows, dtype=dtype))
    check_layout(packing, [[0, 2], [1], [3, 4], [5]], 6)


def test_rows_of_one_length_stand_side_by_side():
    valid = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 0], [0, 0, 1, 1], [0, 1, 1, 1]]).bool()
    packing = pack_rows(valid)
    assert packing.groups == (Group(2, 2), Group(2, 3))
    assert packing.tokens.tolist() == [0, 1, 10, 11, 4, 5, 6, 13, 14, 15]


def packing_of(groups, size):
    tokens = sum(count * length for count, length in groups)
    return Packing(
        torch.arange(tokens), torch.zeros(size), tuple(Group(*group) for group in groups)
    )


def operations_spared(groups, batch, length, width):
    """Of one layer: two a multiply-add, over its weights and over the pairs of tokens."""
    weights = 4 * width * width + 8 * width * width
    before = batch * length * (2 * weights + 4 * length * width)
    after = sum(count * n * (2 * weights + 4 * n * width) for count, n in groups)
    return before - after


@pytest.mark.parametrize(
    ("groups", "batch", "length", "width"),
    [
        ([(16, 128)], 16, 256, 256),
        ([(1, 1), (1, 2), (1, 3)], 3, 4, 32),
        ([(1, 100), (15, 128)], 16, 128, 384),
        ([(64, 8)], 1, 512, 16),
        ([(1, n) for n in range(1, 65)], 64, 64, 128),
        ([(8, 16)], 8, 16, 512),
    ],
)
def test_it_pays_where_more_is_spared_than_groups_cost(groups, batch, length, width):
    spared = operations_spared(groups, batch, length, width)
    expected = spared > 12e6 * len(groups)
    assert pays(packing_of(groups, batch * length), length, width) == expected


def test_it_never_pays_where_nothing_is_spared():
    assert not pays(pack_rows(torch.ones(4, 256, dtype=torch.bool)), 256, 1024)
    assert not pays(pack_segments(torch.zeros(4, 256, dtype=torch.long)), 256, 1024)


def test_the_benchmarks_padded_rows_are_packed():
    """16 rows of up to 256 tokens, of lengths spread evenly, at width 256."""
    lengths = torch.linspace(1, 256, 16).long()
    valid = torch.arange(256) < lengths[:, None]
    assert pays(pack_rows(valid), 256, 256)


def test_segments_numbered_by_hashes_are_kept_apart():
    ids = torch.tensor([[-(2**62), 2**62], [7, 7], [-(2**62), 2**62]])
    packing = pack_segments(ids)
    assert sorted(packing.tokens.tolist()) == list(range(6))
    assert packing.groups == ((4, 1), (1, 2))
    assert packing.tokens[-2:].tolist() == [2, 3]
