"""Mask rates, and where the random numbers come from."""

import pickle

import pytest
import torch

from xlm_mlm.collation.masking import RandomSource, bernoulli_mask, masked_batch


def masked_shares(rows=4000, length=64):
    eligible = torch.ones(rows, length, dtype=torch.bool)
    return bernoulli_mask(eligible, RandomSource()).float().mean(dim=1)


def test_rates_are_uniform_across_rows():
    # For t ~ U[0, 1] and n positions, the share masked has mean 1/2 and variance 1/12 + 1/(6n).
    # Bounds are five standard errors of 4,000 rows.
    shares = masked_shares()
    variance = 1 / 12 + 1 / (6 * 64)
    assert abs(shares.mean() - 0.5) < 5 * (variance / 4000) ** 0.5
    assert abs(shares.var() - variance) < 0.1 * variance
    # The count is uniform on 0..n, so each tenth of the range holds about a tenth of the rows:
    # the standard error of a share of 0.1 is 0.0047; a tenth of the range is 6 or 7 counts of 65.
    counts = (shares * 64).round().long().bincount(minlength=65)
    assert (counts.float() / 4000 - 1 / 65).abs().max() < 5 * (1 / 65 / 4000) ** 0.5


def test_positions_of_a_row_are_masked_alike():
    eligible = torch.ones(4000, 16, dtype=torch.bool)
    shares = bernoulli_mask(eligible, RandomSource()).float().mean(dim=0)
    assert (shares - 0.5).abs().max() < 5 * (0.25 / 4000) ** 0.5


def test_nothing_is_masked_outside_the_eligible_positions():
    eligible = torch.rand(200, 50) < 0.5
    masked = bernoulli_mask(eligible, RandomSource())
    assert not (masked & ~eligible).any()
    assert (masked & eligible).any()


def test_a_seed_repeats_the_masks_and_another_does_not():
    eligible = torch.ones(8, 32, dtype=torch.bool)
    draws = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        draws.append(bernoulli_mask(eligible, RandomSource()))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_a_generator_leaves_the_global_one_alone():
    state = torch.get_rng_state()
    sources = [RandomSource(torch.Generator().manual_seed(5)) for _ in range(2)]
    assert torch.equal(sources[0].uniform(4), sources[1].uniform(4))
    assert torch.equal(torch.get_rng_state(), state)


def test_a_pickled_source_continues_where_it_was():
    source = RandomSource(torch.Generator().manual_seed(5))
    source.uniform(3)
    copy = pickle.loads(pickle.dumps(source))
    assert torch.equal(copy.uniform(4), source.uniform(4))


@pytest.mark.parametrize("generator", [7, "cpu"])
def test_a_generator_must_be_one(generator):
    with pytest.raises(ValueError, match="must be a torch.Generator on the CPU"):
        RandomSource(generator)


def test_a_batch_has_masks_in_the_input_and_minus_100_where_hidden():
    ids = torch.tensor([[10, 11, 12, 0], [13, 14, 0, 0]])
    visible = torch.tensor([[True, True, True, False], [True, True, False, False]])
    eligible = torch.tensor([[False, True, True, False], [False, True, False, False]])
    original = ids.clone()
    hits = torch.zeros(2, 4)
    for _ in range(200):
        batch = masked_batch(ids, visible, eligible, 2, RandomSource())
        masked = batch["input_ids"] == 2
        assert torch.equal(batch["input_ids"][~masked], ids[~masked])
        assert batch["target_ids"].tolist() == [[10, 11, 12, -100], [13, 14, -100, -100]]
        assert torch.equal(batch["attention_mask"], visible)
        hits += masked
    assert torch.equal(hits > 0, eligible)
    assert torch.equal(ids, original)
