"""What is put at a position: the draw, its filters, and what may stand where, against loops."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from properties.strategies import MASK, PAD, TOKENIZER, V, plain_tokens, rows_of, seeds
from toy_models import TableModel

from xlm_mlm import MLMPredictor
from xlm_mlm.sampling import scores
from xlm_mlm.sampling.constraints import AllowedTokens, forbid
from xlm_mlm.sampling.distributions import invert
from xlm_mlm.sampling.tokens import TokenSampler, suppress

INF = math.inf
# Few numbers, so that many are equal, and the most extreme ones.
extreme = st.sampled_from([-INF, -1e30, -3e38, -2.0, 0.0, 0.5, 0.5, 1e30, 3e38])


@st.composite
def logit_rows(draw, cells=extreme):
    """Rows of one width, each with a finite entry."""
    width = draw(st.integers(1, 6))
    row = st.lists(cells, min_size=width, max_size=width)
    rows = draw(st.lists(row, min_size=1, max_size=4))
    return [[0.0, *r[1:]] if all(z == -INF for z in r) else r for r in rows]


def softmax(row):
    top = max(row)
    powers = [math.exp(z - top) for z in row]
    return [p / math.fsum(powers) for p in powers]


@given(logit_rows())
def test_scores_of_any_logits_are_those_of_a_loop(rows):
    logits = torch.tensor(rows)
    found = {
        name: getattr(scores, name)(logits).tolist()
        for name in ("best_probability", "probability_gap", "entropy", "top_probability")
    }
    for i, row in enumerate(rows):
        p = softmax(torch.tensor(row).double().tolist())
        best, second = ([*sorted(p, reverse=True), 0.0])[:2]
        expected = {
            "best_probability": best,
            "probability_gap": best - second,
            "entropy": -math.fsum(q * math.log(q) for q in p if q),
            "top_probability": math.log(best),
        }
        for name, value in expected.items():
            # Single precision, of at most six terms.
            assert found[name][i] == pytest.approx(value, rel=1e-6, abs=1e-6), name


@given(logit_rows(), st.sampled_from(list(scores.LOG_SCORES)))
def test_scores_and_uncertainties_are_never_nan_and_order_alike(rows, name):
    logits = torch.tensor(rows).double()
    score, doubt = scores.LOG_SCORES[name](logits), scores.UNCERTAINTIES[name](logits)
    assert not score.isnan().any()
    assert score.max() <= 0 or name == "prob_diff"
    assert (doubt >= 0).all()
    assert doubt.isfinite().all()
    for i in range(len(rows)):
        for j in range(len(rows)):
            if doubt[i] < doubt[j] - 1e-9:
                assert score[i] > score[j]


@given(
    st.lists(st.sampled_from([0.0, 0.0, 0.25, 1.0, 1e-30]), min_size=1, max_size=6),
    st.sampled_from([0.0, 0.1, 0.5, 0.75, 1 - 2**-53]),
)
def test_a_draw_is_the_first_entry_past_the_number(p, uniform):
    assume(any(p))
    found = int(invert(torch.tensor([p]), torch.tensor([uniform], dtype=torch.float64)))
    total = math.fsum(p)
    sums = [math.fsum(p[: i + 1]) for i in range(len(p))]
    assume(all(s == total or abs(s - uniform * total) > 1e-12 for s in sums) or uniform == 0)
    expected = next((i for i, s in enumerate(sums) if s > uniform * total), None)
    # A number that rounding carries up to the total belongs to the last entry that has any.
    assert found == (expected if expected is not None else max(i for i in range(len(p)) if p[i]))
    assert p[found] > 0


filters = st.one_of(
    st.builds(lambda k: {"top_k": k}, st.integers(1, 7)),
    st.builds(lambda p: {"top_p": p}, st.sampled_from([1e-9, 0.3, 0.5, 0.95, 1.0])),
    st.just({}),
)


@given(logit_rows(), filters, st.sampled_from([0.0, 1e-300, 0.3, 1.0, 40.0, 1e300]), seeds)
def test_what_is_drawn_is_possible_and_passes_the_filter(rows, options, temperature, seed):
    logits = torch.tensor(rows)
    before = logits.clone()
    uniform = torch.from_numpy(np.random.default_rng(seed).random(len(rows)))
    tokens = TokenSampler(temperature, **options)(logits, uniform)
    assert torch.equal(logits, before)
    for row, token in zip(before.tolist(), tokens.tolist(), strict=True):
        assert row[token] > -INF
        better = [z for z in row if z > row[token]]
        if temperature == 0:
            assert not better
        if "top_k" in options:
            assert len(better) < options["top_k"]
        if "top_p" in options and 0 < temperature <= 40:
            top = max(row)
            p = softmax([(z - top) / max(temperature, 1e-37) for z in row])
            ahead = math.fsum(q for q, z in zip(p, row, strict=True) if z > row[token])
            assert ahead < options["top_p"] + 1e-6


@given(logit_rows(st.sampled_from([-INF, 0.0, 0.5, 1.0])), st.integers(1, 6), seeds)
def test_top_k_draws_as_a_loop_over_the_best(rows, k, seed):
    assume(all(len(set(row)) == len(row) for row in rows))
    numbers = np.random.default_rng(seed).random(len(rows))
    found = TokenSampler(top_k=k)(torch.tensor(rows), torch.from_numpy(numbers))
    for row, u, token in zip(rows, numbers.tolist(), found.tolist(), strict=True):
        ranked = sorted(range(len(row)), key=lambda i, row=row: -row[i])[:k]
        p = softmax([row[i] for i in ranked])
        sums = [math.fsum(p[: i + 1]) for i in range(len(p))]
        if len(ranked) > 1 and all(abs(s - u) > 1e-6 for s in sums):
            assert token == ranked[next(i for i, s in enumerate(sums) if s > u)]


@given(logit_rows(), st.sets(st.integers(0, 5)), st.booleans())
def test_suppressed_tokens_are_impossible_and_the_others_as_they_were(rows, tokens, in_place):
    tokens = {token for token in tokens if token < len(rows[0])}
    logits = torch.tensor(rows)
    left = [[z for i, z in enumerate(row) if i not in tokens] for row in rows]
    if any(max(row, default=-INF) == -INF for row in left):
        with pytest.raises(ValueError, match="no token to produce"):
            suppress(logits, tokens, in_place=in_place)
        return
    found = suppress(logits, tokens, in_place=in_place)
    single = torch.tensor(rows).tolist()
    assert found.tolist() == [
        [-INF if i in tokens else z for i, z in enumerate(row)] for row in single
    ]
    assert in_place or logits.tolist() == single


@st.composite
def tables(draw):
    """A mapping from positions to tokens that does not name one twice, and the loop's own."""
    few = st.lists(st.integers(0, V - 1), min_size=1, max_size=3)
    cuts = sorted(draw(st.sets(st.integers(0, 9), min_size=2, max_size=5)))
    given_table, spans = {}, []
    for start, stop in list(itertools.pairwise(cuts))[:: draw(st.integers(1, 2))]:
        tokens, name = draw(few), f"{start}:{stop}" if stop - start > 1 else start
        given_table[name] = tokens
        spans.append((start, stop, tokens))
    others = draw(st.one_of(st.none(), few))
    if others is not None:
        given_table["others"] = others
    return given_table, spans, others


@given(tables(), st.lists(st.integers(0, 12), min_size=1, max_size=6))
def test_what_may_stand_at_a_place_is_what_its_entry_names(case, places):
    given_table, spans, others = case
    flat, x = torch.arange(len(places)), torch.zeros(1, len(places), dtype=torch.long)
    at = AllowedTokens(given_table).at(x, flat, torch.tensor(places), TOKENIZER, V)
    for place, line in zip(places, at.tolist(), strict=True):
        named = [tokens for start, stop, tokens in spans if start <= place < stop]
        tokens = named[0] if named else others
        assert line == [tokens is None or token in tokens for token in range(V)]


@given(logit_rows(st.sampled_from([-INF, 0.0, 1.0])), seeds)
def test_what_is_forbidden_is_impossible_or_an_error(rows, seed):
    allowed = np.random.default_rng(seed).random((len(rows), len(rows[0]))) < 0.7
    expected = [
        [z if a else -INF for z, a in zip(row, may, strict=True)]
        for row, may in zip(rows, allowed.tolist(), strict=True)
    ]
    logits, columns = torch.tensor(rows), torch.arange(len(rows))
    first = next((i for i, row in enumerate(expected) if max(row) == -INF), None)
    if first is not None:
        with pytest.raises(ValueError, match=f"the first in column {first};"):
            forbid(logits, torch.from_numpy(allowed), columns)
    else:
        assert forbid(logits, torch.from_numpy(allowed), columns).tolist() == expected


@given(
    rows_of(plain_tokens, least=0, most=5),
    st.integers(1, 4),
    st.integers(1, 5),
    st.sampled_from([None, "top_prob", "entropy"]),
    seeds,
)
def test_prompts_are_continued_whatever_their_lengths(prompts, new, max_steps, confidence, seed):
    """Masks are appended and filled within the passes, a row's own prompt is left alone."""
    width = max(1, *map(len, prompts))
    ids = torch.tensor([[PAD] * (width - len(p)) + p for p in prompts])
    valid = torch.tensor([[False] * (width - len(p)) + [True] * len(p) for p in prompts])
    table = torch.randn(width + new, V, generator=torch.Generator().manual_seed(seed))
    model, batch = TableModel(table), {"input_ids": ids, "attention_mask": valid}
    one = MLMPredictor(
        max_steps, new, TOKENIZER, model, confidence=confidence, seed=seed, suppress_tokens=[PAD]
    )
    preds = one.predict(batch)
    assert preds["ids"][:, :width].tolist() == ids.tolist()
    assert preds["output_start_idx"].tolist() == [width] * len(prompts)
    made = preds["ids"][:, width:]
    assert made.shape == (len(prompts), new)
    assert not torch.isin(made, torch.tensor([PAD, MASK])).any()
    assert preds["steps_taken"] == [min(new, max_steps)] * len(prompts)
    assert len(model.inputs) == min(new, max_steps)
    rows = one.to_dict(batch, preds)
    assert [row["ids"] for row in rows] == preds["ids"].tolist()


@given(st.lists(st.one_of(st.just(MASK), plain_tokens), min_size=1, max_size=7), st.integers(1, 8))
def test_an_even_share_of_the_masks_is_filled_in_every_pass(row, max_steps):
    left = row.count(MASK)
    one = MLMPredictor(max_steps, tokenizer=TOKENIZER, model=TableModel(torch.zeros(len(row), V)))
    for state in list(one.predict_iter({"input_ids": torch.tensor([row])}))[1:]:
        share = -(-left // (max_steps - int(state["current_step"]) + 1))
        assert int(state["filled"].sum()) == share
        left -= share
    assert left == 0
