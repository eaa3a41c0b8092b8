"""Rows are read back as they were written; a line that is none is named."""

import json

import pytest
import torch

from xlm_mlm.generation.lines import head_of, line_of, read_rows, row_of

ROW = {"sample": 0, "dataloader": "a"}


def test_a_strange_line_is_named(tmp_path):
    path = tmp_path / "predictions.jsonl"
    path.write_bytes(line_of(ROW) + b"what\n")
    with pytest.raises(ValueError, match="line 2 of .* is no row"):
        list(read_rows(path))


def test_values_are_written_plainly():
    line = line_of(ROW | {"x": torch.tensor([1, 2]), "y": torch.tensor(0.5), "z": "\ud800"})
    assert json.loads(line)["x"] == [1, 2]
    assert json.loads(line)["y"] == 0.5
    assert line.count(b"\n") == 1


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "1" * 5_000])
def test_a_line_nested_deeply_is_named(tmp_path, text):
    path = tmp_path / "predictions.jsonl"
    for before, number in ((b"", 1), (line_of(ROW), 2)):
        path.write_bytes(before + text.encode() + b"\n")
        with pytest.raises(ValueError, match=f"line {number} of .*predictions.jsonl is no row"):
            list(read_rows(path))
    assert row_of(text.encode() + b"\n") is None
    assert head_of(text.encode() + b"\n") is None
