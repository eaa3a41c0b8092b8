"""Peak memory of a training step, each package in processes of its own.

Run as a script, it measures one package once and prints the bytes.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from arithmetic import ModelShape
from cases import Bench, Line
from measure import Timing, peak_bytes
from packages import MASK_ID, load_package, make_tokenizer
from training_cases import TrainingSize, training_batch, training_workload


def step_peak(package_name: str, size: TrainingSize) -> int:
    """Bytes that a first training step needs at most, above model and batch (gradients count).

    A tiny step goes before, so that what libraries allocate once is not charged to the step.
    """
    package = load_package(package_name)
    tokenizer = make_tokenizer(size.shape.vocabulary)
    tiny = TrainingSize(ModelShape(40, 64, 2), 2, 8)
    run = None
    for current in (tiny, size):
        vocabulary, width, layers = current.shape
        model = package.model(
            vocabulary, width, layers, current.shape.heads, 0, MASK_ID, max_length=current.length
        )
        loss = package.loss(model=model, tokenizer=tokenizer)
        loss.mask_token_id_tensor = torch.tensor(MASK_ID)
        run = training_workload(model, loss, training_batch(current))()
        if current is tiny:
            run()
    return peak_bytes(run)


def probe(package_name: str, size: TrainingSize, threads: int) -> int:
    """`step_peak` in a process of its own: memory that another step freed would hide a peak."""
    command = [sys.executable, str(Path(__file__)), package_name, str(threads)]
    numbers = [*size.shape, size.batch, size.length]
    done = subprocess.run(
        [*command, *map(str, numbers)], check=True, capture_output=True, text=True
    )
    return int(json.loads(done.stdout.splitlines()[-1]))


def memory(bench: Bench) -> Iterator[Line]:
    size = TrainingSize(ModelShape(30_522, 128, 2), 32, 256)
    rounds = min(bench.rounds, 5)
    if bench.tiny:
        size, rounds = TrainingSize(ModelShape(2_000, 64, 2), 4, 64), 1
    peaks: dict[str, list[float]] = {package.name: [] for package in bench.packages}
    for _ in range(rounds):
        for name, found in peaks.items():
            found.append(probe(name, size, torch.get_num_threads()))
    timings = [Timing.of(found) for found in peaks.values()]
    yield Line(
        "memory", "peak memory of a training step", size.setting, *timings, 3.0,
        check="resident memory at its highest, less that before the step", unit="bytes",
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("package")
    parser.add_argument("threads", type=int)
    parser.add_argument("numbers", type=int, nargs=5, help="V, d, layers, batch, length")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    vocabulary, width, layers, batch, length = options.numbers
    size = TrainingSize(ModelShape(vocabulary, width, layers), batch, length)
    print(json.dumps(step_peak(options.package, size)))


if __name__ == "__main__":
    main()
