"""Reading, checking and cutting rows of token ids."""

import numpy as np
import pytest
import torch

from xlm_mlm.collation.rows import check_rows, keep_first, keep_last, pack, read_column

KINDS = {
    "list": list,
    "tuple": tuple,
    "tensor": torch.tensor,
    "int32 tensor": lambda row: torch.tensor(row, dtype=torch.int32),
    "array": np.array,
    "uint8 array": lambda row: np.array(row, dtype=np.uint8),
}


@pytest.mark.parametrize("kind", KINDS)
def test_packs_every_kind_of_row(kind):
    rows = [KINDS[kind](row) for row in ([5, 6, 7], [8], [9, 10])]
    ragged = pack(check_rows(rows, "input_ids"), "input_ids")
    assert ragged.flat.tolist() == [5, 6, 7, 8, 9, 10]
    assert ragged.lengths.tolist() == [3, 1, 2]
    assert ragged.flat.dtype == ragged.lengths.dtype == torch.int64


def test_packs_kinds_side_by_side():
    rows = check_rows([[5, 6], torch.tensor([7]), np.array([8]), range(9, 11)], "input_ids")
    assert pack(rows, "input_ids").flat.tolist() == [5, 6, 7, 8, 9, 10]


def test_what_is_packed_is_a_copy():
    row = np.array([5, 6])
    flat = pack([row], "input_ids").flat
    flat[0] = 9
    assert row.tolist() == [5, 6]


def test_cuts_on_either_side():
    rows = [[1, 2, 3, 4], [5], []]
    assert keep_first(rows, 2) == [[1, 2], [5], []]
    assert keep_last(rows, 2) == [[3, 4], [5], []]
    assert keep_first(rows, 0) == keep_last(rows, 0) == [[], [], []]
    assert keep_last(rows, [3, 0, 1]) == [[2, 3, 4], [], []]
    assert keep_first(rows, None) == keep_last(rows, None) == rows
    assert rows == [[1, 2, 3, 4], [5], []]


@pytest.mark.parametrize(
    ("row", "shown"),
    [
        ([5, 1.5], "1.5"),
        (["a"], "'a'"),
        ([5, None], "None"),
        ([[5, 6]], r"\[5, 6\]"),
        ([2**70], str(2**70)),
        ([True, False], "booleans"),
        ("12", "str"),
        (None, "None"),
        (7, "int"),
        (torch.tensor([1.0]), "float32"),
        (torch.tensor([True]), "bool"),
        (torch.tensor([[1]]), r"\(1, 1\)"),
        (torch.tensor(1), r"\(\)"),
        (np.array([0.5]), "float64"),
        (np.array([[1]]), r"\(1, 1\)"),
    ],
)
def test_refuses_what_is_not_token_ids(row, shown):
    with pytest.raises(ValueError, match=rf"input_ids of row 1 .*{shown}.*integer token ids"):
        pack(check_rows([[5], row], "input_ids"), "input_ids")


@pytest.mark.parametrize("bad", [-1, -100])
def test_refuses_negative_ids_and_names_the_row(bad):
    with pytest.raises(ValueError, match=rf"row 2 .*holds {bad};.*0 or more"):
        pack([[5, 6], [7], [8, bad]], "input_ids")


@pytest.mark.parametrize("row", [[], (), torch.tensor([]).long(), np.array([])])
def test_an_empty_row_is_refused_unless_allowed(row):
    with pytest.raises(ValueError, match="input_ids of row 1 of the batch is empty"):
        check_rows([[5], row], "input_ids")
    rows = check_rows([[5], row], "input_ids", allow_empty=True)
    assert pack(rows, "input_ids").lengths.tolist() == [1, 0]


def test_reads_a_column_or_says_what_is_missing():
    assert read_column([{"a": [1]}, {"a": [2], "b": 0}], "a", "me") == [[1], [2]]
    with pytest.raises(KeyError, match="me needs the field 'a', which row 1 .*its fields: b"):
        read_column([{"a": [1]}, {"b": [2]}], "a", "me")
    with pytest.raises(ValueError, match="me was given an empty batch"):
        read_column([], "a", "me")
