"""Memory and open files of a process while it works, and whether they grow."""

import gc
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

from measure import resident_bytes

POINTS = 50
WARM_UP = 0.2
"""Share of the points that is left out: caches fill, and the allocator finds its size."""
NOISE = 2 * 2**20
"""Bytes. Python's allocator takes memory in arenas of 1 MiB, glibc gives back what is above
128 KiB: what a process holds that leaks nothing wanders by about that."""


class Sample(NamedTuple):
    """What this process held after so many items."""

    items: int
    bytes: int
    handles: int


class Growth(NamedTuple):
    """What a run held, and what a line through its samples says.

    Attributes:
        case: what was done.
        items: how often.
        wanted: how often it was to be done.
        seconds: how long that took.
        bytes_per_item: the slope of the process's own memory, after the warm-up.
        added: what that makes of all the items after the warm-up, in bytes.
        error: the standard error of `added`, in bytes.
        handles: open files after the warm-up, and at the end.
        peak: the most resident memory so far, in bytes.
        note: what else was seen.
    """

    case: str
    items: int
    wanted: int
    seconds: float
    bytes_per_item: float
    added: float
    error: float
    handles: tuple[int, int]
    peak: int
    note: str = ""

    @property
    def grew(self) -> bool:
        """Memory by more than noise, or a file that stayed open."""
        memory = self.added > max(NOISE, 3 * self.error)
        return memory or self.handles[1] > self.handles[0]


def open_handles() -> int:
    """Files, pipes and sockets that this process has open. Linux only."""
    return len(os.listdir("/proc/self/fd"))


def children_bytes() -> int:
    """Own memory of this process's children, in bytes. Linux only."""
    tasks = Path("/proc/self/task").glob("*/children")
    numbers = {number for task in tasks for number in task.read_text().split()}
    return sum(own_bytes(number) for number in numbers)


def own_bytes(number: int | str = "self") -> int:
    """Resident memory of a process that is no page of a file, 0 if it has ended. Linux only.

    Pages of files come and go as the system has room.
    """
    with suppress(OSError):
        for line in Path(f"/proc/{number}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    return 0


def watch(
    case: str,
    step: Callable[[], int],
    wanted: int,
    seconds: float = 300.0,
    note: str = "",
    children: bool = False,
) -> Growth:
    """Repeat a step, and sample what this process holds at some 50 points.

    Args:
        case: what is done.
        step: does some items and returns how many.
        wanted: so many items are done, unless the time ends before.
        seconds: the time.
        note: for the report.
        children: whether the memory of this process's children counts too.
    """
    samples, done, due = [], 0, 0.0
    gc.collect()
    gc.freeze()  # else each sample looks at all of torch's objects
    started = time.perf_counter()
    while done < wanted and time.perf_counter() - started < seconds:
        done += step()
        # By items, or by time where that comes to fewer points.
        share = max(done / wanted, (time.perf_counter() - started) / seconds)
        if share >= due:
            samples.append(_sample(done, children))
            due = share + 1 / POINTS
    taken = time.perf_counter() - started
    if samples[-1].items < done:
        samples.append(_sample(done, children))
    gc.unfreeze()
    return growth_of(case, samples, wanted, taken, resident_bytes("VmHWM"), note)


def _sample(items: int, children: bool) -> Sample:
    gc.collect()
    others = children_bytes() if children else 0
    return Sample(items, own_bytes() + others, open_handles())


def growth_of(
    case: str, samples: Sequence[Sample], wanted: int, seconds: float, peak: int, note: str = ""
) -> Growth:
    """Least squares through the samples after the warm-up.

    Raises:
        ValueError: fewer than 5 are left.
    """
    kept = samples[int(len(samples) * WARM_UP) :]
    if len(kept) < 5:
        raise ValueError(f"{case} has {len(kept)} samples after the warm-up; a line needs 5")
    items = np.array([each.items for each in kept], dtype=float)
    held = np.array([each.bytes for each in kept], dtype=float)
    centred = items - items.mean()
    slope = float(centred @ held / (centred @ centred))
    left = held - held.mean() - slope * centred
    error = float(np.sqrt(left @ left / (len(kept) - 2) / (centred @ centred)))
    span = items[-1] - items[0]
    handles = (max(each.handles for each in kept[:3]), min(each.handles for each in kept[-3:]))
    return Growth(
        case,
        samples[-1].items,
        wanted,
        seconds,
        slope,
        float(slope * span),
        float(error * span),
        handles,
        peak,
        note,
    )
