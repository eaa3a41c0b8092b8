"""Token draws against distributions worked out by hand."""

import math

import pytest
import torch

from xlm_mlm.sampling import distributions
from xlm_mlm.sampling.tokens import TokenSampler, suppress

PROBABILITIES = [0.35, 0.05, 0.3, 0.1, 0.2]
LOGITS = torch.tensor(PROBABILITIES).log() + 3.0


def naive_distribution(temperature=1.0, top_k=None, top_p=None):
    weights = [p ** (1 / temperature) for p in PROBABILITIES]
    p = [w / sum(weights) for w in weights]
    ranked = sorted(range(5), key=lambda i: -p[i])
    kept = ranked[:top_k] if top_k else ranked
    if top_p:
        kept, mass = [], 0.0
        for i in ranked:
            if mass >= top_p:
                break
            kept.append(i)
            mass += p[i]
    total = sum(p[i] for i in kept)
    return [p[i] / total if i in kept else 0.0 for i in range(5)]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 0.5},
        {"temperature": 2.0},
        {"top_k": 2},
        {"top_k": 99},
        {"top_k": 3, "temperature": 0.7},
        {"top_p": 0.5},
        {"top_p": 0.36},
        {"top_p": 1.0},
        {"top_p": 0.01},
        {"top_p": 0.8, "temperature": 1.5},
    ],
)
def test_draws_follow_the_filtered_distribution(options):
    n = 20_000
    uniform = torch.rand(n, dtype=torch.float64)
    drawn = TokenSampler(**options)(LOGITS.expand(n, 5), uniform)
    counts = torch.bincount(drawn, minlength=5)
    expected = torch.tensor(naive_distribution(**options)) * n
    assert not counts[expected == 0].any()
    kept = expected > 0
    statistic = ((counts[kept] - expected[kept]) ** 2 / expected[kept]).sum()
    # At most 4 degrees of freedom: exceeded once in 1,000 at 18.5.
    assert statistic < 18.5


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"top_k": 1}, {"temperature": 1e-30}])
def test_greedy_takes_the_most_probable_token(options):
    uniform = torch.tensor([0.0, 0.5, 1 - 2**-53], dtype=torch.float64)
    logits = torch.stack((LOGITS, LOGITS.flip(0), LOGITS.roll(1)))
    assert TokenSampler(**options)(logits, uniform).tolist() == [0, 4, 1]


@pytest.mark.parametrize("options", [{}, {"top_k": 3}, {"top_p": 0.9}])
def test_the_ends_of_the_unit_interval_give_tokens_of_positive_probability(options):
    logits = torch.tensor([[-torch.inf, 1.0, 0.5, -torch.inf]] * 3)
    uniform = torch.tensor([0.0, 1 - 2**-53, 1.0], dtype=torch.float64)
    assert set(TokenSampler(**options)(logits, uniform).tolist()) <= {1, 2}


def test_rare_tokens_survive_low_precision_logits():
    # 10,000 tokens, one far ahead: the others share about 1 percent of the mass.
    logits = torch.zeros(1, 10_000, dtype=torch.bfloat16)
    logits[0, 0] = math.log(10_000 * 99)
    logits = suppress(logits, [])
    assert logits.dtype == torch.float32
    p_rare = 9_999 / (9_999 + math.exp(logits[0, 0].item()))
    n = 4_000
    drawn = TokenSampler()(logits.expand(n, -1), torch.rand(n, dtype=torch.float64))
    rare = drawn[drawn != 0]
    spread = math.sqrt(n * p_rare * (1 - p_rare))
    assert abs(len(rare) - n * p_rare) < 4 * spread
    assert len(set(rare.tolist())) > 0.9 * len(rare)


def test_suppressed_tokens_are_gone_and_the_logits_left_alone():
    logits = torch.tensor([[5.0, 1.0, 0.0]])
    out = suppress(logits, [0])
    assert out.tolist() == [[-torch.inf, 1.0, 0.0]]
    assert logits.tolist() == [[5.0, 1.0, 0.0]]


@pytest.mark.parametrize(
    "row", [[torch.nan, 0.0], [torch.inf, 0.0], [-torch.inf, -torch.inf], [0.0, -torch.inf]]
)
def test_logits_that_leave_nothing_to_produce_are_refused(row):
    with pytest.raises(ValueError, match="1 of 1 positions"):
        suppress(torch.tensor([row]), [0] if row[0] == 0 else [])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"top_k": 5, "top_p": 0.9}, "top_k=5 and top_p=0.9"),
        ({"top_k": 0}, "top_k is 0"),
        ({"top_k": 2.5}, "top_k is 2.5"),
        ({"top_p": 0.0}, "top_p is 0.0"),
        ({"top_p": 1.1}, "top_p is 1.1"),
        ({"temperature": -1}, "temperature is -1"),
        ({"temperature": float("inf")}, "temperature is inf"),
        ({"temperature": float("nan")}, "temperature is nan"),
    ],
)
def test_bad_options_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        TokenSampler(**options)


def test_a_nucleus_that_is_reached_exactly_takes_no_further_token():
    logits = torch.tensor([[0.5, 0.25, 0.25]], dtype=torch.float64).log()
    drawn = TokenSampler(top_p=0.5)(logits.expand(500, 3), torch.rand(500, dtype=torch.float64))
    assert not drawn.any()


def test_a_suppressed_token_outside_the_vocabulary_is_refused():
    with pytest.raises(ValueError, match="token id 4.*vocabulary of 3"):
        suppress(torch.zeros(1, 3), [4])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("temperature", [1.0, 0.6, 1.7])
@pytest.mark.parametrize("filtering", [{}, {"top_k": 4}, {"top_p": 0.8}])
def test_evenly_spaced_numbers_give_every_token_its_share(dtype, temperature, filtering):
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(40, generator=generator).mul(2).to(dtype)
    logits[[3, 17]] = -torch.inf
    weights = [math.exp(v / temperature) for v in logits.tolist()]
    p = [w / sum(weights) for w in weights]
    ranked = sorted(range(40), key=lambda i: -p[i])
    kept = ranked[: filtering.get("top_k", 40)]
    if "top_p" in filtering:
        kept = [i for n, i in enumerate(ranked) if sum(p[j] for j in ranked[:n]) < 0.8]
    n = 2_000
    uniform = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    sampler = TokenSampler(temperature, **filtering)
    counts = torch.bincount(sampler(suppress(logits.expand(n, -1), []), uniform), minlength=40)
    if filtering and dtype == torch.bfloat16:
        # Of equal tokens at the edge any may be kept: compare the mass of equals.
        groups = [[j for j in range(40) if p[j] == p[i]] for i in range(40)]
    else:
        groups = [[i] for i in range(40)]
    total = sum(p[i] for i in kept)
    for group in groups:
        share = n * sum(p[i] for i in group if i in kept) / total
        assert abs(sum(counts[i].item() for i in group) - share) <= len(group)


@pytest.mark.parametrize(
    "options",
    [{}, {"temperature": 0.7}, {"top_k": 5}, {"top_p": 0.9}, {"temperature": 0.0}],
)
def test_neither_pieces_nor_neighbours_change_a_draw(monkeypatch, options):
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(57, 300, generator=generator) * 2
    uniform = torch.rand(57, dtype=torch.float64, generator=generator)
    sampler = TokenSampler(**options)
    whole = sampler(logits, uniform)
    monkeypatch.setattr(distributions, "_CPU_PIECE", 1500)
    assert torch.equal(sampler(logits, uniform), whole)
    assert torch.equal(sampler(logits[50:], uniform[50:]), whole[50:])
    assert torch.equal(sampler(logits[7:8], uniform[7:8]), whole[7:8])
    assert sampler(logits[:0], uniform[:0]).tolist() == []


def test_the_only_token_is_always_drawn():
    for options in ({}, {"top_k": 3}, {"top_p": 0.5}, {"temperature": 0.0}):
        uniform = torch.tensor([0.0, 0.7, 1 - 2**-53], dtype=torch.float64)
        assert TokenSampler(**options)(torch.zeros(3, 1), uniform).tolist() == [0, 0, 0]


def test_greedy_needs_no_numbers():
    for options in ({"temperature": 0.0}, {"top_k": 1}):
        sampler = TokenSampler(**options)
        assert sampler.greedy
        assert sampler(LOGITS[None]).tolist() == [0]
    assert not TokenSampler(top_k=2).greedy


def test_logits_of_ones_own_are_changed_in_place():
    logits = torch.tensor([[5.0, 1.0, 0.0]])
    assert suppress(logits, [0], in_place=True) is logits
    assert logits.tolist() == [[-torch.inf, 1.0, 0.0]]
    narrow = torch.tensor([[5.0, 1.0, 0.0]], dtype=torch.bfloat16)
    assert suppress(narrow, [0], in_place=True).dtype == torch.float32
    assert narrow.tolist() == [[5.0, 1.0, 0.0]]
