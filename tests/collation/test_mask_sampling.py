"""The ways to draw masks against loops, and the statistics that define each."""

import numpy as np
import pytest
import torch

from xlm_mlm.collation.mask_sampling import (
    MASK_SAMPLING,
    MaskSampler,
    bernoulli_mask,
    exact_mask,
    stratified_rates,
    uniform_counts,
)
from xlm_mlm.collation.randomness import RandomSource


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


MASK = 2
IDS = np.array([[10, 11, MASK, 13, 14, 15], [16, 17, 18, 19, 20, 21], [MASK, 7, 8, 9, 10, 11]])
ELIGIBLE = np.array(
    [[True, True, True, False, True, True], [False] * 6, [True, False, False, True, False, False]]
)


class Fixed:
    """Gives the words it was told to, whatever their shape."""

    def __init__(self, *rows):
        self.given = [np.array(row, dtype=np.uint32) for row in rows]

    def words(self, rows, columns):
        return self.given.pop(0).reshape(rows, columns)

    def permutation(self, count):
        return np.arange(count)[::-1]


def sampler(sampling, schedule=None):
    return MaskSampler(sampling, schedule, RandomSource())


def within(shares, expected, draws, errors=4):
    """Whether shares of so many draws are that many standard errors from their probability."""
    error = (np.asarray(expected) * (1 - np.asarray(expected)) / draws) ** 0.5
    return (np.abs(shares - expected) <= errors * error).all()


def test_bernoulli_draws_what_it_always_did():
    """The words of one call in order: a rate and then the positions of each row."""
    torch.manual_seed(3)
    masked, weights = sampler("bernoulli").draw(IDS, ELIGIBLE, MASK)
    torch.manual_seed(3)
    pairs = torch.empty(11, dtype=torch.int64).random_(-(2**63), None)
    words = pairs.numpy().view(np.uint32)[:21].reshape(3, 7).tolist()
    assert masked.tolist() == [
        [may and word < row[0] for word, may in zip(row[1:], allowed, strict=True)]
        for row, allowed in zip(words, ELIGIBLE.tolist(), strict=True)
    ]
    assert weights is None


@pytest.mark.parametrize("rows", [1, 2, 7, 64])
def test_stratified_rates_have_one_in_every_stratum(rows):
    seen = []
    for _ in range(50):
        rates = stratified_rates(rows, RandomSource())
        assert sorted(int(rate * rows) for rate in rates) == list(range(rows))
        # They are equally far apart: one number u decides them all.
        assert np.diff(sorted(rates)) == pytest.approx(1 / rows)
        seen.append(rates)
    # Each row's own rate is uniform: mean 1/2, variance 1/12, over 50 batches and all rows.
    means = np.stack(seen).mean(axis=0)
    assert (np.abs(means - 0.5) < 5 * (1 / 12 / 50) ** 0.5).all()


def test_stratified_masks_as_a_loop_would():
    words = [[0, 2**30, 2**31], [2**31, 2**30 - 1, 2**32 - 1]]
    # u = 1/2, so the rates are 1/4 and 3/4; the order is turned round.
    source = Fixed([2**31], words)
    masked, weights = MaskSampler("stratified", None, source).draw(np.ones((2, 3)), None, MASK)
    rates = [0.75, 0.25]
    assert masked.tolist() == [
        [word < rate * 2**32 for word in row] for row, rate in zip(words, rates, strict=True)
    ]
    assert weights is None


def test_stratified_counts_are_uniform_and_spread_in_every_batch():
    # 32 rows of 600 positions: of every 32nd of the range, one row; the rate of a row of 600
    # deviates by up to 0.02 (one standard error), so sorted shares lie near the strata's middles.
    shares = np.sort(sampler("stratified").draw(np.ones((32, 600)), None, MASK).masked.mean(axis=1))
    middles = (np.arange(32) + 0.5) / 32
    assert np.abs(shares - middles).max() < 0.5 / 32 + 5 * 0.0205
    # Independent rates would be this near with a standard deviation of 0.05 in the mean alone.
    assert abs(shares.mean() - 0.5) < 0.5 / 32 + 5 * (1 / 6 / 600 / 32) ** 0.5


def naive_exact(count, eligible, words):
    """The eligible columns of the `count` smallest words; the first of equal ones."""
    columns = [c for c, may in enumerate(eligible) if may]
    chosen = sorted(columns, key=lambda c: (words[c], c))[:count]
    return [c in chosen for c in range(len(eligible))]


@pytest.mark.parametrize("most", [3, 2**32])
def test_exact_masks_as_a_loop_would(most):
    """Words below 3 are equal more often than not."""
    rng = np.random.default_rng(1)
    for _ in range(100):
        eligible = rng.random((4, 9)) < 0.6
        counts = np.array([rng.integers(0, row.sum() + 1) for row in eligible])
        words = rng.integers(0, most, (4, 9))
        masked = exact_mask(counts, eligible, Fixed(words))
        assert masked.tolist() == [
            naive_exact(*row) for row in zip(counts, eligible, words, strict=True)
        ]
        assert masked.sum(axis=1).tolist() == counts.tolist()


@pytest.mark.parametrize("least", [0, 1])
def test_counts_are_uniform(least):
    most = np.array([0, 1, 2, 5])
    drawn = np.stack([uniform_counts(least, most, RandomSource()) for _ in range(4000)])
    for column, top in enumerate(most):
        possible = np.arange(least, top + 1) if top >= least else np.array([0])
        shares = np.array([(drawn[:, column] == n).mean() for n in possible])
        assert shares.sum() == pytest.approx(1)
        assert within(shares, 1 / len(possible), 4000)
    for words, expected in (([0] * 4, np.minimum(least, most)), ([2**32 - 1] * 4, most)):
        assert uniform_counts(least, most, Fixed(words)).tolist() == expected.tolist()


@pytest.mark.parametrize("sampling", ["exact_count", "complementary"])
def test_all_sets_of_a_count_come_up_alike(sampling):
    """Four positions: 16 sets, each of its count's probability over the sets of that count."""
    rows, sizes = 6000, [1, 4, 6, 4, 1]
    draw = sampler(sampling).draw(np.full((rows, 4), 9), None, MASK).masked[:rows]
    codes = np.bincount(draw @ [1, 2, 4, 8], minlength=16) / rows
    for code, share in enumerate(codes):
        n = bin(code).count("1")
        of_count = 1 / 5 if sampling == "complementary" else (n > 0) / 4
        assert within(share, of_count / sizes[n], rows)


def test_exact_count_leaves_no_row_without_a_mask_and_none_in_the_data_counts():
    counts = []
    for _ in range(400):
        masked, weights = sampler("exact_count").draw(IDS, ELIGIBLE, MASK)
        # Four, none and one position that may be masked and whose token is known.
        assert not (masked & ~(ELIGIBLE & (IDS != MASK))).any()
        counts.append(masked.sum(axis=1))
        expected = [(of / n if n else 0) for of, n in zip((4, 0, 1), counts[-1], strict=True)]
        assert weights.tolist() == pytest.approx(expected)
        assert weights.dtype == np.float32
    counts = np.stack(counts)
    assert (counts[:, 1] == 0).all()
    assert (counts[:, 2] == 1).all()
    assert within(np.bincount(counts[:, 0], minlength=5)[1:] / 400, 1 / 4, 400)


def test_complementary_halves_part_the_eligible_positions():
    counts = []
    for _ in range(600):
        masked, weights = sampler("complementary").draw(IDS, ELIGIBLE, MASK)
        first, second = masked[:3], masked[3:]
        assert not (first & second).any()
        assert ((first | second) == (ELIGIBLE & (IDS != MASK))).all()
        assert weights is None
        counts.append((first[0].sum(), second[0].sum()))
    for half in np.array(counts).T:
        assert within(np.bincount(half, minlength=5) / 600, 1 / 5, 600)


def test_what_goes_with_rows_is_repeated_with_them():
    rows, names = np.arange(6).reshape(3, 2), ["a", "b", "c"]
    for sampling in MASK_SAMPLING:
        draws = sampler(sampling)
        copies = 2 if sampling == "complementary" else 1
        assert draws.copies == copies
        assert draws.repeat(rows).tolist() == rows.tolist() * copies
        assert draws.repeat(names) == names * copies
        masked = draws.draw(IDS, None, MASK).masked
        assert masked.shape == (3 * copies, 6)
    assert rows.shape == (3, 2)


@pytest.mark.parametrize("sampling", ["stratified", "exact_count", "complementary"])
def test_a_seed_repeats_every_way(sampling):
    sources = [RandomSource(torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    state = torch.get_rng_state()
    draws = [MaskSampler(sampling, None, source).draw(IDS, None, MASK).masked for source in sources]
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], draws[2])


class LogLinear:
    """Masks a token with probability t."""

    def sample_t(self, batch_size):
        return torch.rand(batch_size)

    def __call__(self, t):
        return 1 / (1 - t), -torch.log1p(-t)


def test_a_schedule_sets_the_rate_of_each_row():
    draws = MaskSampler("bernoulli", LogLinear(), RandomSource(torch.Generator().manual_seed(1)))
    ids = np.full((5, 4000), 9)
    torch.manual_seed(4)
    masked, weights = draws.draw(ids, None, MASK)
    torch.manual_seed(4)
    times = torch.rand(5).double().numpy()
    assert within(masked.mean(axis=1), times, 4000, errors=5)
    assert weights == pytest.approx(1 / times, rel=1e-5)
    allowed = np.zeros((1, 4000), dtype=bool)
    assert not draws.draw(ids, allowed, MASK).masked.any()


@pytest.mark.parametrize("sampling", ["stratified", "exact_count", "complementary"])
def test_a_schedule_goes_with_independent_masks_only(sampling):
    with pytest.raises(ValueError, match=f"mask_sampling is '{sampling}' and noise_schedule is Lo"):
        sampler(sampling, LogLinear())


@pytest.mark.parametrize("sampling", ["", "Bernoulli", None, ["bernoulli"]])
def test_an_unknown_way_is_refused(sampling):
    with pytest.raises(ValueError, match="mask_sampling is .* must be one of 'bernoulli', 'strat"):
        sampler(sampling)
