"""Random numbers for sampling: from torch's global generator, or one stream a sample."""

from enum import IntEnum
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float64, Integer
from torch import Tensor

from xlm_mlm.checks import require_int


class Purpose(IntEnum):
    """What a random number decides; each purpose has numbers of its own."""

    POSITION = 0
    TOKEN = 1
    REVISION = 2


class Streams(Protocol):
    """Source of uniform random numbers in [0, 1), one for each candidate position."""

    def uniform(
        self,
        sample_ids: Integer[Tensor, "A"],
        step: int,
        purpose: Purpose,
        places: Integer[Tensor, "A K"],
    ) -> Float64[Tensor, "A K"]:
        """The numbers after `step` passes, for A samples and K places of each."""
        ...


class GlobalStream:
    """Numbers from torch's global generator: `torch.manual_seed` repeats a run as a whole."""

    def uniform(
        self,
        sample_ids: Integer[Tensor, "A"],
        step: int,
        purpose: Purpose,
        places: Integer[Tensor, "A K"],
    ) -> Float64[Tensor, "A K"]:
        """Draw anew; the arguments decide the shape only."""
        return torch.rand(places.shape, dtype=torch.float64)


class SampleStreams:
    """Numbers that depend on (seed, sample, step, place) alone, whatever the batch holds.

    Counter-based (Philox, Salmon et al. 2011): the key is (seed, sample), the counter starts at
    the step and the purpose, so that no draw depends on how many were made before.

    Args:
        seed: 0 to 2**64 - 1.

    Raises:
        ValueError: the seed is out of range.
    """

    def __init__(self, seed: int) -> None:
        self.seed = require_int("seed", seed, 0, None)
        if self.seed >= 2**64:
            raise ValueError(f"seed is {seed}; it must be below 2**64")

    def uniform(
        self,
        sample_ids: Integer[Tensor, "A"],
        step: int,
        purpose: Purpose,
        places: Integer[Tensor, "A K"],
    ) -> Float64[Tensor, "A K"]:
        """Look the numbers up.

        Args:
            sample_ids: number of each sample.
            step: passes done so far.
            purpose: what the numbers decide.
            places: where in its sample each candidate stands, counted without padding.
        """
        count = int(places.max()) + 1 if places.numel() else 0
        lines = np.empty((len(sample_ids), count))
        # The lowest word counts the draws; a stream of 2**64 of them cannot meet the next.
        counter = np.array([0, step, int(purpose), 0], dtype=np.uint64)
        key = np.array([self.seed, 0], dtype=np.uint64)
        bits = np.random.Philox(key=key, counter=counter)
        generator, state = np.random.Generator(bits), bits.state
        for line, sample in zip(lines, sample_ids.tolist(), strict=True):
            # To set one generator's key costs a third of making a new one.
            state["state"]["key"][1] = sample
            bits.state = state
            generator.random(out=line)
        return torch.from_numpy(lines).gather(1, places)


def gumbel(uniform: Float64[Tensor, "*shape"]) -> Float64[Tensor, "*shape"]:
    """Turn uniform numbers into Gumbel noise, in double precision: narrower types lose the tail."""
    tiny = torch.finfo(torch.float64).tiny
    return -torch.log(-torch.log(uniform.clamp(tiny, 1 - torch.finfo(torch.float64).eps)))
