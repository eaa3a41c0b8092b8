"""The ways to draw which positions of a batch are masked, and how often each count comes up."""

from typing import Any, NamedTuple, TypeVar

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64, Integer

from xlm_mlm.checks import require_choice
from xlm_mlm.collation.randomness import RandomSource
from xlm_mlm.collation.schedules import is_real, mask_rates

MASK_SAMPLING = ("bernoulli", "stratified", "exact_count", "complementary")
"""What the option `mask_sampling` of the training collators may be; see `MaskSampler`."""

Rows = TypeVar("Rows", np.ndarray, list[Any])


class Drawn(NamedTuple):
    """The masks of a batch.

    Attributes:
        masked: True where a token is masked; `MaskSampler.copies` times the rows asked for.
        weights: of each row in the bound on the likelihood; None where the count of masked
            tokens is uniform on 0..N, for which the loss has a rule of its own.
    """

    masked: Bool[np.ndarray, "B L"]
    weights: Float32[np.ndarray, "B"] | None


class MaskSampler:
    """Draws the masks of training batches.

    - "bernoulli": each row has a rate t ~ U[0, 1], and each eligible position is masked with
      probability t.
    - "stratified": the same with the rates (u + i)/B for i = 0..B-1 in random order, one u ~
      U[0, 1] a batch: each row's rate is uniform as before, and the batch has one of every
      B-th (MDLM, arXiv 2406.07524).
    - "exact_count": n uniform on 1..N for the N eligible positions of a row, then n of them, every
      set alike. No row is without a mask unless N = 0.
    - "complementary": n uniform on 0..N, then n positions alike; the batch has each row twice,
      first all rows with these masks, then all with the other N - n masked, so that either half
      has a count uniform on 0..N. That n is drawn itself, and not through a rate, has the lower
      variance.

    Eligible are the positions that the collator allows; a mask token in the data itself is never
    one where positions are counted.

    A real noise schedule (see `is_real`) decides the rate of each row of "bernoulli" instead, with
    times that it draws from torch's global generator, whatever generator the collator has.

    Args:
        sampling: one of `MASK_SAMPLING`.
        noise_schedule: of the host's protocol; one that draws no times counts as none.
        source: of all other random numbers.

    Attributes:
        copies: rows of a batch for each example.

    Raises:
        ValueError: an unknown name, a real noise schedule with another name than "bernoulli", or
            a schedule that does not work.
    """

    def __init__(self, sampling: str, noise_schedule: Any, source: RandomSource) -> None:
        self.sampling = require_choice("mask_sampling", sampling, MASK_SAMPLING)
        self.source = source
        self._schedule = noise_schedule if is_real(noise_schedule) else None
        if self._schedule is not None and sampling != "bernoulli":
            raise ValueError(
                f"mask_sampling is {sampling!r} and noise_schedule is "
                f"{type(noise_schedule).__name__}, which draws the mask rates itself; "
                f"{sampling!r} draws them from a uniform t. Use mask_sampling='bernoulli' with a "
                "schedule, or noise_schedule=None"
            )
        self.copies = 2 if sampling == "complementary" else 1

    def draw(
        self,
        ids: Int64[np.ndarray, "B L"],
        eligible: Bool[np.ndarray, "#B L"] | None,
        mask_id: int,
    ) -> Drawn:
        """Draw the masks of a batch.

        Args:
            ids: the tokens.
            eligible: True where a token may be masked. None for everywhere.
            mask_id: token that stands for a masked one.
        """
        if self.sampling in ("exact_count", "complementary"):
            known = ids != mask_id
            return self._counted(known if eligible is None else known & eligible)
        weights = None
        if self._schedule is not None:
            rates, weights = mask_rates(self._schedule, len(ids))
            masked = masked_at(rates, ids.shape[1], self.source)
        elif self.sampling == "stratified":
            masked = masked_at(stratified_rates(len(ids), self.source), ids.shape[1], self.source)
        else:
            masked = bernoulli_mask(ids.shape, self.source)
        if eligible is not None:
            masked &= eligible
        return Drawn(masked, weights)

    def repeat(self, rows: Rows) -> Rows:
        """What goes with the rows of a batch, once for each copy of it."""
        if self.copies == 1:
            return rows
        return rows * 2 if isinstance(rows, list) else np.concatenate([rows, rows])

    def _counted(self, eligible: Bool[np.ndarray, "B L"]) -> Drawn:
        most = eligible.sum(axis=1)
        both = self.sampling == "complementary"
        counts = uniform_counts(0 if both else 1, most, self.source)
        masked = exact_mask(counts, eligible, self.source)
        if both:
            return Drawn(np.concatenate([masked, eligible & ~masked]), None)
        weights = most / np.maximum(counts, 1)
        return Drawn(masked, weights.astype(np.float32))


def bernoulli_mask(size: tuple[int, int], source: RandomSource) -> Bool[np.ndarray, "B L"]:
    """Draw a mask rate t ~ U[0, 1] for each row, then mask each position with probability t.

    Rates and positions both draw whole numbers below 2^32: of those, exactly t 2^32 are smaller
    than t 2^32.

    Args:
        size: rows and columns.
        source: of the random numbers.

    Returns:
        True where a token is masked.
    """
    words = source.words(size[0], size[1] + 1)
    return words[:, 1:] < words[:, :1]


def stratified_rates(rows: int, source: RandomSource) -> Float64[np.ndarray, "{rows}"]:
    """One rate in each of as many equal parts of [0, 1] as there are rows, in random order."""
    u = source.words(1, 1)[0, 0] / 2**32
    return ((u + np.arange(rows)) / rows)[source.permutation(rows)]


def masked_at(
    rates: Float64[np.ndarray, "B"], columns: int, source: RandomSource
) -> Bool[np.ndarray, "B {columns}"]:
    """Mask each position with the probability of its row."""
    return source.words(len(rates), columns) < rates[:, None] * 2**32


def uniform_counts(
    least: int, most: Integer[np.ndarray, "B"], source: RandomSource
) -> Int64[np.ndarray, "B"]:
    """A whole number for each row, uniform on `least`..`most`; `most` where that is less.

    No count is off by more than (most + 1)/2^32 of its probability.
    """
    words = source.words(1, len(most))[0].astype(np.uint64)
    choices = np.maximum(most + 1 - least, 0).astype(np.uint64)
    drawn = (words * choices >> np.uint64(32)).astype(np.int64)
    return np.minimum(least + drawn, most)


def exact_mask(
    counts: Integer[np.ndarray, "B"], eligible: Bool[np.ndarray, "B L"], source: RandomSource
) -> Bool[np.ndarray, "B L"]:
    """Mask so many eligible positions of each row, every set of them as probable as another.

    Args:
        counts: at most the eligible positions of the row.
        eligible: True where a token may be masked.
        source: of the random numbers.
    """
    columns = np.arange(eligible.shape[1], dtype=np.uint64)
    # A random word decides, and the column after it: no two keys of a row are equal.
    keys = source.words(*eligible.shape).astype(np.uint64) << np.uint64(31) | columns
    keys |= (~eligible).astype(np.uint64) << np.uint64(63)
    # Sorting alone is several times as fast as finding every position's rank.
    last = np.take_along_axis(np.sort(keys, axis=1), np.maximum(counts - 1, 0)[:, None], axis=1)
    return (keys <= last) & (counts > 0)[:, None]
