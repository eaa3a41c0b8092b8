"""Scores of distributions against sums over plain numbers."""

import math

import pytest
import torch

from xlm_mlm.sampling import distributions
from xlm_mlm.sampling.scores import best_probability, token_log_probability, top_probability


def naive_log_p(logits, token):
    top = max(logits)
    return logits[token] - top - math.log(sum(math.exp(z - top) for z in logits))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("shift", [0.0, -30.0, 500.0])
def test_the_log_probability_of_one_token_is_that_of_the_loop(monkeypatch, dtype, shift):
    monkeypatch.setattr(distributions, "_CPU_PIECE", 14)  # two rows a piece
    logits = (torch.randn(9, 7) * 3 + shift).to(dtype)
    tokens = torch.tensor([0, 6, 3, 3, 1, 5, 2, 4, 6])
    expected = [
        naive_log_p(row, token)
        for row, token in zip(logits.double().tolist(), tokens.tolist(), strict=True)
    ]
    for ids in (tokens, tokens.int()):
        found = token_log_probability(logits, ids)
        assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        # Logits of 500 are 3e-5 apart in single precision.
        assert found.tolist() == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_the_most_probable_token_is_scored():
    logits = torch.randn(4, 6)
    expected = [max(naive_log_p(row, i) for i in range(6)) for row in logits.tolist()]
    assert top_probability(logits).tolist() == pytest.approx(expected, rel=1e-5)
    assert best_probability(logits).log().tolist() == pytest.approx(expected, rel=1e-5)
