"""Ways to run a training step: eager or compiled, fp32 or bf16 autocast on the CPU."""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from arithmetic import ModelShape
from cases import Bench, build_loss, build_models, clone_batch
from measure import Timing, Workload, describe_machine, interleave
from packages import MASK_ID, Package, choose_reference, load_package
from report import amount, machine_text, markdown_table, text_table
from training_cases import TrainingSize, training_batch, training_workload

STEPS = 10
"""Steps with other masked positions each, over which compilations are counted."""


class Compiled(NamedTuple):
    """What compiling a loss cost and gave.

    Attributes:
        eager: seconds of an eager step.
        compiled: seconds of a compiled step, compilation not counted.
        first: seconds of all steps in which something was compiled.
        graphs: graphs compiled in the first step, in the second, and in all others together.
    """

    eager: Timing
    compiled: Timing
    first: float
    graphs: tuple[int, int, int]


class Autocast(NamedTuple):
    """fp32 against bf16 autocast: times of a step, and how far apart losses and gradients are."""

    fp32: Timing
    bf16: Timing
    loss_difference: float
    gradient_difference: float


def varied_batches(size: TrainingSize, count: int) -> list[dict[str, Any]]:
    """Batches that differ in which positions, and in how many, are masked."""
    generator = torch.Generator().manual_seed(2)
    batches = []
    for i in range(count):
        batch = training_batch(size)
        ids, valid = batch["target_ids"].clamp(min=0), batch["attention_mask"]
        masked = (torch.rand(ids.shape, generator=generator) < (i + 1) / (count + 1)) & valid
        batches.append({**batch, "input_ids": ids.masked_fill(masked, MASK_ID)})
    return batches


def graphs_compiled() -> int:
    """Graphs that were compiled since dynamo was reset."""
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


def compile_loss(loss: Any, backend: str = "inductor") -> None:
    """Compile `loss_fn` in place, as the host does with `compile: true`."""
    torch._dynamo.config.cache_size_limit = 100  # the host's, too
    loss.loss_fn = torch.compile(loss.loss_fn, backend=backend, fullgraph=False)


def compare_compiled(
    package: Package,
    models: Sequence[Any],
    size: TrainingSize,
    rounds: int,
    backend: str = "inductor",
) -> Compiled:
    """Step through batches whose masked positions vary, compiled; then time eager and compiled.

    Args:
        package: whose loss is compiled.
        models: two of its models with the same weights, one for each way.
        size: of the batches.
        rounds: timed steps of each way, at most.
        backend: of `torch.compile`.
    """
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    batches = varied_batches(size, STEPS)
    eager, compiled = (build_loss(package, model, size.shape.vocabulary) for model in models)
    compile_loss(compiled, backend)
    graphs, first = [0], 0.0
    for batch in batches:
        started = time.perf_counter()
        training_workload(models[1], compiled, batch)()()
        graphs.append(graphs_compiled())
        if graphs[-1] > graphs[-2]:
            first += time.perf_counter() - started
    workloads = {
        "eager": _in_turn(models[0], eager, batches),
        "compiled": _in_turn(models[1], compiled, batches),
    }
    seconds = interleave(workloads, rounds, budget=20.0)
    counts = (graphs[1], graphs[2] - graphs[1], graphs_compiled() - graphs[2])
    return Compiled(Timing.of(seconds["eager"]), Timing.of(seconds["compiled"]), first, counts)


def _in_turn(model: Any, loss: Any, batches: Sequence[dict[str, Any]]) -> Workload:
    """Steps on one batch after another, over and over."""
    done = 0

    def prepare() -> Any:
        nonlocal done
        batch = batches[done % len(batches)]
        done += 1
        return training_workload(model, loss, batch)()

    return prepare


def autocast_workload(model: Any, loss: Any, batch: dict[str, Any], device: str) -> Workload:
    """A training step under bf16 autocast; the backward pass runs outside, as torch asks."""

    def prepare() -> Any:
        copy = clone_batch(batch)

        def step() -> None:
            model.zero_grad()
            with torch.autocast(device, dtype=torch.bfloat16):
                value = loss(copy)["loss"]
            value.backward()

        return step

    return prepare


def compare_autocast(package: Package, model: Any, size: TrainingSize, rounds: int) -> Autocast:
    """Loss and gradient of one step in fp32 and in bf16 autocast, dropout off; then the times."""
    loss = build_loss(package, model, size.shape.vocabulary)
    batch = training_batch(size)
    workloads = {
        "fp32": training_workload(model, loss, batch),
        "bf16": autocast_workload(model, loss, batch, "cpu"),
    }
    model.eval()
    gradients, losses = [], []
    for workload, enabled in zip(workloads.values(), (False, True), strict=True):
        workload()()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            losses.append(loss(clone_batch(batch))["loss"].item())
    model.train()
    seconds = interleave(workloads, rounds, budget=20.0)
    exact, rounded = gradients
    return Autocast(
        Timing.of(seconds["fp32"]),
        Timing.of(seconds["bf16"]),
        abs(losses[1] - losses[0]) / losses[0],
        ((rounded - exact).norm() / exact.norm()).item(),
    )


COMPILED_HEADINGS = (
    "setting",
    "package",
    "eager",
    "compiled",
    "eager / compiled",
    "compiling",
    "graphs: step 1, step 2, later",
)
AUTOCAST_HEADINGS = (
    "setting",
    "package",
    "fp32",
    "bf16 autocast",
    "fp32 / bf16",
    "loss off by",
    "gradient off by",
)


def compiled_cells(setting: str, package: str, found: Compiled) -> list[str]:
    """A line of the first table."""
    return [
        setting,
        package,
        amount(found.eager.median, "s"),
        amount(found.compiled.median, "s"),
        f"{found.eager.median / found.compiled.median:.2f}x",
        amount(found.first, "s"),
        ", ".join(map(str, found.graphs)),
    ]


def autocast_cells(setting: str, package: str, found: Autocast) -> list[str]:
    """A line of the second table."""
    return [
        setting,
        package,
        amount(found.fp32.median, "s"),
        amount(found.bf16.median, "s"),
        f"{found.fp32.median / found.bf16.median:.2f}x",
        f"{found.loss_difference:.1e}",
        f"{found.gradient_difference:.1e}",
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print both tables, for full rows and padded ones."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--against", choices=("auto", "mlm", "naive"), default="auto")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--markdown", type=Path, help="write the tables to this file")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    reference = load_package(choose_reference(options.against))
    bench = Bench(load_package("xlm_mlm"), reference)
    full = TrainingSize(ModelShape(8_000, 256, 4), 16, 128)
    compiled, autocast = [], []
    for size in (full, full._replace(length=256, padded=True)):
        pairs = [build_models(bench, size.shape, size.length) for _ in range(2)]
        for i, package in enumerate(bench.packages):
            models = [pair[i] for pair in pairs]
            found = compare_compiled(package, models, size, options.rounds)
            compiled.append(compiled_cells(size.setting, package.name, found))
            cast = compare_autocast(package, models[0], size, options.rounds)
            autocast.append(autocast_cells(size.setting, package.name, cast))
            print(*compiled[-1], *autocast[-1][2:], sep="  ", flush=True)
    tables = ((COMPILED_HEADINGS, compiled), (AUTOCAST_HEADINGS, autocast))
    machine = machine_text(describe_machine(("xlm-models",)))
    print(*(text_table(*table) for table in tables), machine, sep="\n\n")
    if options.markdown:
        texts = [markdown_table(*table) for table in tables]
        options.markdown.write_text("\n\n".join([*texts, machine]) + "\n")


if __name__ == "__main__":
    main()
