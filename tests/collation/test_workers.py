"""Collators in worker processes: every worker masks differently, a seed repeats them all."""

import pytest
import torch
from torch.utils.data import DataLoader
from xlm.datamodule import SimpleSpaceTokenizer

from xlm_mlm.collation.single import DefaultMLMCollator

MASK = 2
ROWS = [{"input_ids": [10] * 64}] * 4


def masks(loader, seed):
    """One pass: the masks of each batch, the first from the first worker, and so on."""
    torch.manual_seed(seed)
    return [batch["input_ids"] == MASK for batch in loader]


def same(first, second):
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def loader_of(generator, context="fork", sampling="bernoulli"):
    tokenizer = SimpleSpaceTokenizer.for_numbers(20)
    collator = DefaultMLMCollator(tokenizer, 66, None, generator=generator, mask_sampling=sampling)
    return DataLoader(
        ROWS, batch_size=1, num_workers=2, collate_fn=collator, multiprocessing_context=context
    )


@pytest.mark.parametrize("sampling", ["bernoulli", "stratified", "exact_count"])
@pytest.mark.parametrize("with_generator", [False, True])
def test_workers_differ_and_a_seed_repeats_them(with_generator, sampling):
    generator = torch.Generator().manual_seed(11) if with_generator else None
    loader = loader_of(generator, sampling=sampling)
    first = masks(loader, seed=1)
    assert not any(torch.equal(a, b) for i, a in enumerate(first) for b in first[:i])
    assert same(first, masks(loader, seed=1))
    assert not same(first, masks(loader, seed=2))


@pytest.mark.slow
def test_spawned_workers_do_as_forked_ones():
    passes = [
        masks(loader_of(torch.Generator().manual_seed(11), context), seed=1)
        for context in ("fork", "spawn")
    ]
    assert same(*passes)


def test_the_generator_counts_in_workers():
    passes = [masks(loader_of(torch.Generator().manual_seed(seed)), seed=1) for seed in (11, 12)]
    assert not same(*passes)
