"""Where the random numbers of a collator come from."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Int64, UInt8, UInt32
from torch.utils.data import get_worker_info


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

    def permutation(self, count: int) -> Int64[np.ndarray, "{count}"]:
        """The numbers below `count` in an order of which each is as probable as another."""
        return torch.randperm(count, generator=self._for_this_process()).numpy()

    def state_dict(self) -> dict[str, Any]:
        """Where its own generator stands in this process; nothing where it has none."""
        return {} if self.generator is None else self.__getstate__()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where `state_dict` was read, with the generator it has.

        Nothing happens where it or the state has none.
        """
        if self.generator is not None and state.get("state") is not None:
            self.generator.set_state(tensor_of(state["state"]))
            self._worker_seed = state["worker_seed"]

    def __getstate__(self) -> dict[str, Any]:
        """The generator as bytes: torch would send its state to spawned workers as shared memory,
        which has failed there."""
        state = None if self.generator is None else self.generator.get_state().numpy().tobytes()
        return {"state": state, "worker_seed": self._worker_seed}

    def __setstate__(self, saved: dict[str, Any]) -> None:
        self.generator = None
        self._worker_seed = saved["worker_seed"]
        if saved["state"] is not None:
            self.generator = torch.Generator()
            self.generator.set_state(tensor_of(saved["state"]))

    def _for_this_process(self) -> torch.Generator | None:
        worker = get_worker_info()
        if self.generator is None or worker is None or worker.seed == self._worker_seed:
            return self.generator
        mixed = (self.generator.initial_seed() * 0x9E3779B97F4A7C15 + worker.seed) % 2**63
        self.generator.manual_seed(mixed)
        self._worker_seed = worker.seed
        return self.generator


def source_of(collator: Any) -> RandomSource | None:
    """Where one of our collators draws from; None for a collator of another kind."""
    source = getattr(getattr(collator, "_sampler", None), "source", None)
    return source if isinstance(source, RandomSource) else None


def tensor_of(state: bytes) -> UInt8[torch.Tensor, "N"]:
    """The bytes of a generator's state as torch takes them."""
    return torch.frombuffer(bytearray(state), dtype=torch.uint8)
