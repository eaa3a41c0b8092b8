"""Likelihoods that no mean can take are refused before they are added up."""

import math

import pytest
import torch

from xlm_mlm.likelihood.totals import check_totals
from xlm_mlm.metrics_mlm import BitsPerToken, Perplexity, SequenceNLL

ROWS = torch.tensor([1.0, 2.0])
COUNTS = torch.tensor([3, 0])


@pytest.mark.parametrize(
    ("nll", "num_tokens"),
    [
        (ROWS, COUNTS),
        (ROWS.double(), COUNTS.int()),
        (ROWS, COUNTS.float()),
        (torch.tensor([math.inf, 0.0]), COUNTS),
        (ROWS[:0], COUNTS[:0]),
    ],
)
def test_what_the_loss_gives_is_taken(nll, num_tokens):
    check_totals(nll, num_tokens)


@pytest.mark.parametrize(
    ("nll", "num_tokens", "words"),
    [
        ([1.0, 2.0], COUNTS, r"nll is \[1.0, 2.0\]; it must be a tensor"),
        (ROWS, None, "num_tokens is None; it must be a tensor"),
        (ROWS, COUNTS[:1], r"nll has shape \(2,\) and num_tokens \(1,\)"),
        (ROWS.to(torch.complex64), COUNTS, "nll has dtype torch.complex64; .* real"),
        (ROWS, COUNTS.to(torch.complex64), "num_tokens has dtype torch.complex64; .* real"),
        (torch.tensor([1.0, math.nan]), COUNTS, "nll holds NaN"),
        (torch.tensor([1.0, -0.5]), COUNTS, "nll holds -0.5; it must be 0 or more"),
        (torch.tensor([1.0, -math.inf]), COUNTS, "nll holds -inf; it must be 0 or more"),
        (ROWS, torch.tensor([3, -1]), "num_tokens holds -1; it must be whole numbers, 0 or more"),
        (ROWS, torch.tensor([3, 1.5]), "num_tokens holds 1.5; it must be whole"),
        (ROWS, torch.tensor([3, math.nan]), "num_tokens holds nan; it must be whole"),
        (ROWS, torch.tensor([3, math.inf]), "num_tokens holds inf; it must be whole"),
    ],
)
@pytest.mark.parametrize("kind", [SequenceNLL, BitsPerToken, Perplexity])
def test_the_rest_is_refused_and_nothing_of_it_counts(kind, nll, num_tokens, words):
    metric = kind()
    metric.update(ROWS, COUNTS)
    with pytest.raises(ValueError, match=words):
        metric.update(nll, num_tokens)
    assert (float(metric.nll), float(metric.tokens), float(metric.sequences)) == (3, 3, 1)
