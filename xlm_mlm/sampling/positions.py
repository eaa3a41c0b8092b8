"""Which masks to fill in a pass: one small strategy object a rule."""

from typing import Protocol

import torch
from jaxtyping import Bool, Float64, Integer
from torch import Tensor

from xlm_mlm.checks import require_choice, require_number
from xlm_mlm.sampling.candidates import Candidates
from xlm_mlm.sampling.scores import LOG_SCORES, UNCERTAINTIES, Confidence
from xlm_mlm.sampling.streams import gumbel


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
        if candidates.last.all():
            return candidates.valid
        u = candidates.grid(self.uncertainty(candidates.logits), 0.0).double()
        valid = candidates.valid.to(u.device)
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
