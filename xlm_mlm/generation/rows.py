"""Which rows a process predicts: of W processes, the one of rank r takes r, r + W, r + 2 W, ..."""

import random
from collections.abc import Iterator
from hashlib import blake2b
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, Subset


class _EveryNth(IterableDataset):
    """Rows `first`, `first + step`, ... below `stop` of a dataset that can only be iterated."""

    def __init__(self, dataset: Any, first: int, stop: int | None, step: int) -> None:
        self.dataset, self.first, self.stop, self.step = dataset, first, stop, step

    def __iter__(self) -> Iterator[Any]:
        return islice(iter(self.dataset), self.first, self.stop, self.step)


def count_rows(dataset: Any, limit: int | None) -> int | None:
    """Rows that are to be predicted; None if the dataset does not know how many it has."""
    try:
        size = len(dataset)
    except TypeError:
        return None
    return size if limit is None else min(size, limit)


def rows_of_rank(
    loader: DataLoader, rank: int, world: int, done: int, limit: int | None
) -> DataLoader:
    """A loader of this process's share: in order, the last short batch included, no workers.

    Args:
        loader: as the datamodule made it; its dataset, collator and batch size are used.
        rank: of this process, from 0.
        world: how many processes there are.
        done: rows of the share to skip.
        limit: rows of the dataset, all ranks together; all if None.
    """
    first, dataset = rank + world * done, loader.dataset
    share: Any
    if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__getitem__"):
        stop = None if limit is None else max(limit, first)
        share = _EveryNth(dataset, first, stop, world)
    else:
        share = Subset(dataset, range(first, count_rows(dataset, limit) or 0, world))
    # In this process: a batch's random state is set before it is collated.
    return DataLoader(
        share, batch_size=loader.batch_size or 1, collate_fn=loader.collate_fn, drop_last=False
    )


def seed_batch(seed: int, dataloader: int, sample: int) -> None:
    """Set all global generators for a batch, so that it does not depend on what ran before it.

    Args:
        seed: of the run.
        dataloader: the loader's number.
        sample: the number of the batch's first row.
    """
    digest = blake2b(f"{seed} {dataloader} {sample}".encode(), digest_size=8).digest()
    number = int.from_bytes(digest, "big") >> 1
    torch.manual_seed(number)
    random.seed(number)
    np.random.seed(number % 2**32)
