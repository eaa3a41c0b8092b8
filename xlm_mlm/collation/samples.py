"""Numbers of samples, which key their random streams: who has which, whatever makes the batches."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Int64
from torch import Tensor

from xlm_mlm.checks import require_int

SAMPLE_ID = "sample_id"
"""The field of an example that holds its number; batches have `sample_ids`."""


class Process(NamedTuple):
    """Which of several processes this one is; the only one where torch has no process group."""

    rank: int
    world: int

    @classmethod
    def this(cls) -> "Process":
        """The process that asks."""
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            return cls(torch.distributed.get_rank(), torch.distributed.get_world_size())
        return cls(0, 1)


def sample_ids_of(examples: Sequence[Mapping[str, Any]]) -> Int64[Tensor, "B"] | None:
    """The numbers that examples carry in `sample_id`; None if none does.

    Raises:
        ValueError: some carry one and some do not, or one is no integer from 0 to 2^63 - 1.
    """
    numbered = [SAMPLE_ID in example for example in examples]
    if not any(numbered):
        return None
    if not all(numbered):
        raise ValueError(
            f"row {numbered.index(True)} of the batch has a {SAMPLE_ID} and row "
            f"{numbered.index(False)} has none; all rows of a batch must have one, or none"
        )
    ids = [_number(example[SAMPLE_ID], i) for i, example in enumerate(examples)]
    return torch.tensor(ids, dtype=torch.int64)


def with_sample_ids(batch: Any, examples: Sequence[Mapping[str, Any]]) -> Any:
    """Add `sample_ids` to a batch to predict, if its examples carry numbers; see above."""
    ids = sample_ids_of(examples)
    if ids is not None:
        batch["sample_ids"] = ids
    return batch


def _number(value: Any, row: int) -> int:
    name = f"{SAMPLE_ID} of row {row} of the batch"
    if isinstance(value, Tensor):
        value = value.item() if value.ndim == 0 else value.tolist()
    number = require_int(name, value, 0)
    if number >= 2**63:
        raise ValueError(f"{name} is {number}; it must be less than 2**63")
    return number
