"""The printout of a batch."""

import pytest
import torch

from xlm_mlm.collation.packed import PackedMLMCollator
from xlm_mlm.collation.printing import print_batch_mlm
from xlm_mlm.collation.single import DefaultMLMCollator


def test_shows_the_first_row_as_text_and_numbers(tokenizer, capsys):
    batch = {
        "input_ids": torch.tensor([[10, 2, 0], [9, 9, 9]]),
        "attention_mask": torch.tensor([[True, True, False]] * 2),
        "target_ids": torch.tensor([[10, 11, -100], [9, 9, 9]]),
    }
    print_batch_mlm(batch, "train", tokenizer, "lm")
    lines = capsys.readouterr().out.splitlines()
    assert "train/lm" in lines[0]
    assert "(2, 3)" in lines[0]
    assert lines[1:] == [
        "input: 3 [MASK] [PAD]",
        "target: 3 4 [PAD]",
        "input_ids: [10, 2, 0]",
        "attention_mask: [1, 1, 0]",
        "target_ids: [10, 11, -100]",
    ]
    assert batch["target_ids"][0].tolist() == [10, 11, -100]


def test_shows_what_collators_emit(tokenizer, capsys):
    rows = [{"input_ids": [10, 3, 11]}]
    print_batch_mlm(DefaultMLMCollator(tokenizer, 8, None, False)(rows), "val", tokenizer)
    packed = PackedMLMCollator(tokenizer, 3, None, use_flex_attn=True)(rows)
    print_batch_mlm(packed, "val", tokenizer)
    out = capsys.readouterr().out
    assert "segment_ids: [0, 0, 1]" in out
    assert "positions: [0, 1, 0]" in out


def test_targets_may_be_missing(tokenizer, capsys):
    for extra in ({}, {"target_ids": None}):
        print_batch_mlm({"input_ids": torch.tensor([[10]]), **extra}, "predict", tokenizer)
        assert "target" not in capsys.readouterr().out


def test_bad_batches(tokenizer):
    with pytest.raises(KeyError, match="no 'input_ids'; its fields: x"):
        print_batch_mlm({"x": 1}, "train", tokenizer)
    with pytest.raises(ValueError, match="no rows"):
        print_batch_mlm({"input_ids": torch.zeros(0, 3).long()}, "train", tokenizer)
