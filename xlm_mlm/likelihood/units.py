"""A negative log-likelihood in the units that people compare."""

import math


def bits_per_token(nll: float, tokens: int) -> float:
    """Bits a token, from nats in all; NaN for no tokens."""
    return nll / tokens / math.log(2) if tokens else math.nan


def perplexity(nll: float, tokens: int) -> float:
    """exp(nats a token); NaN for no tokens, infinite where it exceeds every number."""
    if not tokens:
        return math.nan
    try:
        return math.exp(nll / tokens)
    except OverflowError:
        return math.inf
