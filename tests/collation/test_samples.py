"""Numbers of samples."""

import numpy as np
import pytest
import torch

from xlm_mlm.collation.samples import Process, sample_ids_of, with_sample_ids


def rows(*ids):
    return [{"input_ids": [7], "sample_id": i} for i in ids]


@pytest.mark.parametrize("kind", [int, np.int32, np.uint8, torch.tensor])
def test_numbers_are_read_in_order(kind):
    ids = sample_ids_of(rows(*map(kind, (5, 0, 7, 5))))
    assert ids.tolist() == [5, 0, 7, 5]
    assert ids.dtype == torch.int64


def test_without_numbers_there_are_none():
    examples = [{"input_ids": [7]}] * 2
    assert sample_ids_of(examples) is None
    assert with_sample_ids({"a": 1}, examples) == {"a": 1}
    assert with_sample_ids({}, rows(3))["sample_ids"].tolist() == [3]
    assert sample_ids_of(rows(2**63 - 1)).tolist() == [2**63 - 1]


def test_some_with_and_some_without_are_refused():
    with pytest.raises(ValueError, match="row 1 of the batch has a sample_id and row 0 has none"):
        sample_ids_of([{"input_ids": [7]}, *rows(1)])


@pytest.mark.parametrize(
    "value", [-1, 1.0, True, None, "3", [3], torch.tensor([3]), torch.tensor(True), 2**63]
)
def test_what_is_no_number_is_refused(value):
    with pytest.raises(ValueError, match="sample_id of row 1 of the batch is "):
        sample_ids_of(rows(0, value))


def test_there_is_one_process_unless_torch_has_a_group(monkeypatch):
    assert Process.this() == (0, 1)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 2)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 3)
    assert Process.this() == (2, 3)
