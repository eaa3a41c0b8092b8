"""Rows and their masks put together."""

import numpy as np
import pytest
import torch

from xlm_mlm.collation.mask_sampling import MaskSampler, bernoulli_mask
from xlm_mlm.collation.masking import hide, masked_batch
from xlm_mlm.collation.randomness import RandomSource

MASK = 2


def sampler(sampling="bernoulli"):
    return MaskSampler(sampling, None, RandomSource())


@pytest.mark.parametrize("mask_id", [0, 2, 30_000])
def test_hides_as_a_loop_would_and_copies(mask_id):
    ids = torch.randint(30_001, (5, 7)).numpy()
    original = ids.copy()
    for masked in (
        bernoulli_mask((5, 7), RandomSource()),
        np.ones((5, 7), bool),
        np.zeros((5, 7), bool),
    ):
        found = hide(ids, masked, mask_id)
        assert found.tolist() == [
            [mask_id if hidden else token for token, hidden in zip(row, where, strict=True)]
            for row, where in zip(ids.tolist(), masked.tolist(), strict=True)
        ]
        assert found.dtype == np.int64
        found[:] = -1
    assert np.array_equal(ids, original)


IDS = np.array([[10, 11, 12, 0], [13, 14, 0, 0]])
VISIBLE = np.array([[True, True, True, False], [True, True, False, False]])


def naive_batch(ids, visible, masked):
    inputs, targets = [], []
    for row, seen, hidden in zip(ids, visible, masked, strict=True):
        inputs.append([2 if h else t for t, h in zip(row, hidden, strict=True)])
        targets.append([t if s and t != 2 else -100 for t, s in zip(row, seen, strict=True)])
    return inputs, targets


@pytest.mark.parametrize("visible", [None, VISIBLE])
@pytest.mark.parametrize("eligible", [None, VISIBLE, VISIBLE & (IDS != 11), np.zeros((2, 4), bool)])
@pytest.mark.parametrize("holds_a_mask", [True, False])
def test_a_batch_as_a_loop_would(visible, eligible, holds_a_mask):
    ids = np.where(IDS == 12, 2, IDS) if holds_a_mask else IDS
    original = ids.copy()
    seen = np.ones_like(VISIBLE) if visible is None else visible
    allowed = np.ones_like(VISIBLE) if eligible is None else eligible
    hits = torch.zeros(2, 4, dtype=torch.bool)
    for seed in range(100):
        torch.manual_seed(seed)
        batch = masked_batch(ids, visible, eligible, 2, sampler())
        torch.manual_seed(seed)
        masked = bernoulli_mask((2, 4), RandomSource()) & allowed
        inputs, targets = naive_batch(ids.tolist(), seen.tolist(), masked.tolist())
        assert batch["input_ids"].tolist() == inputs
        assert batch["target_ids"].tolist() == targets
        assert batch["attention_mask"].tolist() == seen.tolist()
        hits |= torch.from_numpy(masked)
    assert hits.tolist() == allowed.tolist()
    assert np.array_equal(ids, original)


def test_one_row_of_eligible_positions_stands_for_all():
    eligible = np.array([[False, True, True, False]])
    hits = np.zeros((2, 4), dtype=bool)
    for _ in range(60):
        hits |= masked_batch(IDS, None, eligible, 2, sampler())["input_ids"].numpy() == 2
    assert hits.tolist() == eligible.repeat(2, axis=0).tolist()
