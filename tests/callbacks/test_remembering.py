"""Rows as before, and a loader's workers that go on drawing where they stopped."""

import pickle

import pytest
import torch
from torchdata.stateful_dataloader import StatefulDataLoader
from xlm.datamodule import SimpleSpaceTokenizer

from xlm_mlm.callbacks.remembering import RememberingRows
from xlm_mlm.collation.single import DefaultMLMCollator

ROWS = [{"input_ids": [10 + row] * 6} for row in range(10)]


class Counting(list):
    """Rows that count how often they were read, and offer more than a list does."""

    reads = 0
    name = "rows"

    def __getitems__(self, indices):
        self.reads += len(indices)
        return [self[index] for index in indices]

    def state_dict(self):
        return {"reads": self.reads}

    def load_state_dict(self, state):
        self.reads = state["reads"]


def collator(generator=None):
    tokenizer = SimpleSpaceTokenizer.for_numbers(20)
    return DefaultMLMCollator(tokenizer, 8, None, generator=generator)


def test_they_are_the_rows():
    rows = RememberingRows(Counting(ROWS), None)
    assert (len(rows), rows[3], rows.name) == (10, ROWS[3], "rows")
    assert rows.__getitems__([1, 2]) == ROWS[1:3]
    assert rows.reads == 2
    assert not hasattr(RememberingRows(ROWS, None), "__getitems__")
    again = pickle.loads(pickle.dumps(rows))
    assert (len(again), again[3], again.reads) == (10, ROWS[3], 2)


def test_in_the_main_process_only_the_state_of_the_rows_is_kept():
    torch.manual_seed(0)
    rows = RememberingRows(Counting(ROWS), collator())
    assert RememberingRows(ROWS, collator()).state_dict() is None
    state = rows.state_dict()
    assert state == {"reads": 0}
    rows.load_state_dict({"reads": 4})
    assert rows.reads == 4
    RememberingRows(ROWS, collator()).load_state_dict({"reads": 4})


@pytest.mark.parametrize("own", [False, True])
def test_workers_go_on_where_they_were(own):
    def loader():
        torch.manual_seed(1)
        generator = torch.Generator().manual_seed(2) if own else None
        collate = collator(generator)
        rows = RememberingRows(Counting(ROWS), collate)
        return StatefulDataLoader(rows, batch_size=1, num_workers=2, collate_fn=collate)

    first, ids, state = loader(), [], None
    for number, batch in enumerate(first):
        ids.append(batch["input_ids"])
        if number == 4:  # an odd number of batches: the next is the second worker's
            state = first.state_dict()
    second = loader()
    second.load_state_dict(state)
    rest = [batch["input_ids"] for batch in second]
    assert len(rest) == 5
    assert all(torch.equal(a, b) for a, b in zip(rest, ids[5:], strict=True))
    assert len({tuple(row[0].tolist()) for row in ids}) > 5
