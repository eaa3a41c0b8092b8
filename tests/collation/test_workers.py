"""Collators in worker processes: every worker masks differently, a seed repeats them all."""

import inspect
import operator
import pickle

import pytest
import torch
from torch.utils.data import DataLoader
from xlm.datamodule import SimpleSpaceTokenizer

from xlm_mlm.datamodule_mlm import (
    DefaultInfillMLMCollator,
    DefaultMLMCollator,
    MLMInfillWithExactTargetPredCollator,
    MLMSeq2SeqCollator,
    MLMSeq2SeqPredCollator,
    MLMSeq2SeqTrainCollator,
    MLMUnconditionalPredCollator,
    PackedMLMCollator,
)
from xlm_mlm.papl_unconditional import PaplUnconditionalCollator

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


NUMBERS = [5, 9, 11, 7] * 3
TEXT = [{"input_ids": NUMBERS}] * 4
PAIRS = [{"prompt_ids": NUMBERS[:3], "target_ids": NUMBERS[3:]}] * 4
INFILL = [{"input_ids": NUMBERS, "prompt_ids": [MASK] * 12}] * 4
COLLATORS = {
    DefaultMLMCollator: TEXT,
    PackedMLMCollator: TEXT,
    DefaultInfillMLMCollator: INFILL,
    MLMInfillWithExactTargetPredCollator: INFILL,
    MLMSeq2SeqTrainCollator: PAIRS,
    MLMSeq2SeqCollator: PAIRS,
    MLMSeq2SeqPredCollator: PAIRS,
    MLMUnconditionalPredCollator: INFILL,
    PaplUnconditionalCollator: INFILL,
}
TRAINING = [*list(COLLATORS)[:3], MLMSeq2SeqTrainCollator, MLMSeq2SeqCollator]


def equal(first, second):
    assert first.keys() == second.keys()
    for name, value in first.items():
        same = torch.equal if isinstance(value, torch.Tensor) else operator.eq
        assert same(value, second[name]), name


@pytest.mark.parametrize("kind", COLLATORS, ids=lambda kind: kind.__name__)
def test_every_collator_goes_to_workers_as_it_is(kind, tokenizer):
    options = {"tokenizer": tokenizer, "block_size": 12, "input_block_size": 4}
    options |= {"noise_schedule": None, "use_flex_attn": True}
    taken = inspect.signature(kind.__init__).parameters
    options = {name: value for name, value in options.items() if name in taken}
    if "generator" in taken:
        options["generator"] = torch.Generator().manual_seed(5)
    collator = kind(**options)
    copy = pickle.loads(pickle.dumps(collator))
    equal(copy(COLLATORS[kind]), collator(COLLATORS[kind]))
    loader = DataLoader(COLLATORS[kind], 2, num_workers=2, collate_fn=collator)
    passes = []
    for _ in range(2):
        torch.manual_seed(1)
        passes.append(list(loader))
    for first, second in zip(*passes, strict=True):
        equal(first, second)
    drawn = [batch["input_ids"] == MASK for batch in passes[0]]
    assert torch.equal(*drawn) is (kind not in TRAINING)
