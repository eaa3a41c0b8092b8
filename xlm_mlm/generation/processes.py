"""The processes of a run, as torchrun numbers them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch

# To come together. Later on each waits for the slowest, however long it takes: one that ends is
# noticed at once.
_MEET, _WORK = timedelta(minutes=10), timedelta(days=30)


@dataclass(frozen=True)
class Processes:
    """This process among those of the run.

    Attributes:
        rank: its number, from 0.
        local_rank: its number among those of this machine.
        world: how many there are.
    """

    rank: int = 0
    local_rank: int = 0
    world: int = 1
    group: Any = None

    def wait(self) -> None:
        """Wait until all have come here.

        Raises:
            RuntimeError: one of them has ended.
        """
        self.of_first(None)

    def of_first(self, value: Any) -> Any:
        """Wait until all have come here, and return what the first process gave.

        Raises:
            RuntimeError: one of them has ended.
        """
        if self.world == 1:
            return value
        shared = [value]
        try:
            torch.distributed.barrier(group=self.group)
            torch.distributed.broadcast_object_list(shared, src=0, group=self.group)
        except RuntimeError as error:
            raise RuntimeError(
                f"another process of the {self.world} ended early; see its message, then run the "
                "same command again: it goes on where each process stopped"
            ) from error
        return shared[0]


@contextmanager
def joined() -> Iterator[Processes]:
    """Meet the other processes, if RANK, LOCAL_RANK and WORLD_SIZE tell of any.

    Rows don't cross, so the CPU's backend will do.

    Raises:
        ValueError: the variables are no numbers that fit each other.
        RuntimeError: the others did not come.
    """
    rank, world = _number("RANK", 0), _number("WORLD_SIZE", 1)
    local_rank = _number("LOCAL_RANK", rank)
    if world < 1:
        raise ValueError(f"the variable WORLD_SIZE is {world}; there is at least 1 process")
    if rank >= world:
        raise ValueError(f"RANK is {rank} and WORLD_SIZE {world}; ranks go from 0 to {world - 1}")
    if world == 1:
        yield Processes()
        return
    try:
        torch.distributed.init_process_group("gloo", timeout=_MEET)
        group = torch.distributed.new_group(timeout=_WORK)
    except (RuntimeError, ValueError) as error:
        raise RuntimeError(f"the {world} processes did not come together: {error}") from error
    try:
        yield Processes(rank, local_rank, world, group)
    finally:
        torch.distributed.destroy_process_group()


def _number(name: str, default: int) -> int:
    text = os.environ.get(name)
    if text is None:
        return default
    if not text.isdecimal():
        raise ValueError(f"the variable {name} is {text!r}; it must be a whole number")
    return int(text)
