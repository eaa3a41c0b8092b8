"""The ways to draw masks against loops over the random words they are drawn from."""

import math

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from properties.strategies import MASK, PAD, SAMPLINGS, Words, rectangles, seeds, words

from xlm_mlm.collation.mask_sampling import (
    MaskSampler,
    bernoulli_mask,
    exact_mask,
    masked_at,
    stratified_rates,
    uniform_counts,
)
from xlm_mlm.collation.masking import hide, masked_batch
from xlm_mlm.collation.randomness import RandomSource

flags = st.booleans()


@given(rectangles(words))
def test_a_token_is_masked_where_its_word_is_below_that_of_the_row(table):
    # The first word of a row is its rate.
    table = [[row[0], *row] for row in table]
    masked = bernoulli_mask((len(table), len(table[0]) - 1), Words(table))
    assert masked.tolist() == [[word < row[0] for word in row[1:]] for row in table]


@given(rectangles(words), st.lists(st.sampled_from([0.0, 1e-9, 0.25, 0.5, 1.0]), min_size=4))
def test_a_rate_of_0_masks_nothing_and_of_1_everything(table, rates):
    rates = rates[: len(table)]
    masked = masked_at(np.array(rates), len(table[0]), Words(table))
    for row, rate, got in zip(table, rates, masked.tolist(), strict=True):
        assert got == [word < rate * 2**32 for word in row]
        assert rate > 0 or not any(got)
        assert rate < 1 or all(got)


@given(words, st.permutations(range(4)), st.integers(1, 4))
def test_every_stratum_has_one_row(word, order, rows):
    order = [place for place in order if place < rows]
    rates = stratified_rates(rows, Words([word], order=order))
    assert rates.tolist() == [(word / 2**32 + place) / rows for place in order]
    assert sorted(math.floor(rate * rows) for rate in rates) == list(range(rows))


@st.composite
def tables_of_words(draw):
    """Words, and which positions are eligible."""
    table = draw(rectangles(words))
    flat = draw(rectangles(flags, rows=1, columns=36))[0]
    marks = (flat * 36)[: len(table) * len(table[0])]
    width = len(table[0])
    return table, [marks[i * width : (i + 1) * width] for i in range(len(table))]


@given(tables_of_words(), st.data())
def test_so_many_of_the_smallest_words_are_masked(case, choose):
    table, eligible = case
    counts = [choose.draw(st.integers(0, sum(row))) for row in eligible]
    masked = exact_mask(np.array(counts), np.array(eligible), Words(table))
    for row, may, count, got in zip(table, eligible, counts, masked.tolist(), strict=True):
        ranked = sorted((word, c) for c, word in enumerate(row) if may[c])
        chosen = {c for _, c in ranked[:count]}
        assert got == [c in chosen for c in range(len(row))]


@given(st.integers(0, 2), st.lists(st.tuples(words, st.integers(0, 5000)), min_size=1))
def test_counts_keep_to_their_range(least, drawn):
    given_words, most = zip(*drawn, strict=True)
    counts = uniform_counts(least, np.array(most), Words(list(given_words)))
    for word, top, got in zip(given_words, most, counts.tolist(), strict=True):
        assert got == min(least + word * max(top + 1 - least, 0) // 2**32, top)
        assert min(least, top) <= got <= top


@st.composite
def batches(draw):
    """Rows in which the data hold masks too, and what may be masked; None for everything."""
    rows = draw(rectangles(st.sampled_from([PAD, MASK, 8, 9, 10])))
    eligible = draw(st.sampled_from(["some", "some", "one row", None]))
    height = {"some": len(rows), "one row": 1, None: 0}[eligible]
    marks = draw(st.lists(flags, min_size=len(rows[0]) * height, max_size=len(rows[0]) * height))
    marks = np.array(marks, dtype=bool).reshape(height, len(rows[0])) if eligible else None
    return np.array(rows), marks


def drawn(sampling, ids, eligible, seed):
    source = RandomSource(torch.Generator().manual_seed(seed))
    return MaskSampler(sampling, None, source).draw(ids, eligible, MASK)


def open_places(ids, eligible):
    return np.full(ids.shape, True) & (True if eligible is None else eligible)


@given(batches(), st.sampled_from(SAMPLINGS), seeds)
def test_what_is_not_eligible_is_never_masked(case, sampling, seed):
    ids, eligible = case
    masked, weights = drawn(sampling, ids, eligible, seed)
    copies = 2 if sampling == "complementary" else 1
    assert masked.shape == (copies * len(ids), ids.shape[1])
    assert masked.dtype == bool
    assert not (masked & ~np.concatenate([open_places(ids, eligible)] * copies)).any()
    assert (weights is None) == (sampling != "exact_count")


@given(batches(), seeds)
def test_an_exact_count_is_at_least_one_and_weighs_by_its_inverse(case, seed):
    ids, eligible = case
    masked, weights = drawn("exact_count", ids, eligible, seed)
    known = open_places(ids, eligible) & (ids != MASK)
    assert not (masked & ~known).any()
    for row, may, weight in zip(masked, known, weights.tolist(), strict=True):
        assert (row.sum() > 0) == may.any()
        expected = may.sum() / row.sum() if may.any() else 0.0
        assert weight == np.float32(expected)


@given(batches(), seeds)
def test_complementary_halves_part_what_may_be_masked(case, seed):
    ids, eligible = case
    masked, _ = drawn("complementary", ids, eligible, seed)
    first, second = masked[: len(ids)], masked[len(ids) :]
    known = open_places(ids, eligible) & (ids != MASK)
    assert ((first ^ second) == known).all()
    assert not (first & second).any()


@given(batches(), st.sampled_from(SAMPLINGS), seeds)
def test_a_batch_hides_what_was_drawn_and_keeps_the_tokens_as_targets(case, sampling, seed):
    ids, eligible = case
    visible = None if eligible is None else open_places(ids, eligible)
    masked, weights = drawn(sampling, ids, eligible, seed)
    source = RandomSource(torch.Generator().manual_seed(seed))
    sampler = MaskSampler(sampling, None, source)
    batch = masked_batch(ids, visible, eligible, MASK, sampler, name_fixed=True)
    tokens = ids.tolist() * sampler.copies
    seen = open_places(ids, visible).tolist() * sampler.copies
    for name, of_place in {
        "input_ids": lambda token, shown, hidden: MASK if hidden else token,
        "target_ids": lambda token, shown, hidden: token if shown and token != MASK else -100,
        "attention_mask": lambda token, shown, hidden: shown,
        "fixed_positions_mask": lambda token, shown, hidden: not shown,
    }.items():
        expected = [
            [of_place(*place) for place in zip(*row, strict=True)]
            for row in zip(tokens, seen, masked.tolist(), strict=True)
        ]
        if name in batch or eligible is not None:
            assert batch[name].tolist() == expected
    assert ("elbo_weights" in batch) == (weights is not None)


@given(rectangles(st.sampled_from([0, 1, MASK, 7, 2**40])), seeds)
def test_hiding_is_a_choice_at_each_place(rows, seed):
    ids = np.array(rows)
    before, masked = ids.copy(), np.random.default_rng(seed).random(ids.shape) < 0.5
    assert hide(ids, masked, MASK).tolist() == np.where(masked, MASK, ids).tolist()
    assert (ids == before).all()


class Schedule:
    """A noise schedule that gives the times, rates and totals it was made with."""

    def __init__(self, rates, totals):
        self.rates, self.totals = rates, totals

    def sample_t(self, rows):
        return torch.arange(rows) / len(self.rates)

    def __call__(self, times):
        picked = (times * len(self.rates)).round().long()
        return torch.tensor(self.rates)[picked], torch.tensor(self.totals)[picked]


noise = st.one_of(st.just(0.0), st.floats(1e-6, 30.0), st.sampled_from([1e-30, 800.0, math.inf]))


@given(batches(), st.lists(st.tuples(noise.filter(math.isfinite), noise), min_size=4), seeds)
def test_a_schedule_decides_rates_and_weights(case, pairs, seed):
    ids, eligible = case
    pairs = pairs[: len(ids)]
    rates, totals = zip(*pairs, strict=True)
    source = RandomSource(torch.Generator().manual_seed(seed))
    sampler = MaskSampler("bernoulli", Schedule(rates, totals), source)
    masked, weights = sampler.draw(ids, eligible, MASK)
    open_ = open_places(ids, eligible)
    assert not (masked & ~open_).any()
    for i, (rate, total) in enumerate(np.float32(pairs).astype(float).tolist()):
        if total == 0:
            assert not masked[i].any()
        elif total > 40:  # 1 - exp(-total) is 1 in double precision
            assert (masked[i] == open_[i]).all()
        assert weights[i] >= 0
        assert np.isfinite(weights[i])
        if 0 < total < 700:
            most = float(np.finfo(np.float32).max)
            expected = min(rate / math.expm1(total), most)
            # To the last digit of single precision, below whose least number there is but 0.
            np.testing.assert_allclose(weights[i], expected, rtol=1e-6, atol=1e-44)
