"""Which positions the model has to guess. Every random number of a collator is drawn here."""

from typing import Any

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor
from torch.utils.data import get_worker_info

from xlm_mlm.types_mlm import IGNORE_INDEX, MLMBatch


class RandomSource:
    """Where the random numbers of a collator come from.

    Without a generator that is torch's global one, which the DataLoader seeds differently in
    each worker process. A generator of one's own would be copied into every worker in the same
    state, so on its first use there it is seeded anew, from its own seed and the worker's.

    Args:
        generator: on the CPU; None for torch's global generator.

    Raises:
        ValueError: it is something else.
    """

    def __init__(self, generator: torch.Generator | None = None) -> None:
        if generator is not None and (
            not isinstance(generator, torch.Generator) or generator.device.type != "cpu"
        ):
            raise ValueError(
                f"generator is {generator!r}; it must be a torch.Generator on the CPU, where "
                "collators work, for example torch.Generator().manual_seed(0), or None"
            )
        self.generator = generator
        self._worker_seed: int | None = None

    def uniform(self, *shape: int) -> Float[Tensor, "..."]:
        """Numbers uniform on [0, 1)."""
        return torch.rand(*shape, generator=self._for_this_process())

    def __getstate__(self) -> dict[str, Any]:
        """The generator as bytes: torch would send its state to spawned workers as shared memory,
        which has failed there."""
        state = None if self.generator is None else self.generator.get_state().numpy().tobytes()
        return {"state": state, "worker_seed": self._worker_seed}

    def __setstate__(self, saved: dict[str, Any]) -> None:
        self.generator = None
        self._worker_seed = saved["worker_seed"]
        if saved["state"] is not None:
            state = torch.frombuffer(bytearray(saved["state"]), dtype=torch.uint8)
            self.generator = torch.Generator()
            self.generator.set_state(state)

    def _for_this_process(self) -> torch.Generator | None:
        worker = get_worker_info()
        if self.generator is None or worker is None or worker.seed == self._worker_seed:
            return self.generator
        mixed = (self.generator.initial_seed() * 0x9E3779B97F4A7C15 + worker.seed) % 2**63
        self.generator.manual_seed(mixed)
        self._worker_seed = worker.seed
        return self.generator


def bernoulli_mask(eligible: Bool[Tensor, "B L"], source: RandomSource) -> Bool[Tensor, "B L"]:
    """Draw a mask rate t ~ U[0, 1] for each row, then mask each eligible position with it.

    Args:
        eligible: True where a token may be masked.
        source: of the random numbers.

    Returns:
        True where a token is masked; never outside `eligible`.
    """
    rates = source.uniform(eligible.shape[0], 1)
    return (source.uniform(*eligible.shape) < rates) & eligible


def masked_batch(
    ids: Integer[Tensor, "B L"],
    visible: Bool[Tensor, "B L"],
    eligible: Bool[Tensor, "B L"],
    mask_id: int,
    source: RandomSource,
) -> MLMBatch:
    """Mask some tokens of a padded batch.

    Args:
        ids: the tokens, padding included.
        visible: True where a token may be attended to; elsewhere the target is -100, as it is
            where the data themselves hold the mask token.
        eligible: True where a token may be masked; within `visible`.
        mask_id: token that stands for a masked one.
        source: of the random numbers.
    """
    masked = bernoulli_mask(eligible, source)
    return {
        "input_ids": ids.masked_fill(masked, mask_id),
        "attention_mask": visible.contiguous(),
        # A mask that is in the data already hides a token nobody knows.
        "target_ids": ids.masked_fill(~visible | (ids == mask_id), IGNORE_INDEX),
    }
