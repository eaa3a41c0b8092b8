"""Reading, checking and cutting rows of token ids."""

import numpy as np
import pytest
import torch

from xlm_mlm.collation.rows import (
    check_ids,
    check_rows,
    keep_first,
    keep_last,
    read_column,
    write_rows,
)

KINDS = {
    "list": list,
    "tuple": tuple,
    "tensor": torch.tensor,
    "int32 tensor": lambda row: torch.tensor(row, dtype=torch.int32),
    "array": np.array,
    "uint8 array": lambda row: np.array(row, dtype=np.uint8),
}


NOTHING = -7


def written(rows, starts, width):
    ids = np.full((len(rows.rows), width), NOTHING)
    write_rows(ids, rows, starts)
    return ids.tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_writes_every_kind_of_row_and_nothing_beside_it(kind):
    rows = check_rows([KINDS[kind](row) for row in ([5, 6, 7], [8], [9, 10])], "input_ids")
    assert rows.lengths.tolist() == [3, 1, 2]
    assert written(rows, 1, 5) == [
        [NOTHING, 5, 6, 7, NOTHING],
        [NOTHING, 8, NOTHING, NOTHING, NOTHING],
        [NOTHING, 9, 10, NOTHING, NOTHING],
    ]
    assert written(rows, np.array([0, 2, 1]), 3) == [
        [5, 6, 7],
        [NOTHING, NOTHING, 8],
        [NOTHING, 9, 10],
    ]


def test_writes_kinds_side_by_side():
    rows = check_rows([[5, 6], torch.tensor([7, 8]), np.array([9, 10]), range(11, 13)], "ids")
    assert written(rows, 0, 2) == [[5, 6], [7, 8], [9, 10], [11, 12]]


def test_writes_empty_rows():
    rows = check_rows([[], np.array([]), torch.tensor([]).long()], "ids", allow_empty=True)
    assert written(rows, 1, 1) == [[NOTHING]] * 3


@pytest.mark.parametrize(("starts", "width"), [(0, 2), (1, 3), (np.array([0, 2]), 4)])
def test_rows_that_do_not_fit_are_an_error(starts, width):
    rows = check_rows([[1], [1, 2, 3]], "ids")
    with pytest.raises(ValueError, match=rf"\[1, 3\] do not fit \(2, {width}\)"):
        written(rows, starts, width)


def test_cuts_on_either_side():
    rows = check_rows([[1, 2, 3, 4], [5], []], "ids", allow_empty=True)
    cut = keep_first(rows, 2)
    assert (cut.rows, cut.lengths.tolist()) == ([[1, 2], [5], []], [2, 1, 0])
    cut = keep_last(rows, 2)
    assert (cut.rows, cut.lengths.tolist()) == ([[3, 4], [5], []], [2, 1, 0])
    assert keep_first(rows, 0).rows == keep_last(rows, 0).rows == [[], [], []]
    assert keep_last(rows, np.array([3, 0, 1])).rows == [[2, 3, 4], [], []]
    assert keep_first(rows, None) is keep_last(rows, None) is keep_last(rows, 4) is rows
    assert rows.rows == [[1, 2, 3, 4], [5], []]


@pytest.mark.parametrize(
    ("row", "shown"),
    [
        ([5, 1.5], "1.5"),
        (["a"], "'a'"),
        ([5, None], "None"),
        ([[5, 6]], r"\[5, 6\]"),
        ([2**70], str(2**70)),
        ([True, False], "booleans"),
        ((True,), "booleans"),
        ("12", "str"),
        (None, "None"),
        (7, "int"),
        (torch.tensor([1.0]), "a Tensor of shape .*float32"),
        (torch.tensor([True]), "bool"),
        (torch.tensor([1j]), "a Tensor of shape .*complex64"),
        (torch.tensor([[1]]), r"\(1, 1\)"),
        (torch.tensor(1), r"\(\)"),
        (np.array([0.5]), "float64"),
        (np.array([[1]]), r"\(1, 1\)"),
    ],
)
def test_refuses_what_is_not_token_ids(row, shown):
    with pytest.raises(ValueError, match=rf"input_ids of row 1 .*{shown}.*integer token ids"):
        written(check_rows([[5], row], "input_ids"), 0, 4)


def check(*columns, vocabulary=None, pad=0):
    sources = [check_rows(rows, name) for name, rows in zip(("a", "b"), columns, strict=False)]
    ids = np.full((len(columns[0]), 4), pad)
    for start, source in enumerate(sources):
        write_rows(ids, source, 2 * start)
    check_ids(ids, vocabulary, *sources)


@pytest.mark.parametrize("bad", [-1, -100])
@pytest.mark.parametrize("kind", [list, np.array, torch.tensor])
def test_refuses_negative_ids_and_names_the_row(bad, kind):
    with pytest.raises(ValueError, match=rf"b of row 1 .*holds {bad};.*0 or more"):
        check([[5, 6], [7]], [[3], kind([8, bad])])


def test_refuses_ids_beyond_the_vocabulary_and_names_the_row():
    with pytest.raises(ValueError, match=r"a of row 1 .*holds 9; the tokenizer has 9 ids"):
        check([[5], [8, 9]], [[1], [12]], vocabulary=9)
    check([[5], [8, 9]], vocabulary=10)
    check([[5], [8, 9]])


@pytest.mark.parametrize("pad", [-1, 30])
def test_only_the_rows_must_be_in_range(pad):
    check([[5], [8]], vocabulary=10, pad=pad)


@pytest.mark.parametrize("row", [[], (), torch.tensor([]).long(), np.array([])])
def test_an_empty_row_is_refused_unless_allowed(row):
    with pytest.raises(ValueError, match="input_ids of row 1 of the batch is empty"):
        check_rows([[5], row], "input_ids")
    rows = check_rows([[5], row], "input_ids", allow_empty=True)
    assert rows.lengths.tolist() == [1, 0]


def test_reads_a_column_or_says_what_is_missing():
    assert read_column([{"a": [1]}, {"a": [2], "b": 0}], "a", "me") == [[1], [2]]
    with pytest.raises(KeyError, match="me needs the field 'a', which row 1 .*its fields: b"):
        read_column([{"a": [1]}, {"b": [2]}], "a", "me")
    with pytest.raises(ValueError, match="me was given an empty batch"):
        read_column([], "a", "me")
