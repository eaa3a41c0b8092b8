"""Random streams of several processes: apart from each other, and the same when repeated."""

import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from xlm_mlm.callbacks.own_streams import OwnStreams

STARTS = ("on_train_start", "on_validation_start", "on_test_start", "on_predict_start")


def drawn(rank=0, world=2, step=0, start="on_train_start", doing="fit", seed=5):
    """What a process that the host has seeded draws once something starts."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    state = SimpleNamespace(fn=doing)
    trainer = SimpleNamespace(world_size=world, global_rank=rank, global_step=step, state=state)
    callback = OwnStreams()
    callback.setup(trainer, None, doing)
    getattr(callback, start)(trainer, None)
    return random.random(), np.random.random(), torch.rand(()).item()


@pytest.mark.parametrize("start", STARTS)
def test_each_process_has_its_own_numbers(start):
    doing = "fit" if start == "on_train_start" else "test"
    ranks = [drawn(rank, 3, start=start, doing=doing) for rank in range(3)]
    for numbers in zip(*ranks, strict=True):
        assert len(set(numbers)) == 3
    assert drawn(1, 3, start=start, doing=doing) == ranks[1]


def test_resumed_or_seeded_otherwise_it_has_others():
    assert len({drawn(1), drawn(1, step=7), drawn(1, seed=6)}) == 3


def test_one_process_and_a_validation_within_training_go_on_as_they_are():
    random.seed(5)
    np.random.seed(5)
    torch.manual_seed(5)
    as_seeded = random.random(), np.random.random(), torch.rand(()).item()
    assert drawn(world=1) == as_seeded
    assert drawn(1, start="on_validation_start", doing="fit") == as_seeded
    assert drawn(1) != as_seeded
