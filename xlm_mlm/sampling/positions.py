"""Which masks to fill in a pass: one small strategy object a rule."""

from collections.abc import Callable
from functools import wraps
from typing import Literal, Protocol

import torch
from jaxtyping import Bool, Float, Float64, Integer
from torch import Tensor

from xlm_mlm.checks import require_choice, require_number
from xlm_mlm.sampling.candidates import Candidates
from xlm_mlm.sampling.distributions import row_pieces
from xlm_mlm.sampling.streams import gumbel

Confidence = Literal["top_prob", "prob_diff", "entropy"]


class PositionStrategy(Protocol):
    """The seam for further rules: anything with these two members can be the predictor's
    `strategy`. A third, `needs_noise`, may be False: no random numbers are drawn for it then.

    Attributes:
        needs_logits: False lets the predictor choose first and project only what was chosen.
    """

    needs_logits: bool

    def select(self, candidates: Candidates) -> Bool[Tensor, "A K"]:
        """Mark the candidates to commit now: at least one in every line, none that is not valid."""
        ...


class Uniform:
    """`ceil(masks / passes left)` positions of each row, uniformly at random."""

    needs_logits = False

    def select(self, candidates: Candidates) -> Bool[Tensor, "A K"]:
        """Those with the smallest random numbers: every subset of the size is equally likely."""
        return lowest(candidates.noise, candidates.valid, candidates.fixed_count)


class FixedCount:
    """`ceil(masks / passes left)` positions of each row, the most confident first.

    MaskGIT (arXiv 2202.04200). The ranking is perturbed by Gumbel noise on log-scores; on
    probabilities the noise would drown the differences.

    Args:
        confidence: `top_prob`, `prob_diff` or `entropy`.
        temperature: scale of the noise; 0 ranks greedily.

    Raises:
        ValueError: an unknown confidence or a negative temperature.
    """

    needs_logits = True

    def __init__(self, confidence: Confidence, temperature: float = 1.0) -> None:
        self.score = LOG_SCORES[require_choice("confidence", confidence, LOG_SCORES)]
        self.temperature = _temperature(temperature)
        self.needs_noise = self.temperature > 0

    def select(self, candidates: Candidates) -> Bool[Tensor, "A K"]:
        """Those with the highest perturbed scores."""
        scores = candidates.grid(self.score(candidates.logits), 0.0).double()
        if self.temperature > 0:
            scores = scores + self.temperature * gumbel(candidates.noise).to(scores.device)
        return lowest(-scores, candidates.valid, candidates.fixed_count)


class Budget:
    """The most confident positions whose uncertainties, less the largest, stay under a budget.

    With `entropy` this is the EB sampler (arXiv 2505.24857): the longest prefix, in order of
    uncertainty u, with sum(u) - max(u) < threshold.

    Args:
        confidence: u is 1 - p1 (`top_prob`), 1 - (p1 - p2) (`prob_diff`) or the entropy in nats.
        threshold: the budget, at least 0; one position a row is committed in any case.

    Raises:
        ValueError: an unknown confidence or a negative threshold.
    """

    needs_logits = True
    needs_noise = False

    def __init__(self, confidence: Confidence, threshold: float) -> None:
        self.uncertainty = UNCERTAINTIES[require_choice("confidence", confidence, UNCERTAINTIES)]
        self.threshold = require_number("threshold", threshold, 0, "finite and at least 0")

    def select(self, candidates: Candidates) -> Bool[Tensor, "A K"]:
        """The longest prefix; on the last pass there is no budget left to keep: all."""
        valid = candidates.valid
        if candidates.passes_left == 1:
            return valid
        u = candidates.grid(self.uncertainty(candidates.logits), 0.0).double()
        valid = valid.to(u.device)
        # Unused places sort last.
        ordered, order = u.masked_fill(~valid, torch.inf).sort(dim=1, stable=True)
        before = ordered.cumsum(dim=1).roll(1, dims=1)
        before[:, 0] = -torch.inf
        chosen = torch.zeros_like(valid).scatter(1, order, before < self.threshold)
        return chosen & valid


def lowest(
    keys: Float64[Tensor, "A K"], valid: Bool[Tensor, "A K"], count: Integer[Tensor, "A"]
) -> Bool[Tensor, "A K"]:
    """Mark the `count` valid places of each line with the lowest keys; ties go to the left."""
    valid, count = valid.to(keys.device), count.to(keys.device)
    order = keys.masked_fill(~valid, torch.inf).argsort(dim=1, stable=True)
    taken = torch.arange(keys.shape[1], device=keys.device) < count[:, None]
    return torch.zeros_like(valid).scatter(1, order, taken) & valid


Score = Callable[[Float[Tensor, "M V"]], Float[Tensor, "M"]]


def _in_pieces(score: Score) -> Score:
    """Score a few positions at a time: nothing of the logits' size is ever made."""

    @wraps(score)
    def of_all(logits: Float[Tensor, "M V"]) -> Float[Tensor, "M"]:
        return torch.cat([score(piece) for piece in row_pieces(logits)])

    return of_all


@_in_pieces
def top_probability(logits: Float[Tensor, "M V"]) -> Float[Tensor, "M"]:
    """log p of the most probable token."""
    return logits.softmax(dim=-1).amax(dim=-1).log()


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


def _temperature(value: float) -> float:
    return require_number("confidence_temperature", value, 0, "finite and at least 0")


def make_strategy(
    confidence: Confidence | None, threshold: float | None, confidence_temperature: float
) -> PositionStrategy:
    """Build the rule that the predictor's three options name.

    Raises:
        ValueError: a value out of range, or a threshold without a confidence.
    """
    _temperature(confidence_temperature)
    if confidence is None:
        if threshold is not None:
            raise ValueError(
                f"threshold is {threshold} but confidence is None; a threshold needs one of "
                f"{', '.join(map(repr, UNCERTAINTIES))}"
            )
        return Uniform()
    if threshold is not None:
        return Budget(confidence, threshold)
    return FixedCount(confidence, confidence_temperature)
