"""Rows as rectangles: spans, widths, frames."""

import itertools

import numpy as np
import pytest
import torch

from xlm_mlm.collation.padding import (
    fit_width,
    frame_left,
    frame_right,
    prepare_prefix_ids,
    size_limit,
    span,
    write_token,
)
from xlm_mlm.collation.rows import check_rows

PAD, BOS, EOS = 0, 4, 3
ROWS = [[10, 11, 12], [13], [14, 15]]
LENGTHS = np.array([2, 5])


def naive_right(rows, width, bos, eos):
    framed = []
    for row in rows:
        whole = ([bos] if bos is not None else []) + row + ([eos] if eos is not None else [])
        framed.append(whole[:width] + [PAD] * (width - len(whole)))
    return framed


def naive_left(rows, width, bos):
    framed = []
    for row in rows:
        whole = row + ([bos] if bos is not None else [])
        framed.append([PAD] * (width - len(whole)) + whole)
    return framed


@pytest.mark.parametrize(
    ("width", "bos", "eos"), list(itertools.product([4, 5, 8], [None, BOS], [None, EOS]))
)
def test_frames_on_the_right_as_a_loop_would(width, bos, eos):
    framed = frame_right(check_rows(ROWS, "ids"), width, PAD, bos, eos)
    expected = naive_right(ROWS, width, bos, eos)
    assert framed.ids.tolist() == expected
    assert framed.valid.tolist() == [[token != PAD for token in row] for row in expected]


@pytest.mark.parametrize(("width", "bos"), list(itertools.product([4, 7], [None, BOS])))
def test_frames_on_the_left_as_a_loop_would(width, bos):
    framed = frame_left(check_rows(ROWS, "ids"), width, PAD, bos)
    expected = naive_left(ROWS, width, bos)
    assert framed.ids.tolist() == expected
    assert framed.valid.tolist() == [[token != PAD for token in row] for row in expected]


def test_a_token_equal_to_the_pad_token_is_still_a_token():
    framed = frame_right(check_rows([[10, PAD]], "ids"), 3, PAD)
    assert framed.valid.tolist() == [[True, True, False]]


@pytest.mark.parametrize(
    ("start", "end"),
    [
        (np.array([0, 2, 3]), np.array([2, 2, 9])),
        (1, np.array([0, 2, 4])),
        (np.array([3, 1, 0]), 2),
    ],
)
def test_spans_as_a_loop_would(start, end):
    starts, ends = np.broadcast_to(start, 3), np.broadcast_to(end, 3)
    expected = [[s <= c < e for c in range(4)] for s, e in zip(starts, ends, strict=True)]
    assert span(start, end, 4).tolist() == expected


def test_one_span_for_all_rows():
    assert span(1, 3, 4).tolist() == [[False, True, True, False]]


def test_tokens_outside_the_width_are_not_written():
    ids = np.zeros((4, 2), dtype=np.int64)
    write_token(ids, np.array([-1, 0, 1, 2]), 9)
    assert ids.tolist() == [[0, 0], [9, 0], [0, 9], [0, 0]]


@pytest.mark.parametrize(
    ("truncate", "limit", "width"),
    [("block", 8, 8), ("block", 3, 3), ("max", 8, 5), ("max", 3, 3), (None, None, 5)],
)
def test_width(truncate, limit, width):
    assert fit_width(LENGTHS, limit, truncate) == width


def test_size_limits():
    assert size_limit("block_size", 8, "block") == 8
    assert size_limit("block_size", 8, "max") == 8
    assert size_limit("block_size", 8, None) is None
    assert size_limit("block_size", None, None) is None


@pytest.mark.parametrize("truncate", ["block", "max"])
def test_a_size_is_needed_to_truncate(truncate):
    with pytest.raises(ValueError, match=f"block_size is None, which truncate='{truncate}'"):
        size_limit("block_size", None, truncate)


@pytest.mark.parametrize("size", [0, -1, 1.5, "8", True])
@pytest.mark.parametrize("truncate", ["block", "max", None])
def test_a_size_is_a_positive_integer(size, truncate):
    with pytest.raises(ValueError, match="block_size is .*integer of at least 1"):
        size_limit("block_size", size, truncate)


def test_unknown_truncate():
    with pytest.raises(ValueError, match="truncate is 'left'; it must be one of 'block', 'max', N"):
        size_limit("block_size", 8, "left")


@pytest.mark.parametrize(
    ("size", "truncate", "expected"),
    [
        (4, "block", [[0, 10, 11, 12], [0, 0, 0, 13]]),
        (2, "block", [[11, 12], [0, 13]]),
        (4, "max", [[10, 11, 12], [0, 0, 13]]),
        (2, "max", [[11, 12], [0, 13]]),
        (None, None, [[10, 11, 12], [0, 0, 13]]),
        (2, None, [[10, 11, 12], [0, 0, 13]]),
    ],
)
def test_prefixes_are_padded_and_cut_on_the_left(size, truncate, expected):
    batch = prepare_prefix_ids([[10, 11, 12], [13]], PAD, size, truncate)
    assert batch["input_ids"].tolist() == expected
    assert batch["attention_mask"].tolist() == [[token != 0 for token in row] for row in expected]
    assert batch["attention_mask"].dtype == torch.bool


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], PAD, 4), "prefix_ids is empty"),
        (([[], []], PAD, None, None), "every row of prefix_ids is empty"),
        (([[1]], PAD), "max_seq_len is None"),
        (([[1]], PAD, 0), "max_seq_len is 0"),
        (([[-100]], PAD, 4), "holds -100"),
    ],
)
def test_bad_prefixes(arguments, message):
    with pytest.raises(ValueError, match=message):
        prepare_prefix_ids(*arguments)
