"""Fixtures that several test modules share."""

import os

# One thread a process when several share the cores; torch reads it once, when it is imported.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from xlm.datamodule import SimpleSpaceTokenizer


@pytest.fixture(autouse=True)
def _seeded():
    """Every test starts from the same random state: none depends on luck or on order."""
    torch.manual_seed(0)


@pytest.fixture
def tokenizer():
    """Special tokens PAD=0 CLS=1 MASK=2 EOS=3 BOS=4 SEP=5 UNK=6; the number n is n + 7."""
    return SimpleSpaceTokenizer.for_numbers(20)


def pytest_xdist_auto_num_workers():
    """One worker more than there are cores: many tests wait for a process that they started."""
    return len(os.sched_getaffinity(0)) + 1 if hasattr(os, "sched_getaffinity") else None
