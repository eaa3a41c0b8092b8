"""Where the random numbers come from."""

import pickle
from itertools import permutations

import numpy as np
import pytest
import torch

from xlm_mlm.collation.randomness import RandomSource


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (3, 3), (4, 6)])
def test_words_fill_their_range(size):
    # Odd counts as well as even ones, since they are drawn in pairs.
    words = np.stack([RandomSource().words(*size) for _ in range(3000)])
    assert words.shape[1:] == size
    shares = words.astype(np.float64) / 2**32
    assert shares.min() < 0.01
    assert shares.max() > 0.99
    assert np.abs(shares.mean(axis=0) - 0.5).max() < 5 * (1 / 12 / 3000) ** 0.5


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
