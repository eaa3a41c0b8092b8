"""Segments of packed blocks."""

import numpy as np
import pytest
import torch

from xlm_mlm.collation.segments import split_at_eos

EOS = 3


def naive(row):
    segments, positions, segment, position = [], [], 0, 0
    for token in row:
        segments.append(segment)
        positions.append(position)
        position += 1
        if token == EOS:
            segment, position = segment + 1, 0
    return segments, positions


@pytest.mark.parametrize(
    "row",
    [
        [10, 11, 3, 12, 13, 3, 14, 15],
        [10, 11, 12, 13],
        [3, 3, 3],
        [10, 11, 3],
        [3, 10],
        [10],
    ],
)
def test_as_a_loop_would(row):
    segments, positions = naive(row)
    found = split_at_eos(np.array([row]), EOS)
    assert found.segment_ids.tolist() == [segments]
    assert found.positions.tolist() == [positions]


def test_rows_do_not_touch_each_other():
    rows = torch.where(torch.rand(40, 60) < 0.2, EOS, 10).numpy()
    before = rows.copy()
    found = split_at_eos(rows, EOS)
    for row, segment_ids, positions in zip(rows, *found, strict=True):
        assert (segment_ids.tolist(), positions.tolist()) == naive(row.tolist())
    assert np.array_equal(rows, before)
    assert found.segment_ids.dtype == found.positions.dtype == np.int64
