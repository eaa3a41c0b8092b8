"""Generators go back to where they were, through a file that holds plain values."""

import random

import numpy as np
import torch

from xlm_mlm.callbacks.random_state import random_state, set_random_state


def draw():
    return torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random(), random.gauss(0, 1)


def test_all_three_generators_repeat_what_they_drew(tmp_path):
    random.gauss(0, 1)  # the next one is kept for later
    np.random.standard_normal()
    state = random_state()
    first = draw()
    torch.save(state, tmp_path / "state")
    assert draw() != first
    set_random_state(torch.load(tmp_path / "state", weights_only=True))
    assert draw() == first


def test_reading_it_draws_nothing():
    torch.manual_seed(3)
    random_state()
    after = torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(after, torch.rand(1))


def test_another_numpy_generator_is_left_alone():
    before = np.random.get_bit_generator()
    np.random.set_bit_generator(np.random.PCG64(1))
    try:
        state = random_state(torch.device("cpu"))
        assert set(state) == {"torch", "python"}
        first = np.random.rand()
        set_random_state(state)
        assert np.random.rand() != first
    finally:
        np.random.set_bit_generator(before)
