"""Position rules against references that work row by row on plain numbers."""

import dataclasses
import math

import pytest
import torch

from xlm_mlm.sampling import distributions
from xlm_mlm.sampling.candidates import Candidates
from xlm_mlm.sampling.positions import Budget, FixedCount, Uniform, make_strategy
from xlm_mlm.sampling.scores import LOG_SCORES, UNCERTAINTIES
from xlm_mlm.sampling.streams import gumbel

MASKED = torch.tensor(
    [
        [True, False, True, True, False, True],
        [False] * 6,
        [False, True, False, False, False, False],
        [True] * 6,
    ]
)
COUNTS = [4, 1, 6]


def candidates(passes_left, seed=0, vocabulary=7):
    generator = torch.Generator().manual_seed(seed)
    laid_out = Candidates.of(MASKED)
    return dataclasses.replace(
        laid_out,
        passes_left=passes_left,
        noise=torch.rand(laid_out.valid.shape, generator=generator, dtype=torch.float64),
        logits=torch.randn(sum(COUNTS), vocabulary, generator=generator) * 2,
    )


def by_row(values):
    return torch.as_tensor(values).split(COUNTS)


def naive_probabilities(logits):
    scores = [math.exp(v) for v in logits.double().tolist()]
    return sorted((s / sum(scores) for s in scores), reverse=True)


def naive_uncertainty(confidence, logits):
    p = naive_probabilities(logits)
    return {
        "top_prob": 1 - p[0],
        "prob_diff": 1 - (p[0] - p[1]),
        "entropy": -sum(q * math.log(q) for q in p),
    }[confidence]


def naive_log_score(confidence, logits):
    p = naive_probabilities(logits)
    return {
        "top_prob": math.log(p[0]),
        "prob_diff": math.log(p[0] - p[1]),
        "entropy": sum(q * math.log(q) for q in p),
    }[confidence]


def naive_count(masks, passes_left):
    return math.ceil(masks / passes_left)


def test_candidates_list_each_rows_masks_from_left_to_right():
    laid_out = Candidates.of(MASKED)
    assert laid_out.rows.tolist() == [0, 2, 3]
    lines = [c[v].tolist() for c, v in zip(laid_out.columns, laid_out.valid, strict=True)]
    assert lines == [[0, 2, 3, 5], [1], [0, 1, 2, 3, 4, 5]]
    grid = laid_out.grid(torch.arange(11.0), -1.0)
    assert grid.tolist() == [
        [0, 1, 2, 3, -1, -1],
        [4, -1, -1, -1, -1, -1],
        [5, 6, 7, 8, 9, 10],
    ]


@pytest.mark.parametrize("passes_left", [1, 2, 3, 5, 100])
def test_uniform_takes_the_count_with_the_smallest_noise(passes_left):
    given = candidates(passes_left)
    chosen = Uniform().select(given)
    for line, n in enumerate(COUNTS):
        noise = given.noise[line, :n].tolist()
        expected = sorted(range(n), key=noise.__getitem__)[: naive_count(n, passes_left)]
        assert chosen[line].nonzero().flatten().tolist() == sorted(expected)


def test_uniform_chooses_every_subset_equally_often():
    laid_out = Candidates.of(torch.ones(6000, 4, dtype=torch.bool))
    noise = torch.rand(6000, 4, dtype=torch.float64)
    chosen = Uniform().select(dataclasses.replace(laid_out, passes_left=2, noise=noise))
    codes = (chosen.long() * torch.tensor([8, 4, 2, 1])).sum(dim=1)
    counts = torch.bincount(codes, minlength=16)[[3, 5, 6, 9, 10, 12]]
    assert counts.sum() == 6000
    # 6 equal classes: chi-square with 5 degrees of freedom exceeds 20.5 once in 1,000.
    assert ((counts - 1000.0) ** 2 / 1000).sum() < 20.5


@pytest.mark.parametrize("confidence", ["top_prob", "prob_diff", "entropy"])
@pytest.mark.parametrize("temperature", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("passes_left", [1, 2, 4])
def test_fixed_count_ranks_perturbed_log_scores(confidence, temperature, passes_left):
    given = candidates(passes_left)
    chosen = FixedCount(confidence, temperature).select(given)
    noise = gumbel(given.noise)
    for line, (n, logits) in enumerate(zip(COUNTS, by_row(given.logits), strict=True)):
        score = [
            naive_log_score(confidence, logits[j]) + temperature * noise[line, j].item()
            for j in range(n)
        ]
        best = sorted(range(n), key=lambda j: -score[j])[: naive_count(n, passes_left)]
        assert chosen[line].nonzero().flatten().tolist() == sorted(best)


@pytest.mark.parametrize("confidence", ["top_prob", "prob_diff", "entropy"])
@pytest.mark.parametrize("threshold", [0.0, 1e-9, 0.3, 1.0, 2.5, 100.0])
def test_budget_commits_the_longest_prefix(confidence, threshold):
    given = candidates(passes_left=3)
    chosen = Budget(confidence, threshold).select(given)
    for line, (n, logits) in enumerate(zip(COUNTS, by_row(given.logits), strict=True)):
        u = [naive_uncertainty(confidence, logits[j]) for j in range(n)]
        ranked = sorted(range(n), key=u.__getitem__)
        taken = 1
        while taken < n and sum(u[j] for j in ranked[:taken]) < threshold:
            taken += 1
        assert chosen[line].nonzero().flatten().tolist() == sorted(ranked[:taken])


def test_budget_with_a_tiny_threshold_commits_one_position():
    laid_out = Candidates.of(torch.ones(1, 63, dtype=torch.bool))
    given = dataclasses.replace(laid_out, passes_left=9, logits=torch.randn(63, 50))
    assert Budget("prob_diff", 1e-9).select(given).sum() == 1


@pytest.mark.parametrize("confidence", ["top_prob", "prob_diff", "entropy"])
def test_budget_takes_all_on_the_last_pass(confidence):
    given = candidates(passes_left=1)
    assert torch.equal(Budget(confidence, 0.1).select(given), given.valid)


def test_ties_go_to_the_left():
    laid_out = Candidates.of(torch.ones(1, 5, dtype=torch.bool))
    given = dataclasses.replace(laid_out, passes_left=3, logits=torch.zeros(5, 4))
    assert FixedCount("entropy", 0.0).select(given).tolist() == [[True, True, False, False, False]]


def test_certain_positions_have_no_uncertainty_and_no_nan():
    logits = torch.full((2, 4), -torch.inf)
    logits[:, 1] = 3.0
    laid_out = Candidates.of(torch.ones(1, 2, dtype=torch.bool))
    given = dataclasses.replace(
        laid_out, passes_left=5, logits=logits, noise=torch.rand(1, 2, dtype=torch.float64)
    )
    for confidence in ("top_prob", "prob_diff", "entropy"):
        assert Budget(confidence, 1e-6).select(given).all()
        assert FixedCount(confidence).select(given).sum() == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("nonsense", None, 1.0), "'top_prob', 'prob_diff', 'entropy'"),
        (("nonsense", 0.5, 1.0), "'top_prob', 'prob_diff', 'entropy'"),
        (("entropy", -0.1, 1.0), "threshold is -0.1"),
        (("entropy", float("nan"), 1.0), "threshold is nan"),
        (("entropy", None, -1.0), "confidence_temperature is -1.0"),
        ((None, 0.5, 1.0), "threshold is 0.5 but confidence is None"),
    ],
)
def test_bad_options_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        make_strategy(*options)


def test_a_budget_of_nothing_takes_one_of_several_certain_positions():
    logits = torch.full((3, 4), -torch.inf)
    logits[:, 1] = 0.0
    laid_out = Candidates.of(torch.ones(1, 3, dtype=torch.bool))
    given = dataclasses.replace(laid_out, passes_left=5, logits=logits)
    # Uncertainties are exactly 0, and 0 is not under 0.
    assert Budget("entropy", 0.0).select(given).tolist() == [[True, False, False]]


def test_many_ties_still_go_to_the_left():
    laid_out = Candidates.of(torch.ones(1, 200, dtype=torch.bool))
    given = dataclasses.replace(laid_out, passes_left=2, logits=torch.zeros(200, 4))
    assert FixedCount("top_prob", 0.0).select(given).tolist() == [[True] * 100 + [False] * 100]


def score_logits(vocabulary, dtype):
    """Ordinary rows, one of equals, two nearly certain ones, and one with a single token left."""
    generator = torch.Generator().manual_seed(vocabulary)
    logits = torch.randn(9, vocabulary, generator=generator) * 3
    logits[1] = 0.5
    logits[2, 0], logits[3, -1] = 15.0, 60.0
    logits[4, 1:] = -torch.inf
    logits[5, ::2] = -torch.inf if vocabulary > 1 else 0.0
    return logits.to(dtype).float()


@pytest.mark.parametrize("confidence", ["top_prob", "prob_diff", "entropy"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("vocabulary", [1, 2, 9, 5000])
def test_scores_are_those_of_plain_arithmetic(confidence, dtype, vocabulary):
    logits = score_logits(vocabulary, dtype)
    got = UNCERTAINTIES[confidence](logits).tolist()
    logs = LOG_SCORES[confidence](logits).tolist()
    for row, value, log in zip(logits, got, logs, strict=True):
        p = [q for q in naive_probabilities(row) if q > 0] + [0.0]
        expected = {
            "top_prob": 1 - p[0],
            "prob_diff": 1 - (p[0] - p[1]),
            "entropy": -sum(q * math.log(q) for q in p if q),
        }[confidence]
        # Two roundings of a probability near 1 in fp32.
        assert value == pytest.approx(expected, rel=1e-5, abs=1.5e-7)
        log_score = {"entropy": -expected}.get(confidence, math.log(max(1 - expected, 1e-38)))
        # The logarithm of a difference of equals is where fp32 keeps its least number.
        if confidence != "prob_diff" or expected < 0.99:
            assert log == pytest.approx(log_score, rel=1e-5, abs=5e-7)
        elif expected > 1 - 1e-12:
            assert log < -80


@pytest.mark.parametrize("confidence", ["top_prob", "prob_diff", "entropy"])
def test_neither_pieces_nor_neighbours_change_a_score(monkeypatch, confidence):
    logits = torch.randn(41, 700, generator=torch.Generator().manual_seed(0)) * 3
    score = UNCERTAINTIES[confidence]
    whole, kept = score(logits), logits.clone()
    monkeypatch.setattr(distributions, "_CPU_PIECE", 2100)
    assert torch.equal(score(logits), whole)
    assert torch.equal(score(logits[30:]), whole[30:])
    assert torch.equal(score(logits[4:6]), whole[4:6])
    assert score(logits[:0]).shape == (0,)
    assert torch.equal(logits, kept)


def test_rules_that_need_no_noise_say_so_and_do_without():
    assert getattr(Uniform(), "needs_noise", True)
    assert FixedCount("entropy", 0.5).needs_noise
    for rule in (FixedCount("entropy", 0.0), Budget("entropy", 0.5)):
        assert not rule.needs_noise
        given = dataclasses.replace(candidates(passes_left=3), noise=None)
        assert rule.select(given).any(dim=1).all()
