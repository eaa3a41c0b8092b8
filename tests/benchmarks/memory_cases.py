"""Peak memory of a training step, each package in processes of its own."""

from collections.abc import Iterator

import torch
from arithmetic import ModelShape
from cases import Bench, Line, build_loss, build_model
from measure import Timing, in_fresh_process, peak_bytes
from packages import load_package
from training_cases import TrainingSize, training_batch, training_workload

_SMALL = TrainingSize(ModelShape(40, 64, 2), 2, 8)


def training_peak(package_name: str, size: TrainingSize, threads: int) -> int:
    """Bytes that a first training step needs at most above model and batch; gradients count.

    A small step goes before, so that what libraries allocate once is not charged to the step.
    """
    torch.set_num_threads(threads)
    package = load_package(package_name)
    runs = []
    for current in (_SMALL, size):
        model = build_model(package, current.shape, current.length)
        loss = build_loss(package, model, current.shape.vocabulary)
        runs.append(training_workload(model, loss, training_batch(current))())
    runs[0]()
    return peak_bytes(runs[1])


def memory(bench: Bench) -> Iterator[Line]:
    size = TrainingSize(ModelShape(30_522, 128, 2), 32, 256)
    rounds = min(bench.rounds, 5)
    if bench.tiny:
        size, rounds = TrainingSize(ModelShape(2_000, 64, 2), 4, 64), 1
    peaks: dict[str, list[float]] = {package.name: [] for package in bench.packages}
    for _ in range(rounds):
        for name, found in peaks.items():
            # Memory that an earlier step freed would hide a peak.
            found.append(in_fresh_process(training_peak, name, size, torch.get_num_threads()))
    timings = [Timing.of(found) for found in peaks.values()]
    yield Line(
        "memory", "peak memory of a training step", size.setting, *timings, 3.0,
        check="resident memory at its highest, less that before the step", unit="bytes",
    )  # fmt: skip
