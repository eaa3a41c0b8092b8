"""What to take back: rules that put the mask token again where a token was committed.

Given tokens are never touched. A revision uses every pass that `max_steps` allows, and so helps
only where there are more passes than masks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from jaxtyping import Bool, Float64, Integer
from torch import Tensor

from xlm_mlm.checks import require_choice, require_number
from xlm_mlm.sampling.candidates import Candidates
from xlm_mlm.sampling.positions import PositionStrategy, lowest

RULES = ("cap", "rescale", "conf")


@dataclass(frozen=True)
class Generated:
    """The positions that were not given, masks and committed tokens, one line a row.

    A = rows that have any, G = the most positions of one.

    Attributes:
        rows: the batch's number of each line.
        columns: the column of each position; 0 in unused places at a line's end.
        valid: where a line holds a position.
        masked: where the pass began with a mask.
        passes_done: passes before this one.
        passes: passes in all.
        noise: uniform numbers in [0, 1), one for each place.
        p: the model's probability of each committed token in the pass that drew it (at
            temperature 1, without top-k or top-p); None for a rule that has no `needs_p`.
        scores: log p, in this pass, of the token at each place, and of the one drawn for a mask;
            None for a rule that has no `needs_scores`.
    """

    rows: Integer[Tensor, "A"]
    columns: Integer[Tensor, "A G"]
    valid: Bool[Tensor, "A G"]
    masked: Bool[Tensor, "A G"]
    passes_done: int
    passes: int
    noise: Float64[Tensor, "A G"]
    p: Float64[Tensor, "A G"] | None = None
    scores: Float64[Tensor, "A G"] | None = None


class Revision(Protocol):
    """The seam for further rules: anything with these members can be the predictor's `revision`.

    `needs_p` may be true for a rule that looks at the probabilities of committed tokens, and
    `selection` be the position rule that goes with it where the user names none.

    Attributes:
        needs_scores: True for a rule that sees the scores of all tokens, drawn ones included, and
            decides by itself which places end the pass as masks.
    """

    needs_scores: bool

    def remask(self, generated: Generated) -> Bool[Tensor, "A G"]:
        """Mark the places that are masks after the pass: committed ones that are taken back; with
        `needs_scores`, masks that stay so as well, and at least one is always filled."""
        ...


class ReMDM:
    """A committed token is masked again with probability sigma (ReMDM, arXiv 2503.00307).

    With a = the share unmasked before the pass, a' = after it (pass / passes), and
    sigma_max = min(1, (1 - a') / a):

    - `cap`: sigma = min(eta, sigma_max)
    - `rescale`: sigma = eta * sigma_max
    - `conf`: sigma = sigma_max times the softmax, over the row's committed tokens, of minus the
      model's probability of each in the pass that drew it

    Where the user names no position rule, a mask is filled with probability
    (a' - (1 - sigma) a) / (1 - a), with sigma 0 for `conf`, and at least one mask of a row.
    Another rule may be named beside it; those with a fixed count make up for what was taken back.

    `max_steps` must be larger than the number of masks for this to help.

    Args:
        rule: `cap`, `rescale` or `conf`.
        eta: from 0 to 1; 0.008 if None. `conf` has none.
        loop: begin and end, as shares of the passes, of a stretch in which the share unmasked stays
            at a third number; tokens are taken back in it only. None takes back throughout. The
            paper uses (0.45, 0.95, 0.9).

    Raises:
        ValueError: an option is unknown or out of range.
    """

    needs_scores = False

    def __init__(
        self, rule: str = "cap", eta: float | None = None, loop: Sequence[float] | None = None
    ) -> None:
        self.rule = require_choice("rule", rule, RULES)
        if rule == "conf" and eta is not None:
            raise ValueError(f"eta is {eta}, and rule='conf' has no eta; leave it out")
        self.eta = require_number("eta", 0.008 if eta is None else eta, 0, "from 0 to 1")
        if self.eta > 1:
            raise ValueError(f"eta is {eta}; it must be from 0 to 1")
        self.loop = None if loop is None else _checked_loop(loop)
        self.needs_p = rule == "conf"
        self.selection: PositionStrategy = _Fill(self)

    def remask(self, generated: Generated) -> Bool[Tensor, "A G"]:
        """Each committed token by itself, with its sigma."""
        committed = generated.valid & ~generated.masked
        sigma: Any = self.sigma(generated.passes_done, generated.passes)
        if generated.p is not None:
            most = self.sigma_max(generated.passes_done, generated.passes)
            doubt = (-generated.p).masked_fill(~committed, -torch.inf)
            # A line without a committed token has no softmax.
            sigma = most * doubt.softmax(dim=1).nan_to_num(0.0)
        return (generated.noise < sigma) & committed

    def sigma_max(self, done: int, passes: int) -> float:
        """The largest sigma that leaves the share unmasked on its schedule."""
        before, after = self.shares(done, passes)
        if self.loop is not None and not self.loop[0] <= done / passes < self.loop[1]:
            return 0.0
        return min(1.0, (1 - after) / before) if before > 0 else 1.0

    def sigma(self, done: int, passes: int) -> float:
        """The probability, for the rules that have one for all tokens."""
        most = self.sigma_max(done, passes)
        return self.eta * most if self.rule == "rescale" else min(self.eta, most)

    def shares(self, done: int, passes: int) -> tuple[float, float]:
        """The share unmasked before and after a pass."""
        return self._share(done / passes), self._share((done + 1) / passes)

    def _share(self, time: float) -> float:
        if self.loop is None:
            return time
        begin, end, share = self.loop
        if time < begin:
            return share * time / begin
        return share if time < end else share + (1 - share) * (time - end) / (1 - end)


class _Fill:
    """Fills each mask by itself, with the probability that goes with a ReMDM."""

    needs_logits = False

    def __init__(self, revision: ReMDM) -> None:
        self.revision = revision

    def select(self, candidates: Candidates) -> Bool[Tensor, "A K"]:
        done = candidates.passes_done
        passes = done + int(candidates.passes_left)
        before, after = self.revision.shares(done, passes)
        sigma = 0.0 if self.revision.rule == "conf" else self.revision.sigma(done, passes)
        p = (after - (1 - sigma) * before) / (1 - before)
        noise, valid = candidates.noise, candidates.valid
        one = torch.ones(len(valid), dtype=torch.long)
        return (noise < p) & valid | lowest(noise, valid, one)


class P2:
    """The lowest-scoring tokens end the pass as masks, whenever they were made (arXiv 2502.03540).

    In pass i of T a token is drawn for every mask; then, of the n positions that were not given,
    the floor(n (1 - (i + 1) / T)) are masks whose token has the lowest log-probability, those of
    committed tokens being looked up in the same pass (self-planning). The best of the masks is
    filled in any case. It chooses positions itself, and goes with no other rule.

    `max_steps` must be larger than the number of masks for it to have the passes to take tokens
    back and fill them anew.
    """

    needs_scores = True

    def remask(self, generated: Generated) -> Bool[Tensor, "A G"]:
        """The lowest-scoring places."""
        scores = generated.scores
        assert scores is not None
        valid, masked = generated.valid.to(scores.device), generated.masked.to(scores.device)
        one = torch.ones(len(scores), dtype=torch.long)
        best = lowest(-scores, valid & masked, one)
        left = generated.passes - generated.passes_done - 1
        count = generated.valid.sum(dim=1) * left // generated.passes
        return lowest(scores, valid & ~best, count)


def _checked_loop(loop: Any) -> tuple[float, float, float]:
    if isinstance(loop, str) or not isinstance(loop, Sequence):
        raise ValueError(f"loop is {loop!r}; it must be three numbers, as (0.45, 0.95, 0.9)")
    numbers = [require_number("a number of loop", each, 0, "from 0 to 1") for each in loop]
    if len(numbers) != 3 or not 0 < numbers[0] < numbers[1] < 1 or not 0 < numbers[2] < 1:
        raise ValueError(
            f"loop is {list(loop)}; it must be begin, end and share unmasked, all between 0 and 1, "
            "with begin before end, as (0.45, 0.95, 0.9)"
        )
    return numbers[0], numbers[1], numbers[2]
