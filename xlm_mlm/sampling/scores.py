"""How sure a model is of a position: scores for ranking, uncertainties for budgets."""

from collections.abc import Callable
from functools import wraps
from typing import Literal

import torch
from jaxtyping import Float, Integer
from torch import Tensor

from xlm_mlm.sampling.distributions import row_pieces

Confidence = Literal["top_prob", "prob_diff", "entropy"]

Score = Callable[[Float[Tensor, "M V"]], Float[Tensor, "M"]]


def _in_pieces(score: Score) -> Score:
    """Score a few positions at a time: nothing of the logits' size is ever made."""

    @wraps(score)
    def of_all(logits: Float[Tensor, "M V"]) -> Float[Tensor, "M"]:
        return torch.cat([score(piece) for piece in row_pieces(logits)])

    return of_all


@_in_pieces
def best_probability(logits: Float[Tensor, "M V"]) -> Float[Tensor, "M"]:
    """p of the most probable token."""
    return logits.softmax(dim=-1).amax(dim=-1)


def top_probability(logits: Float[Tensor, "M V"]) -> Float[Tensor, "M"]:
    """log p of the most probable token."""
    return best_probability(logits).log()


def token_log_probability(
    logits: Float[Tensor, "M V"], tokens: Integer[Tensor, "M"]
) -> Float[Tensor, "M"]:
    """log p of one token at each position, in fp32 or wider.

    NaN exactly where there is no distribution: of NaN, +inf, or -inf alone.
    """
    pieces, found = row_pieces(logits), []
    parts = tokens.long()[:, None].split([len(piece) for piece in pieces])
    for piece, token in zip(pieces, parts, strict=True):
        z = piece.to(torch.promote_types(piece.dtype, torch.float32))
        # From the largest entry, where p cannot be 0: less the log of the sum, large logits would
        # have no digits left.
        top = z.amax(dim=-1, keepdim=True)
        best = z.softmax(dim=-1).amax(dim=-1)
        found.append((z.gather(1, token) - top).squeeze(1) + best.log())
    return torch.cat(found)


@_in_pieces
def probability_gap(logits: Float[Tensor, "M V"]) -> Float[Tensor, "M"]:
    """p of the most probable token less p of the next."""
    p = logits.softmax(dim=-1)
    best, token = p.max(dim=-1, keepdim=True)
    return best.squeeze(1) - p.scatter_(1, token, 0.0).amax(dim=-1)


@_in_pieces
def entropy(logits: Float[Tensor, "M V"]) -> Float[Tensor, "M"]:
    """Entropy in nats; tokens of probability 0 add nothing."""
    # log p = z - log(sum of exp(z)), and that sum is 1 / p of the most probable token.
    z = logits - logits.amax(dim=-1, keepdim=True)
    p = z.softmax(dim=-1)
    log_sum = -p.amax(dim=-1).log()
    return log_sum - p.mul_(z.clamp_min_(torch.finfo(z.dtype).min)).sum(dim=-1)


def _negative_entropy(logits: Float[Tensor, "M V"]) -> Float[Tensor, "M"]:
    return -entropy(logits)


def _doubt(logits: Float[Tensor, "M V"]) -> Float[Tensor, "M"]:
    return -torch.expm1(top_probability(logits))


def _closeness(logits: Float[Tensor, "M V"]) -> Float[Tensor, "M"]:
    return 1.0 - probability_gap(logits)


def _log_gap(logits: Float[Tensor, "M V"]) -> Float[Tensor, "M"]:
    gap = probability_gap(logits)
    return gap.clamp_min(torch.finfo(gap.dtype).tiny).log()


LOG_SCORES: dict[str, Score] = {
    "top_prob": top_probability,
    "prob_diff": _log_gap,
    "entropy": _negative_entropy,
}
UNCERTAINTIES: dict[str, Score] = {
    "top_prob": _doubt,
    "prob_diff": _closeness,
    "entropy": entropy,
}
