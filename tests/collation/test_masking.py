"""Mask rates, and where the random numbers come from."""

import pickle

import numpy as np
import pytest
import torch

from xlm_mlm.collation.masking import RandomSource, bernoulli_mask, hide, masked_batch


def draw(rows, columns):
    return torch.from_numpy(bernoulli_mask((rows, columns), RandomSource()))


def masked_shares(rows=4000, length=64):
    return draw(rows, length).float().mean(dim=1)


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
    shares = draw(4000, 16).float().mean(dim=0)
    assert (shares - 0.5).abs().max() < 5 * (0.25 / 4000) ** 0.5


def test_positions_of_a_row_share_nothing_but_the_rate():
    # Two positions of a row are masked together with probability E[t^2] = 1/3, positions of two
    # rows with 1/4; five standard errors of 20,000 rows.
    masked = draw(20_000, 9).float()
    together = (masked.T @ masked) / 20_000
    off_diagonal = together[~torch.eye(9, dtype=torch.bool)]
    assert (off_diagonal - 1 / 3).abs().max() < 5 * (2 / 9 / 20_000) ** 0.5
    across = (masked[1:] * masked[:-1]).mean(dim=0)
    assert (across - 1 / 4).abs().max() < 5 * (3 / 16 / 20_000) ** 0.5


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (3, 3), (4, 6)])
def test_words_fill_their_range(size):
    # Odd counts as well as even ones, since they are drawn in pairs.
    words = np.stack([RandomSource().words(*size) for _ in range(3000)])
    assert words.shape[1:] == size
    shares = words.astype(np.float64) / 2**32
    assert shares.min() < 0.01
    assert shares.max() > 0.99
    assert np.abs(shares.mean(axis=0) - 0.5).max() < 5 * (1 / 12 / 3000) ** 0.5


def test_a_rate_of_zero_masks_nothing_and_the_largest_all_but_one_value():
    class Fixed:
        def words(self, rows, columns):
            most = 2**32 - 1
            given = [[0, 0, 0, most], [most, 0, most - 1, most], [5, 4, 5, 6]]
            return np.array(given, dtype=np.uint32)

    assert bernoulli_mask((3, 3), Fixed()).tolist() == [
        [False, False, False],
        [True, True, False],
        [True, False, False],
    ]


def test_a_seed_repeats_the_masks_and_another_does_not():
    draws = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        draws.append(draw(8, 32))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_a_generator_leaves_the_global_one_alone():
    state = torch.get_rng_state()
    sources = [RandomSource(torch.Generator().manual_seed(5)) for _ in range(2)]
    assert np.array_equal(sources[0].words(2, 4), sources[1].words(2, 4))
    assert torch.equal(torch.get_rng_state(), state)


def test_a_pickled_source_continues_where_it_was():
    source = RandomSource(torch.Generator().manual_seed(5))
    source.words(1, 3)
    copy = pickle.loads(pickle.dumps(source))
    assert np.array_equal(copy.words(2, 4), source.words(2, 4))


@pytest.mark.parametrize("generator", [7, "cpu"])
def test_a_generator_must_be_one(generator):
    with pytest.raises(ValueError, match="must be a torch.Generator on the CPU"):
        RandomSource(generator)


@pytest.mark.parametrize("mask_id", [0, 2, 30_000])
def test_hides_as_a_loop_would_and_copies(mask_id):
    ids = torch.randint(30_001, (5, 7)).numpy()
    original = ids.copy()
    for masked in (draw(5, 7).numpy(), np.ones((5, 7), bool), np.zeros((5, 7), bool)):
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
        batch = masked_batch(ids, visible, eligible, 2, RandomSource())
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
        hits |= masked_batch(IDS, None, eligible, 2, RandomSource())["input_ids"].numpy() == 2
    assert hits.tolist() == eligible.repeat(2, axis=0).tolist()
