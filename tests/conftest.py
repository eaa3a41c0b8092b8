"""Fixtures that several test modules share."""

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
