"""Nats in other units."""

import math

import pytest

from xlm_mlm.likelihood_mlm import bits_per_token, perplexity


def test_units():
    assert bits_per_token(6 * math.log(2), 3) == pytest.approx(2)
    assert perplexity(3 * math.log(5), 3) == pytest.approx(5)
    assert math.isnan(bits_per_token(0.0, 0))
    assert math.isnan(perplexity(0.0, 0))
    assert perplexity(1e6, 1) == math.inf
    assert perplexity(math.inf, 2) == math.inf
