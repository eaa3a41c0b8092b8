"""Who predicts which row, and the random state of a batch."""

import random

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset

from xlm_mlm.generation.rows import count_rows, rows_of_rank, seed_batch


class Numbers(IterableDataset):
    def __init__(self, count, known=False):
        self.count = count
        if known:
            self.__class__ = type("Sized", (Numbers,), {"__len__": lambda self: self.count})

    def __iter__(self):
        return iter(range(self.count))


def loader(kind, count, batch=3):
    data = list(range(count)) if kind == "map" else Numbers(count)
    # As the field's star data: the last short batch would be dropped.
    return DataLoader(data, batch_size=batch, collate_fn=list, drop_last=True)


@pytest.mark.parametrize("kind", ["map", "iterable"])
@pytest.mark.parametrize("world", [1, 2, 3, 7])
@pytest.mark.parametrize("count", [0, 1, 5, 12, 13])
@pytest.mark.parametrize("limit", [None, 1, 5, 100])
def test_each_row_is_predicted_once(kind, world, count, limit):
    rows = list(range(count if limit is None else min(count, limit)))
    seen = []
    for rank in range(world):
        batches = list(rows_of_rank(loader(kind, count), rank, world, 0, limit))
        assert [n for batch in batches for n in batch] == rows[rank::world]
        assert all(len(batch) == 3 for batch in batches[:-1])
        seen += [n for batch in batches for n in batch]
    assert sorted(seen) == rows


@pytest.mark.parametrize("kind", ["map", "iterable"])
@pytest.mark.parametrize("done", [0, 3, 6, 9])
def test_rows_that_are_done_are_skipped(kind, done):
    found = [n for b in rows_of_rank(loader(kind, 13), 1, 2, done, 11) for n in b]
    assert found == list(range(11))[1::2][done:]


def test_how_many_there_are():
    assert count_rows([1, 2, 3], None) == 3
    assert count_rows([1, 2, 3], 2) == 2
    assert count_rows(Numbers(3), None) is None
    assert count_rows(Numbers(3, known=True), 7) == 3


def drawn():
    return torch.rand(2).tolist(), random.random(), np.random.rand()


def test_a_batch_has_a_random_state_of_its_own():
    seed_batch(1, 0, 6)
    first = drawn()
    assert drawn() != first
    seed_batch(1, 0, 6)
    assert drawn() == first
    others = []
    for where in ((1, 0, 7), (1, 1, 6), (2, 0, 6), (11, 0, 6), (1, 10, 6)):
        seed_batch(*where)
        others.append(drawn())
    assert len({str(each) for each in [first, *others]}) == 6
