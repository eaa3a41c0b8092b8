"""Samples of fixed lengths."""

import logging
import pickle
from types import SimpleNamespace

import pytest
import torch
from torch.utils.data import DataLoader

from xlm_mlm.collation.samples import Process
from xlm_mlm.papl_unconditional import (
    PAPL_DEFAULT_LENGTHS,
    PaplUnconditionalCollator,
    PaplUnconditionalMLMDataset,
)

MASK = 2


def lengths_of(dataset):
    return [len(row["input_ids"]) for row in dataset]


def test_rows_of_each_length_in_order(tokenizer):
    dataset = PaplUnconditionalMLMDataset(tokenizer, 2, lengths=[3, 5])
    assert list(dataset) == [
        {"input_ids": [MASK] * n, "sample_id": i} for i, n in enumerate((3, 3, 5, 5))
    ]


def test_default_lengths(tokenizer):
    assert PAPL_DEFAULT_LENGTHS == (100, 200, 300, 400, 500, 600, 700, 800)
    assert lengths_of(PaplUnconditionalMLMDataset(tokenizer, 1)) == list(PAPL_DEFAULT_LENGTHS)


def test_batches_of_one_length(tokenizer):
    dataset = PaplUnconditionalMLMDataset(tokenizer, 4, lengths=(3, 5))
    loader = DataLoader(dataset, batch_size=2, collate_fn=PaplUnconditionalCollator())
    batches = list(loader)
    assert [batch["input_ids"].shape for batch in batches] == [(2, 3)] * 2 + [(2, 5)] * 2
    for batch in batches:
        assert (batch["input_ids"] == MASK).all()
        assert batch["attention_mask"].dtype == torch.bool
        assert batch["attention_mask"].all()
        assert torch.equal(batch["target_ids"], batch["input_ids"])
        assert batch["target_ids"] is not batch["input_ids"]


def test_workers_share_the_rows(tokenizer):
    dataset = PaplUnconditionalMLMDataset(tokenizer, 4, lengths=(3, 5))
    loader = DataLoader(
        dataset, batch_size=2, num_workers=2, collate_fn=PaplUnconditionalCollator()
    )
    batches = list(loader)
    shapes = sorted(tuple(batch["input_ids"].shape) for batch in batches)
    assert shapes == [(2, 3)] * 2 + [(2, 5)] * 2
    numbers = {n: [] for n in (3, 5)}
    for batch in batches:
        numbers[batch["input_ids"].shape[1]] += batch["sample_ids"].tolist()
    assert {n: sorted(found) for n, found in numbers.items()} == {3: [0, 1, 2, 3], 5: [4, 5, 6, 7]}


def test_processes_count_as_one_would_with_all_their_rows(tokenizer, monkeypatch):
    found = []
    for rank in range(2):
        monkeypatch.setattr(Process, "this", lambda rank=rank: Process(rank, 2))
        rows = PaplUnconditionalMLMDataset(tokenizer, 2, lengths=(3, 5))
        found += [(row["sample_id"], len(row["input_ids"])) for row in rows]
    assert sorted(found) == [(i, 3 if i < 4 else 5) for i in range(8)]


def test_lengths_must_be_equal():
    rows = [{"input_ids": [MASK] * 3}, {"input_ids": [MASK] * 5}]
    with pytest.raises(ValueError, match=r"fixed length.*\[3, 5\]"):
        PaplUnconditionalCollator()(rows)


def test_bad_input(tokenizer):
    collator = pickle.loads(pickle.dumps(PaplUnconditionalCollator()))
    with pytest.raises(ValueError, match="empty batch"):
        collator([])
    with pytest.raises(ValueError, match="is empty"):
        collator([{"input_ids": []}])
    with pytest.raises(KeyError, match="'input_ids'"):
        collator([{}])
    for count, lengths, message in (
        (-1, [3], "examples_per_node is -1"),
        (1, [0], "a length is 0"),
        (1, [], "lengths is empty"),
        (1, ["3"], "a length is '3'"),
    ):
        with pytest.raises(ValueError, match=message):
            PaplUnconditionalMLMDataset(tokenizer, count, lengths)
    with pytest.raises(ValueError, match="no mask token"):
        PaplUnconditionalMLMDataset(SimpleNamespace(mask_token_id=None), 1)


def test_other_options_are_ignored_aloud(tokenizer, caplog):
    with caplog.at_level(logging.WARNING):
        dataset = PaplUnconditionalMLMDataset(tokenizer, 1, [3], max_length=7)
    assert lengths_of(dataset) == [3]
    assert "ignores max_length" in caplog.text
