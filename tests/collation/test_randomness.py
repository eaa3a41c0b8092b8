"""Where the random numbers come from."""

import pickle
from itertools import permutations
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from xlm.datamodule import SimpleSpaceTokenizer

from xlm_mlm.collation import randomness
from xlm_mlm.collation.randomness import RandomSource, source_of
from xlm_mlm.collation.single import DefaultMLMCollator


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (3, 3), (4, 6)])
def test_words_fill_their_range(size):
    # Odd counts as well as even ones, since they are drawn in pairs.
    words = np.stack([RandomSource().words(*size) for _ in range(3000)])
    assert words.shape[1:] == size
    shares = words.astype(np.float64) / 2**32
    assert shares.min() < 0.01
    assert shares.max() > 0.99
    assert np.abs(shares.mean(axis=0) - 0.5).max() < 5 * (1 / 12 / 3000) ** 0.5


@pytest.mark.parametrize(("size", "pairs"), [((1, 1), 1), ((1, 2), 1), ((3, 3), 5), ((4, 6), 12)])
def test_no_more_is_drawn_than_is_needed(size, pairs):
    drawn, expected = (torch.Generator().manual_seed(5) for _ in range(2))
    RandomSource(drawn).words(*size)
    torch.empty(pairs, dtype=torch.int64).random_(-(2**63), None, generator=expected)
    assert torch.equal(drawn.get_state(), expected.get_state())


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


def test_permutations_hold_every_number_and_come_up_alike():
    source = RandomSource(torch.Generator().manual_seed(5))
    drawn = [tuple(source.permutation(3).tolist()) for _ in range(3000)]
    shares = [drawn.count(order) / 3000 for order in permutations(range(3))]
    assert sum(shares) == pytest.approx(1)
    assert max(abs(share - 1 / 6) for share in shares) < 5 * (5 / 36 / 3000) ** 0.5


def test_a_generator_of_its_own_goes_back_to_where_it_was():
    generator = torch.Generator().manual_seed(3)
    source = RandomSource(generator)
    source.words(2, 3)
    state = source.state_dict()
    first = source.words(4, 5)
    again = RandomSource(torch.Generator().manual_seed(8))
    again.load_state_dict(state)
    assert np.array_equal(again.words(4, 5), first)
    source.load_state_dict(state)
    assert source.generator is generator
    assert np.array_equal(source.words(4, 5), first)


def test_without_a_generator_there_is_no_state():
    source = RandomSource()
    assert source.state_dict() == {}
    before = torch.get_rng_state()
    source.load_state_dict(RandomSource(torch.Generator()).state_dict())
    assert source.generator is None
    assert torch.equal(torch.get_rng_state(), before)
    own = RandomSource(torch.Generator().manual_seed(3))
    own.load_state_dict({})
    assert np.array_equal(
        own.words(1, 4), RandomSource(torch.Generator().manual_seed(3)).words(1, 4)
    )


def test_the_source_of_a_collator_is_found():
    tokenizer = SimpleSpaceTokenizer.for_numbers(20)
    generator = torch.Generator()
    collator = DefaultMLMCollator(tokenizer, 8, None, generator=generator)
    assert source_of(collator).generator is generator
    assert source_of(lambda rows: rows) is None
    assert source_of(None) is None


def test_in_a_worker_it_goes_on_where_it_was_and_is_not_seeded_anew(monkeypatch):
    monkeypatch.setattr(randomness, "get_worker_info", lambda: SimpleNamespace(seed=7))
    source, again = (RandomSource(torch.Generator().manual_seed(5)) for _ in range(2))
    source.words(1, 3)
    again.load_state_dict(source.state_dict())
    assert np.array_equal(again.words(2, 4), source.words(2, 4))


def test_a_source_of_another_kind_is_none_of_ours():
    assert source_of(SimpleNamespace(_sampler=SimpleNamespace(source="dice"))) is None
