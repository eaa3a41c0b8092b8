"""Position rules, revisions and draws against loops over lines, whatever the logits."""

import dataclasses
import itertools
import math

import numpy as np
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from properties.strategies import rectangles, seeds

from xlm_mlm.sampling.blocks import Blocks
from xlm_mlm.sampling.candidates import Candidates
from xlm_mlm.sampling.positions import Budget, FixedCount, Uniform
from xlm_mlm.sampling.revise import P2, Generated, ReMDM
from xlm_mlm.sampling.streams import Purpose, SampleStreams
from xlm_mlm.sampling.thresholds import Klass, ProbabilityFactor, ProbabilityThreshold

flags = st.booleans()
confidences = st.sampled_from(["top_prob", "prob_diff", "entropy"])


@st.composite
def grids(draw, passes=None):
    """Candidates with noise, and logits of every candidate in double precision.

    In double precision, so that nothing is decided by a rounding that a loop does not have.
    """
    masked = torch.tensor(draw(rectangles(st.sampled_from([True, True, False]))))
    masked[0, 0] = True
    grid = Candidates.of(masked)
    rng = np.random.default_rng(draw(seeds))
    logits = rng.normal(size=(int(masked.sum()), 5)) * draw(st.sampled_from([0.5, 2.0, 6.0]))
    logits[rng.random(logits.shape) < draw(st.sampled_from([0.0, 0.3]))] = -np.inf
    logits[:, 0] = np.where(np.isneginf(logits).all(axis=1), 0.0, logits[:, 0])
    left = draw(st.integers(1, 6)) if passes is None else passes
    return dataclasses.replace(
        grid,
        passes_left=left,
        passes_done=draw(st.integers(0, 3)),
        noise=torch.from_numpy(rng.random(grid.valid.shape)),
        logits=torch.from_numpy(logits),
    )


def lines_of(candidates, values):
    """Values of candidates, in reading order, line by line."""
    values = iter(values)
    return [[next(values) for _ in range(int(n))] for n in candidates.valid.sum(dim=1)]


def probabilities(logits):
    out = []
    for row in logits.tolist():
        top = max(row)
        powers = [math.exp(z - top) for z in row]
        out.append([p / math.fsum(powers) for p in powers])
    return out


def uncertainty(name, p):
    if name == "entropy":
        return -math.fsum(q * math.log(q) for q in p if q)
    best, second = sorted(p)[-1], sorted(p)[-2]
    return 1 - best if name == "top_prob" else 1 - (best - second)


def log_score(name, p):
    if name == "entropy":
        return -uncertainty(name, p)
    best, second = sorted(p)[-1], sorted(p)[-2]
    if name == "top_prob":
        return math.log(best)
    # Of two that are equal the least number there is, as no gap has a logarithm.
    return math.log(max(best - second, 2.2250738585072014e-308))


def assert_chosen(candidates, found, expected):
    """`expected` has the places of each line."""
    assert found.shape == candidates.valid.shape
    assert found.dtype == torch.bool
    for line, places in zip(found, expected, strict=True):
        assert line.nonzero().flatten().tolist() == sorted(places)
        assert len(places) >= 1


def even_share(count, left):
    return -(-count // left)


def clearly_apart(values, gap=1e-9):
    """Whether no two values are so near that a rounding could order them."""
    ordered = sorted(values)
    return all(b - a > gap or b == a for a, b in itertools.pairwise(ordered))


@given(grids())
def test_uniform_takes_the_smallest_numbers(candidates):
    expected = []
    for valid, noise in zip(candidates.valid, candidates.noise, strict=True):
        numbers = noise[valid].tolist()
        count = even_share(len(numbers), candidates.passes_left)
        expected.append(sorted(range(len(numbers)), key=numbers.__getitem__)[:count])
    assert_chosen(candidates, Uniform().select(candidates), expected)


@given(grids(), confidences, st.sampled_from([0.0, 0.7]))
def test_a_fixed_count_takes_the_best_scores(candidates, name, temperature):
    scores = [log_score(name, p) for p in probabilities(candidates.logits)]
    expected = []
    for line, valid, noise in zip(
        lines_of(candidates, scores), candidates.valid, candidates.noise, strict=True
    ):
        numbers = noise[valid].tolist()
        keys = [
            s + temperature * -math.log(-math.log(u)) if temperature else s
            for s, u in zip(line, numbers, strict=True)
        ]
        assume(clearly_apart(keys))
        count = even_share(len(keys), candidates.passes_left)
        expected.append(sorted(range(len(keys)), key=lambda i, k=keys: -k[i])[:count])
    assert_chosen(candidates, FixedCount(name, temperature).select(candidates), expected)


@given(grids(), confidences, st.sampled_from([0.0, 0.05, 0.4, 1.5, 50.0]))
def test_a_budget_takes_the_longest_prefix_that_it_pays_for(candidates, name, threshold):
    doubts = [uncertainty(name, p) for p in probabilities(candidates.logits)]
    expected = []
    for line in lines_of(candidates, doubts):
        if candidates.passes_left == 1:
            expected.append(range(len(line)))
            continue
        order = sorted(range(len(line)), key=line.__getitem__)
        sums = [math.fsum(line[i] for i in order[:n]) for n in range(1, len(order))]
        assume(clearly_apart(line) and all(abs(s - threshold) > 1e-9 for s in sums))
        expected.append(order[: 1 + sum(s < threshold for s in sums)])
    assert_chosen(candidates, Budget(name, threshold).select(candidates), expected)


@given(grids(), st.sampled_from([0.2, 0.5, 0.9, 1.0]))
def test_a_threshold_takes_all_that_reach_it_or_the_best(candidates, tau):
    best = [max(p) for p in probabilities(candidates.logits)]
    assume(clearly_apart([*best, tau]))
    expected = [
        [i for i, p in enumerate(line) if p >= tau] or [line.index(max(line))]
        for line in lines_of(candidates, best)
    ]
    assert_chosen(candidates, ProbabilityThreshold(tau).select(candidates), expected)


@given(grids(), st.sampled_from([0.0, 0.3, 1.0, 2.5]))
def test_a_factor_takes_the_longest_prefix_in_which_every_rank_is_sure(candidates, factor):
    best = [max(p) for p in probabilities(candidates.logits)]
    expected = []
    for line in lines_of(candidates, best):
        order = sorted(range(len(line)), key=lambda i, p=line: -p[i])
        bounds = [1 - factor / (rank + 1) for rank in range(1, len(line) + 1)]
        assume(clearly_apart([*line, *bounds]))
        taken = order[:1]
        for i, bound in zip(order[1:], bounds[1:], strict=True):
            if line[i] < bound:
                break
            taken.append(i)
        expected.append(taken)
    assert_chosen(candidates, ProbabilityFactor(factor).select(candidates), expected)


def kl(p, q):
    return math.fsum(a * math.log(a / b) if b else math.inf for a, b in zip(p, q, strict=True) if a)


@given(grids(passes=4), st.sampled_from([0.01, 0.5]), st.integers(1, 2), seeds)
def test_klass_waits_until_a_distribution_has_settled(first, kappa, history, seed):
    """Three passes over the same masks, between which the logits move a little."""
    rng, memory, calm, before = np.random.default_rng(seed), {}, None, None
    for number in range(3):
        moved = first.logits + torch.from_numpy(rng.normal(size=tuple(first.logits.shape))) * 0.1
        candidates = dataclasses.replace(
            first, passes_done=number, passes_left=4 - number, memory=memory, logits=moved
        )
        now = probabilities(moved)
        if before is None:
            calm = [0] * len(now)
        else:
            drift = [kl(p, q) for p, q in zip(now, before, strict=True)]
            assume(clearly_apart([*drift, kappa]))
            calm = [n + 1 if d < kappa else 0 for n, d in zip(calm, drift, strict=True)]
        before, best = now, [max(p) for p in now]
        assume(clearly_apart([*best, 0.4]))
        expected = []
        for p, quiet in zip(lines_of(first, best), lines_of(first, calm), strict=True):
            settled = [i for i in range(len(p)) if p[i] > 0.4 and quiet[i] >= history]
            count = even_share(len(p), 4 - number)
            ranked = sorted(range(len(p)), key=lambda i, p=p: -p[i])
            expected.append(settled or ranked[:count])
        assert_chosen(candidates, Klass(0.4, kappa, history).select(candidates), expected)


@given(rectangles(st.sampled_from([True, True, False])), st.integers(1, 6), st.integers(1, 10))
def test_blocks_are_filled_from_the_left_within_the_passes(rows, passes, length):
    """Passes are shared out by masks, and every line is done in time."""
    masked = torch.tensor(rows)
    first = masked.int().argmax(dim=1)
    for left in range(passes, 0, -1):
        grid = dataclasses.replace(Candidates.of(masked), passes_left=left)
        offsets = grid.columns - first[grid.rows][:, None]
        opened = Blocks(length).open(grid, offsets)
        for line, row in enumerate(grid.rows.tolist()):
            spots = [c for c, m in enumerate(masked[row].tolist()) if m]
            numbers = [(c - int(first[row])) // length for c in spots]
            blocks = sorted(set(numbers))
            together = even_share(len(blocks), left)
            inside = [c for c, n in zip(spots, numbers, strict=True) if n in blocks[:together]]
            assert grid.columns[line][opened.valid[line]].tolist() == inside
            # Of more than one pass a block, each of the later ones keeps one.
            most = max(left - (len(blocks) - together), 1)
            budget = min(max(len(inside) * left // len(spots), 1), most) if together == 1 else 1
            assert opened.passes_left[line] == budget
            masked[row, inside[: even_share(len(inside), budget)]] = False
    assert not masked.any()


@st.composite
def revised(draw):
    """What a revision sees: places, which of them were masked, noise, p and scores."""
    ours = torch.tensor(draw(rectangles(st.sampled_from([True, True, False]))))
    ours[0, 0] = True
    grid, passes = Candidates.of(ours), draw(st.integers(1, 8))
    rng = np.random.default_rng(draw(seeds))
    shape, share = tuple(grid.valid.shape), draw(st.sampled_from([0.0, 0.5, 1.0]))
    masked = torch.from_numpy(rng.random(shape) < share)
    # Each line has a mask: the predictor shows a P2 no complete row.
    masked[:, 0] = True
    numbers = [torch.from_numpy(rng.random(shape)) for _ in range(3)]
    done = draw(st.integers(0, passes - 1))
    return Generated(
        grid.rows, grid.columns, grid.valid, masked & grid.valid, done, passes, *numbers
    )


def shares(done, passes, loop):
    def share(time):
        if loop is None:
            return time
        begin, end, level = loop
        if time < begin:
            return level * time / begin
        return level if time < end else level + (1 - level) * (time - end) / (1 - end)

    return share(done / passes), share((done + 1) / passes)


def sigmas(view, rule, eta, loop):
    """The probability with which each place of each line is taken back."""
    before, after = shares(view.passes_done, view.passes, loop)
    most = min(1.0, (1 - after) / before) if before else 1.0
    if loop is not None and not loop[0] <= view.passes_done / view.passes < loop[1]:
        most = 0.0
    out = []
    for valid, masked, p in zip(
        *(t.tolist() for t in (view.valid, view.masked, view.p)), strict=True
    ):
        committed = [v and not m for v, m in zip(valid, masked, strict=True)]
        total = math.fsum(math.exp(-q) for q, c in zip(p, committed, strict=True) if c)
        each = {
            "cap": lambda q: min(eta, most),
            "rescale": lambda q: eta * most,
            "conf": lambda q, total=total: most * math.exp(-q) / total,
        }[rule]
        out.append([each(q) if c else 0.0 for q, c in zip(p, committed, strict=True)])
    return out


remdm_rules, etas = st.sampled_from(["cap", "rescale", "conf"]), st.sampled_from([0.0, 0.3, 1.0])
loops = st.sampled_from([None, (0.25, 0.75, 0.5), (0.1, 0.9, 0.8)])


@given(
    revised(), st.sampled_from(["cap", "rescale", "conf"]), st.sampled_from([0.0, 0.3, 1.0]), loops
)
def test_remdm_takes_back_with_its_probability(view, rule, eta, loop):
    expected = sigmas(view, rule, eta, loop)
    if rule != "conf":
        view = dataclasses.replace(view, p=None)
    back = ReMDM(rule, None if rule == "conf" else eta, loop).remask(view)
    for got, line, noise in zip(back.tolist(), expected, view.noise.tolist(), strict=True):
        for taken, sigma, u in zip(got, line, noise, strict=True):
            assert taken == (u < sigma) or abs(u - sigma) < 1e-12
    assert not (back & (view.masked | ~view.valid)).any()


@given(
    grids(), st.sampled_from(["cap", "rescale", "conf"]), st.sampled_from([0.0, 0.3, 1.0]), loops
)
def test_remdm_fills_with_its_probability_and_at_least_one(candidates, rule, eta, loop):
    done, passes = candidates.passes_done, candidates.passes_done + candidates.passes_left
    before, after = shares(done, passes, loop)
    revision = ReMDM(rule, None if rule == "conf" else eta, loop)
    sigma = 0.0 if rule == "conf" else revision.sigma(done, passes)
    p = (after - (1 - sigma) * before) / (1 - before)
    expected = []
    for valid, noise in zip(candidates.valid, candidates.noise, strict=True):
        numbers = noise[valid].tolist()
        least = numbers.index(min(numbers))
        expected.append([i for i, u in enumerate(numbers) if u < p or i == least])
    assert_chosen(candidates, revision.selection.select(candidates), expected)


@given(revised())
def test_p2_leaves_the_lowest_scores_masked_and_fills_at_least_one(view):
    back, left = P2().remask(view), view.passes - view.passes_done - 1
    for i, got in enumerate(back.tolist()):
        places = [g for g, v in enumerate(view.valid[i].tolist()) if v]
        scores, masks = view.scores[i].tolist(), view.masked[i].tolist()
        spared = max((g for g in places if masks[g]), key=scores.__getitem__)
        ranked = sorted((g for g in places if g != spared), key=scores.__getitem__)
        kept = set(ranked[: len(places) * left // view.passes])
        assert got == [g in kept for g in range(len(got))]


@given(st.lists(st.integers(0, 2**62), min_size=2, max_size=4, unique=True), seeds, st.data())
def test_a_samples_numbers_depend_on_nothing_but_itself(samples, seed, choose):
    """Whatever is asked beside it, in whatever order, at whatever places."""
    streams, step = SampleStreams(seed), choose.draw(st.integers(0, 9))
    places = choose.draw(st.lists(st.integers(0, 20), min_size=1, max_size=5))
    grid = torch.tensor([places] * len(samples))
    together = streams.uniform(torch.tensor(samples), step, Purpose.TOKEN, grid)
    order = choose.draw(st.permutations(range(len(samples))))
    for i in order:
        for column, place in enumerate(places):
            one = streams.uniform(
                torch.tensor([samples[i]]), step, Purpose.TOKEN, torch.tensor([[place]])
            )
            assert one.item() == together[i, column].item()
            assert 0 <= one.item() < 1
    # Samples, steps and purposes have numbers of their own.
    assert len({together[i, 0].item() for i in range(len(samples))}) == len(samples)
    others = [(step + 1, Purpose.TOKEN), (step, Purpose.POSITION), (step, Purpose.REVISION)]
    for other in others:
        assert not torch.equal(streams.uniform(torch.tensor(samples), *other, grid), together)
