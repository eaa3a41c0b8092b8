"""Which positions the model has to guess. Every random number of a collator is drawn here."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int64, UInt32
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

    def words(self, rows: int, columns: int) -> UInt32[np.ndarray, "{rows} {columns}"]:
        """Whole numbers uniform on [0, 2^32)."""
        count = rows * columns
        # Pairs of them, as torch draws 64 bits at once in little more time than 32.
        pairs = torch.empty((count + 1) // 2, dtype=torch.int64)
        pairs.random_(-(2**63), None, generator=self._for_this_process())
        return pairs.numpy().view(np.uint32)[:count].reshape(rows, columns)

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


def masked_batch(
    ids: Int64[np.ndarray, "B L"],
    visible: Bool[np.ndarray, "B L"] | None,
    eligible: Bool[np.ndarray, "#B L"] | None,
    mask_id: int,
    source: RandomSource,
) -> MLMBatch:
    """Mask some tokens of a padded batch.

    Args:
        ids: the tokens, padding included.
        visible: True where a token may be attended to; elsewhere the target is -100, as it is
            where the data themselves hold the mask token. None for everywhere.
        eligible: True where a token may be masked; within `visible`. None for everywhere.
        mask_id: token that stands for a masked one.
        source: of the random numbers.
    """
    masked = bernoulli_mask(ids.shape, source)
    if eligible is not None:
        masked &= eligible
    attended = np.ones_like(masked) if visible is None else visible
    return {
        "input_ids": torch.from_numpy(hide(ids, masked, mask_id)),
        "attention_mask": torch.from_numpy(attended),
        "target_ids": torch.from_numpy(targets_of(ids, visible, mask_id)),
    }


def hide(
    ids: Int64[np.ndarray, "B L"], masked: Bool[np.ndarray, "B L"], mask_id: int
) -> Int64[np.ndarray, "B L"]:
    """A copy with the mask token where `masked`.

    By arithmetic, as a choice at each of many random places takes a processor three times as long.
    """
    hidden = ids - mask_id
    hidden *= ~masked
    hidden += mask_id
    return hidden


def targets_of(
    ids: Int64[np.ndarray, "B L"], visible: Bool[np.ndarray, "B L"] | None, mask_id: int
) -> Int64[np.ndarray, "B L"]:
    """The tokens, with -100 where they are not visible or no token is known.

    `ids` itself where that is nowhere.
    """
    # A mask that is in the data already hides a token nobody knows.
    hidden = ids == mask_id
    if visible is not None:
        hidden |= ~visible
    return np.where(hidden, IGNORE_INDEX, ids) if hidden.any() else ids
