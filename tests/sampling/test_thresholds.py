"""Rules that compare probabilities with a bound, against loops over rows on plain numbers."""

import dataclasses
import math

import pytest
import torch

from xlm_mlm.sampling import distributions
from xlm_mlm.sampling.candidates import Candidates
from xlm_mlm.sampling.thresholds import (
    Klass,
    ProbabilityFactor,
    ProbabilityThreshold,
    divergence,
)

COUNTS = [5, 1, 8]
MASKED = torch.zeros(4, 8, dtype=torch.bool)
MASKED[0, [0, 2, 3, 6, 7]] = MASKED[2, 4] = MASKED[3] = True


def candidates(scale=6.0, passes_left=4, seed=0, masked=MASKED):
    laid_out = Candidates.of(masked)
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(int(masked.sum()), 5, generator=generator) * scale
    logits[:, 0] = -torch.inf  # a token that is never produced
    return dataclasses.replace(laid_out, passes_left=passes_left, logits=logits)


def lines(given):
    """The highest probability of each candidate, line by line."""
    rows = given.logits.double().softmax(-1).amax(-1).tolist()
    counts = given.valid.sum(1).tolist()
    return [[rows.pop(0) for _ in range(n)] for n in counts]


def taken(chosen):
    return [line.nonzero().flatten().tolist() for line in chosen]


@pytest.mark.parametrize("scale", [0.1, 2.0, 6.0])
@pytest.mark.parametrize("tau", [0.5, 0.9, 1.0])
def test_threshold_takes_all_that_reach_it_else_the_best(scale, tau):
    given = candidates(scale)
    expected = []
    for p in lines(given):
        reach = [j for j, value in enumerate(p) if value >= tau]
        expected.append(reach or [p.index(max(p))])
    assert taken(ProbabilityThreshold(tau).select(given)) == expected


def test_threshold_counts_a_certain_token_as_certain():
    logits = torch.full((14, 5), -torch.inf)
    logits[:, 3] = 2.0
    given = dataclasses.replace(candidates(), logits=logits)
    assert torch.equal(ProbabilityThreshold(1.0).select(given), given.valid)
    assert torch.equal(ProbabilityFactor(0.0).select(given), given.valid)


@pytest.mark.parametrize("scale", [0.1, 2.0, 6.0])
@pytest.mark.parametrize("factor", [0.0, 0.3, 1.0, 2.0, 50.0])
def test_factor_takes_ranks_while_they_reach_their_bound(scale, factor):
    given = candidates(scale)
    expected = []
    for p in lines(given):
        ranked = sorted(range(len(p)), key=lambda j: -p[j])
        k = 1
        while k < len(p) and p[ranked[k]] >= 1 - factor / (k + 2):
            k += 1
        expected.append(sorted(ranked[:k]))
    assert taken(ProbabilityFactor(factor).select(given)) == expected


def naive_klass(rule, passes, count_of):
    """Run over the passes of one row: a list of {column: probabilities}; what each would commit."""
    quiet, before, out = {}, {}, []
    for number, now in enumerate(passes):
        fresh = {}
        for column, p in now.items():
            calm = column in before and (
                sum(a * math.log(a / b) for a, b in zip(p, before[column], strict=True))
                < rule.kappa
            )
            fresh[column] = quiet.get(column, 0) + 1 if calm else 0
        quiet, before = fresh, now
        settled = [c for c in now if max(now[c]) > rule.tau and quiet[c] >= rule.history]
        best = sorted(now, key=lambda c: -max(now[c]))[: count_of(len(now), number)]
        out.append(sorted(settled or best))
    return out


@pytest.mark.parametrize("history", [1, 2, 3])
def test_klass_commits_what_is_sure_and_settled(history):
    rule = Klass(tau=0.35, kappa=0.02, history=history)
    generator = torch.Generator().manual_seed(4)
    length, steps = 7, 6
    base = torch.randn(2 * length, 4, generator=generator)
    # Some positions move a lot from pass to pass, others hardly; one leaves and comes back.
    size = torch.rand(2 * length, 1, generator=generator) * 0.6
    masked = torch.ones(2, length, dtype=torch.bool)
    memory, chosen, seen = {}, [], [[], []]
    for step in range(steps):
        now = masked.clone()
        now[0, 2] = step != 2
        now[1, :step] = False
        logits = (base + size * torch.randn(base.shape, generator=generator))[now.flatten()]
        given = dataclasses.replace(
            Candidates.of(now),
            passes_left=steps - step,
            passes_done=step,
            logits=logits,
            memory=dict(memory),
        )
        marks, memory = rule.select(given), given.memory
        chosen.append([given.columns[line][marks[line]].tolist() for line in (0, 1)])
        p = iter(logits.double().softmax(-1).tolist())
        for row in (0, 1):
            seen[row].append({c: next(p) for c in now[row].nonzero().flatten().tolist()})
    for row in (0, 1):
        count_of = lambda n, number: math.ceil(n / (steps - number))  # noqa: E731
        expected = naive_klass(rule, seen[row], count_of)
        assert [step[row] for step in chosen] == expected
    # The case is worth something: settled positions are found, and not everywhere.
    assert any(len(step[0]) > 2 for step in chosen)


@pytest.mark.parametrize(("tau", "settled"), [(0.5, 1), (0.49, 4)])
def test_klass_wants_more_than_tau(tau, settled):
    """Two tokens of equal logits have a probability of one half, to the last bit."""
    rule, memory = Klass(tau=tau, history=1), {}
    for done in range(2):
        given = dataclasses.replace(
            Candidates.of(torch.ones(1, 4, dtype=torch.bool)),
            passes_left=4,
            passes_done=done,
            logits=torch.zeros(4, 2),
            memory=memory,
        )
        chosen = rule.select(given)
    assert int(chosen.sum()) == settled


def test_klass_keeps_apart_what_it_never_saw_and_what_is_the_last():
    """A mask behind all that were there before has no past, nor has one between them."""
    rule, memory, counts = Klass(tau=0.3, kappa=1.0, history=1), {}, []
    for done, columns in enumerate([[1, 2], [0, 1, 2, 3], [3]]):
        masked = torch.zeros(1, 5, dtype=torch.bool)
        masked[0, columns] = True
        given = dataclasses.replace(
            Candidates.of(masked),
            passes_left=9,
            passes_done=done,
            logits=torch.eye(5)[columns] * 9,
            memory=memory,
        )
        chosen = rule.select(given)
        counts.append(given.columns[0][chosen[0]].tolist())
    assert counts == [[1], [1, 2], [3]]


def test_klass_has_nothing_settled_in_the_first_pass():
    given = candidates(scale=50.0, passes_left=14)
    assert Klass().select(given).sum(dim=1).tolist() == [1, 1, 1]


def test_klass_does_not_look_past_a_pass_that_it_did_not_see():
    """With a revision a row may be complete in a pass, and its memory is then not renewed."""
    rule = Klass(tau=0.3, kappa=1.0, history=1)
    first = dataclasses.replace(candidates(scale=9.0, passes_left=14), passes_done=1)
    rule.select(first)
    counts = {}
    for done in (2, 3):
        memory = dict(first.memory)
        again = dataclasses.replace(
            candidates(scale=9.0, passes_left=14), passes_done=done, memory=memory
        )
        counts[done] = int(rule.select(again).sum())
    assert counts[2] > counts[3] == 3


def test_divergence_is_that_of_the_definition(monkeypatch):
    monkeypatch.setattr(distributions, "_CPU_PIECE", 8)  # two rows a piece
    p, q = torch.randn(9, 4), torch.randn(9, 4)
    p[3, 1] = q[3, 1] = -torch.inf
    q[5, 2] = -torch.inf
    expected = []
    for a, b in zip(p.double().softmax(-1).tolist(), q.double().softmax(-1).tolist(), strict=True):
        total = 0.0
        for x, y in zip(a, b, strict=True):
            if x > 0:
                total += x * math.log(x / y) if y > 0 else math.inf
        expected.append(total)
    assert torch.allclose(divergence(p, q).double(), torch.tensor(expected).double(), atol=1e-6)
    assert divergence(p[:0], q[:0]).shape == (0,)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ProbabilityThreshold(0.0), "tau is 0"),
        (lambda: ProbabilityThreshold(1.1), "tau is 1.1"),
        (lambda: ProbabilityFactor(-1), "factor is -1"),
        (lambda: ProbabilityFactor(float("nan")), "factor is nan"),
        (lambda: Klass(kappa=0.0), "kappa is 0.0"),
        (lambda: Klass(history=0), "history is 0"),
        (lambda: Klass(tau="high"), "tau is 'high'"),
        (lambda: Klass(kappa=-1.0), "kappa is -1.0"),
        (lambda: ProbabilityThreshold(-0.5), "tau is -0.5"),
    ],
)
def test_options_are_checked(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_options_at_their_bounds_and_left_out():
    assert (ProbabilityThreshold().tau, ProbabilityThreshold(1).tau) == (0.9, 1)
    assert ProbabilityFactor(0).factor == 0
    assert (Klass().tau, Klass().kappa, Klass().history) == (0.9, 0.01, 2)
    rule = Klass(1.0, 1e-9, 1)
    assert (rule.tau, rule.kappa, rule.history) == (1.0, 1e-9, 1)
