"""Rules that take tokens back, against loops and against the shares they promise."""

import dataclasses
import math

import pytest
import torch

from xlm_mlm.sampling.candidates import Candidates
from xlm_mlm.sampling.revise import P2, Generated, ReMDM


def generated(done=3, passes=10, seed=0, rows=5, length=9, **more):
    generator = torch.Generator().manual_seed(seed)
    ours = torch.rand(rows, length, generator=generator) < 0.8
    masked = (torch.rand(rows, length, generator=generator) < 0.4) & ours
    masked[0] = ours[0]  # a row in which nothing is committed yet
    ours[1, 0] = masked[1, 0] = True
    grid = Candidates.of(ours)
    at = grid.rows[:, None], grid.columns
    noise = torch.rand(grid.valid.shape, generator=generator, dtype=torch.float64)
    view = Generated(
        grid.rows, grid.columns, grid.valid, masked[at] & grid.valid, done, passes, noise
    )
    made = {
        name: torch.rand(noise.shape, generator=generator, dtype=torch.float64) for name in more
    }
    return dataclasses.replace(view, **made)


def naive_sigma(rule, eta, done, passes, p, committed):
    """Sigma of each place of a line."""
    a, after = done / passes, (done + 1) / passes
    most = 1.0 if a == 0 else min(1.0, (1 - after) / a)
    if rule == "cap":
        return [min(eta, most)] * len(committed)
    if rule == "rescale":
        return [eta * most] * len(committed)
    weights = [math.exp(-q) if c else 0.0 for q, c in zip(p, committed, strict=True)]
    return [most * w / sum(weights) if sum(weights) else 0.0 for w in weights]


@pytest.mark.parametrize("rule", ["cap", "rescale", "conf"])
@pytest.mark.parametrize("done", [0, 1, 4, 8, 9])
@pytest.mark.parametrize("eta", [0.05, 0.6])
def test_remdm_takes_back_with_its_sigma(rule, done, eta):
    given = generated(done, p=True) if rule == "conf" else generated(done)
    revision = ReMDM(rule, None if rule == "conf" else eta)
    back = revision.remask(given)
    for line in range(len(given.rows)):
        committed = (given.valid[line] & ~given.masked[line]).tolist()
        p = given.p[line].tolist() if rule == "conf" else [0.0] * len(committed)
        sigma = naive_sigma(rule, eta, done, 10, p, committed)
        noise = given.noise[line].tolist()
        expected = [c and u < s for c, u, s in zip(committed, noise, sigma, strict=True)]
        assert back[line].tolist() == expected


def filling(rule, done, passes, rows=4000, length=6):
    candidates = dataclasses.replace(
        Candidates.of(torch.ones(rows, length, dtype=torch.bool)),
        passes_left=passes - done,
        passes_done=done,
        noise=torch.rand(rows, length, dtype=torch.float64),
    )
    return candidates, rule.selection.select(candidates)


@pytest.mark.parametrize("done", [0, 3, 8, 9])
@pytest.mark.parametrize("rule", [ReMDM("cap", 0.1), ReMDM("rescale", 0.5), ReMDM("conf")])
def test_remdm_fills_with_its_probability_and_at_least_one(rule, done):
    candidates, chosen = filling(rule, done, 10)
    a, after = done / 10, (done + 1) / 10
    most = 1.0 if a == 0 else min(1.0, (1 - after) / a)
    sigma = {"cap": min(0.1, most), "rescale": 0.5 * most, "conf": 0.0}[rule.rule]
    p = (after - (1 - sigma) * a) / (1 - a)
    for noise, line in zip(candidates.noise[:200].tolist(), chosen[:200].tolist(), strict=True):
        expected = [u < p for u in noise]
        expected[noise.index(min(noise))] = True
        assert line == expected


@pytest.mark.parametrize(
    "rule", [ReMDM("cap", 0.08), ReMDM("rescale", 0.4), ReMDM("cap", 0.3, (0.4, 0.8, 0.7))]
)
def test_remdm_keeps_the_share_unmasked_on_its_schedule(rule):
    rows, length, passes = 400, 50, 20
    masked = torch.ones(rows, length, dtype=torch.bool)
    ours = Candidates.of(masked)
    for done in range(passes):
        laid_out = Candidates.of(masked)
        candidates = dataclasses.replace(
            laid_out,
            passes_left=passes - done,
            passes_done=done,
            noise=torch.rand(laid_out.valid.shape, dtype=torch.float64),
        )
        chosen = rule.selection.select(candidates)
        noise = torch.rand(rows, length, dtype=torch.float64)
        view = Generated(ours.rows, ours.columns, ours.valid, masked, done, passes, noise)
        back = rule.remask(view)
        filled = candidates.flat(chosen)
        masked = masked | back
        masked.view(-1)[filled] = False
        share = 1 - masked.double().mean().item()
        # 20,000 positions: 5 standard errors are below 0.018.
        assert share == pytest.approx(rule.shares(done, passes)[1], abs=0.018)
    assert not masked.any()


def test_remdm_takes_nothing_back_in_the_last_pass_and_outside_its_loop():
    assert not ReMDM("rescale", 1.0).remask(generated(done=9)).any()
    looped = ReMDM("rescale", 1.0, loop=(0.3, 0.6, 0.8))
    sigmas = [looped.sigma(done, 10) > 0 for done in range(10)]
    assert sigmas == [False] * 3 + [True] * 3 + [False] * 4
    shares = [looped.shares(done, 10)[1] for done in range(10)]
    expected = [0.8 / 3, 1.6 / 3, 0.8, 0.8, 0.8, 0.8, 0.85, 0.9, 0.95, 1.0]
    assert shares == pytest.approx(expected)


def test_a_looped_fill_makes_up_for_what_is_taken_back():
    looped = ReMDM("cap", 0.2, loop=(0.2, 0.8, 0.6))
    before, after = looped.shares(4, 10)
    assert before == after == 0.6
    candidates, chosen = filling(looped, 4, 10)
    expected = torch.as_tensor(candidates.noise) < 0.2 * 0.6 / 0.4
    many = expected.any(dim=1)
    assert torch.equal(chosen[many], expected[many])


@pytest.mark.parametrize("done", range(10))
def test_p2_leaves_the_lowest_scores_masked(done):
    given = generated(done, scores=True)
    back = P2().remask(given)
    for line in range(len(given.rows)):
        places = given.valid[line].nonzero().flatten().tolist()
        scores, masks = given.scores[line].tolist(), given.masked[line].tolist()
        count = math.floor(len(places) * (10 - done - 1) / 10)
        spared = max((j for j in places if masks[j]), key=scores.__getitem__, default=None)
        ranked = sorted((j for j in places if j != spared), key=scores.__getitem__)
        assert back[line].nonzero().flatten().tolist() == sorted(ranked[:count])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rule": "cup"}, "rule is 'cup'"),
        ({"eta": 1.5}, "eta is 1.5"),
        ({"eta": -0.1}, "eta is -0.1"),
        ({"rule": "conf", "eta": 0.1}, "has no eta"),
        ({"loop": (0.5, 0.4, 0.9)}, "begin before end"),
        ({"loop": (0.5, 0.9)}, "begin, end and share"),
        ({"loop": (0.5, 0.9, 1.5)}, "all between 0 and 1"),
        ({"loop": (0.5, 0.5, 0.9)}, "with begin before end"),
        ({"loop": (0, 0.5, 0.9)}, "all between 0 and 1"),
        ({"loop": (0.5, 1, 0.9)}, "all between 0 and 1"),
        ({"loop": (0.5, 0.6, 0)}, "all between 0 and 1"),
        ({"loop": (0.5, 0.6, 1)}, "all between 0 and 1"),
        ({"loop": (0.5, "a", 0.9)}, "a number of loop is 'a'"),
        ({"loop": (0.5, -0.1, 0.9)}, "a number of loop is -0.1"),
        ({"loop": "0.5"}, "loop is '0.5'; it must be three numbers"),
        ({"loop": 0.5}, "loop is 0.5; it must be three numbers"),
    ],
)
def test_options_are_checked(options, words):
    with pytest.raises(ValueError, match=words):
        ReMDM(**options)


def test_options_at_their_bounds_and_left_out():
    assert (ReMDM().rule, ReMDM().eta, ReMDM().loop) == ("cap", 0.008, None)
    assert (ReMDM("cap", 0).eta, ReMDM("cap", 1).eta) == (0, 1)
    assert ReMDM(loop=[0.45, 0.95, 0.9]).loop == (0.45, 0.95, 0.9)
