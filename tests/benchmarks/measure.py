"""Times and peak memory, and the machine they were taken on."""

import importlib.metadata
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import torch

Workload = Callable[[], Callable[[], Any]]
"""Prepares one run (fresh inputs, not timed) and returns the function to be timed."""


class Timing(NamedTuple):
    """Seconds of several runs: their median, and the quartiles as spread."""

    median: float
    low: float
    high: float
    runs: int

    @classmethod
    def of(cls, seconds: list[float]) -> "Timing":
        if len(seconds) < 2:
            return cls(seconds[0], seconds[0], seconds[0], len(seconds))
        low, _, high = statistics.quantiles(seconds, n=4, method="inclusive")
        return cls(statistics.median(seconds), low, high, len(seconds))


def interleave(
    workloads: Mapping[str, Workload], rounds: int, budget: float = 60.0, warm_up: int = 1
) -> dict[str, list[float]]:
    """Time workloads in turns, so that a slow spell of the machine hits all of them.

    Args:
        workloads: by name; each round runs every one once, and every other round in reverse.
        rounds: how often; at least 3 are run, whatever the budget.
        budget: seconds after which no further round starts.
        warm_up: untimed rounds before.

    Returns:
        Seconds of each run, by name.
    """
    for _ in range(warm_up):
        for workload in workloads.values():
            workload()()
    seconds: dict[str, list[float]] = {name: [] for name in workloads}
    started = time.perf_counter()
    for done in range(rounds):
        if done >= 3 and time.perf_counter() - started > budget:
            break
        names = list(workloads)
        for name in names if done % 2 == 0 else reversed(names):
            run = workloads[name]()
            begun = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - begun)
    return seconds


class OtherWork:
    """How busy the cores were with anything but this process, since this was made. Linux only."""

    def __init__(self) -> None:
        self._start = self._seconds()

    @staticmethod
    def _seconds() -> tuple[float, float]:
        stat = Path("/proc/stat")
        if not stat.exists():
            return 0.0, 0.0
        ticks = [int(text) for text in stat.read_text().split("\n", 1)[0].split()[1:9]]
        idle, waiting = ticks[3], ticks[4]
        second = os.sysconf("SC_CLK_TCK")
        own = sum(os.times()[:2])
        return (sum(ticks) - idle - waiting) / second - own, sum(ticks) / second

    def share(self) -> float:
        """Of the time of all cores, 0 to 1; what a hypervisor took away counts too."""
        (busy, total), (busy_before, total_before) = self._seconds(), self._start
        return max(busy - busy_before, 0.0) / max(total - total_before, 1e-9)


def in_fresh_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function of a module in a new process that has computed nothing before.

    It is forked from a server that has done no more than import torch and the host.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "xlm.harness"])
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *arguments).result()


def resident_bytes(field: str) -> int:
    """`VmRSS` (now) or `VmHWM` (the most so far) of this process, in bytes. Linux only."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {field}")


def peak_bytes(run: Callable[[], Any]) -> int:
    """Most resident memory while `run` works, above what was resident before. Linux only."""
    Path("/proc/self/clear_refs").write_text("5")  # sets VmHWM back to VmRSS
    before = resident_bytes("VmRSS")
    run()
    return max(resident_bytes("VmHWM") - before, 0)


def describe_machine(packages: tuple[str, ...] = ()) -> dict[str, str]:
    """What the figures depend on: processor, cores, threads, versions, date."""
    versions = {}
    for name in ("xlm-core", "xlm-mlm", *packages):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return {
        "processor": _processor(),
        "cores": str(len(os.sched_getaffinity(0))),
        "threads": str(torch.get_num_threads()),
        "torch": torch.__version__,
        "python": platform.python_version(),
        **versions,
        "date": date.today().isoformat(),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.exists() else ""
    found: dict[str, str] = {}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        found.setdefault(name.strip(), value.strip())
    name = found.get("model name", platform.processor() or "unknown")
    family = f", family {found['cpu family']} model {found['model']}" if "model" in found else ""
    flags = found.get("flags", "").split()
    widest = next((f for f in ("avx512f", "avx2", "avx") if f in flags), "")
    return f"{name}{family}{', ' + widest if widest else ''}"
