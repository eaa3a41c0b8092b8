"""What all collators that YAML names have in common."""

import copy
import pickle

import numpy as np
import pytest
import torch
from xlm.datamodule import Collator

import xlm_mlm
import xlm_mlm.datamodule_mlm as face
from xlm_mlm.collation.mask_sampling import MASK_SAMPLING
from xlm_mlm.papl_unconditional import PaplUnconditionalCollator

MASK = 2
EXAMPLES = [
    {
        "input_ids": [10, 3, 11, 12],
        "prompt_ids": [10, MASK, MASK, 12],
        "target_ids": [13, 14, 15],
        "answer": "a",
    },
    {
        "input_ids": [16, 17, 18, 3],
        "prompt_ids": [MASK, 17, 18, MASK],
        "target_ids": [19],
        "answer": "b",
    },
]


def build(name, tokenizer, **options):
    cls = getattr(face, name)
    if "Seq2Seq" in name:
        return cls(tokenizer, None, 6, 5, **options)
    if name == "PackedMLMCollator":
        return cls(tokenizer, 8, None, use_flex_attn=True, **options)
    return cls(tokenizer, 8, None, **options)


NAMES = [name for name in face.__all__ if name.endswith("Collator")]


def equal(first, second):
    assert first.keys() == second.keys()
    return all(
        torch.equal(first[name], second[name])
        if isinstance(first[name], torch.Tensor)
        else first[name] == second[name]
        for name in first
    )


def test_every_collator_is_covered():
    assert len(NAMES) == 8
    assert all(getattr(xlm_mlm, name) is getattr(face, name) for name in face.__all__)


@pytest.mark.parametrize("name", NAMES)
def test_has_the_attributes_of_the_hosts_protocol(tokenizer, name):
    collator = build(name, tokenizer)
    assert Collator in type(collator).__mro__
    assert collator.tokenizer is tokenizer
    assert collator.block_size in (6, 8)
    assert collator.noise_schedule is None


@pytest.mark.parametrize("name", NAMES)
def test_dtypes(tokenizer, name):
    for key, value in build(name, tokenizer)(EXAMPLES).items():
        if isinstance(value, torch.Tensor):
            expected = torch.bool if key.endswith("_mask") else torch.int64
            assert value.dtype == expected, key
            assert value.is_contiguous(), key


@pytest.mark.parametrize("name", NAMES)
def test_examples_stay_as_they_are_and_are_not_shared(tokenizer, name):
    arrays = [
        {key: np.array(value) if key.endswith("ids") else value for key, value in row.items()}
        for row in EXAMPLES
    ]
    for examples in (EXAMPLES, arrays):
        before = copy.deepcopy(examples)
        batch = build(name, tokenizer)(examples)
        for value in batch.values():
            if isinstance(value, torch.Tensor):
                value.fill_(0)
        for row, old in zip(examples, before, strict=True):
            assert row.keys() == old.keys()
            assert all(np.array_equal(row[key], old[key]) for key in row)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", [tuple, torch.tensor, np.array])
def test_rows_of_any_kind_give_the_same_batch(tokenizer, name, kind):
    collator = build(name, tokenizer)
    others = [
        {key: kind(value) if key.endswith("ids") else value for key, value in row.items()}
        for row in EXAMPLES
    ]
    batches = []
    for examples in (EXAMPLES, others):
        torch.manual_seed(7)
        batches.append(collator(examples))
    assert equal(*batches)


@pytest.mark.parametrize("name", NAMES)
def test_a_pickled_collator_goes_on_with_the_same_random_numbers(tokenizer, name):
    collator = build(name, tokenizer, generator=torch.Generator().manual_seed(3))
    collator(EXAMPLES)
    twin = pickle.loads(pickle.dumps(collator))
    assert equal(twin(EXAMPLES), collator(EXAMPLES))
    assert twin.generator.initial_seed() == 3


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("sampling", MASK_SAMPLING)
def test_every_collator_takes_mask_sampling(tokenizer, name, sampling):
    options = {"mask_sampling": sampling, "generator": torch.Generator().manual_seed(3)}
    collator = build(name, tokenizer, **options)
    assert collator.mask_sampling == sampling
    twin = pickle.loads(pickle.dumps(collator))
    batch = collator(EXAMPLES)
    assert equal(twin(EXAMPLES), batch)
    doubled = sampling == "complementary" and "Pred" not in name
    assert {len(value) for value in batch.values()} == {4 if doubled else 2}
    with pytest.raises(ValueError, match="mask_sampling is 'stratifed'; it must be one of"):
        build(name, tokenizer, mask_sampling="stratifed")


@pytest.mark.parametrize("name", [*NAMES, "PaplUnconditionalCollator"])
def test_numbers_of_samples_reach_the_batches_to_predict(tokenizer, name):
    predicts = "Pred" in name or "Papl" in name
    collator = build(name, tokenizer) if name in NAMES else PaplUnconditionalCollator()
    numbered = [{**row, "sample_id": i} for row, i in zip(EXAMPLES, (8, 3), strict=True)]
    assert collator.numbers_samples is predicts
    assert "sample_ids" not in collator(EXAMPLES)
    batch = collator(numbered)
    assert ("sample_ids" in batch) is predicts
    if predicts:
        assert batch["sample_ids"].tolist() == [8, 3]
        with pytest.raises(ValueError, match="row 0 of the batch has a sample_id and row 1 has"):
            collator([numbered[0], EXAMPLES[1]])


@pytest.mark.parametrize("name", NAMES)
def test_prediction_targets_never_hold_minus_100(tokenizer, name):
    batch = build(name, tokenizer)(EXAMPLES)
    if "Pred" in name:
        assert (batch["target_ids"] >= 0).all()
        assert not (batch["target_ids"] == MASK).any() or "Unconditional" in name
    else:
        visible = batch.get("attention_mask", torch.ones_like(batch["target_ids"]).bool())
        ignored = batch["target_ids"] == -100
        assert ignored[~visible].all()
        # The other ones are masks that the examples themselves hold.
        assert (batch["input_ids"][ignored & visible] == MASK).all()


def test_the_papl_collator_has_the_attributes_too():
    collator = PaplUnconditionalCollator()
    assert Collator in type(collator).__mro__
    assert (collator.tokenizer, collator.block_size, collator.noise_schedule) == (None,) * 3
