"""The OpenWebText shape in bf16, compiled, on a GPU: rows full, padded and packed."""

import argparse
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from arithmetic import ModelShape, Pass, matmul_rate, pass_of, product_workload, work_of
from cases import Bench, build_loss, build_models, clone_batch
from measure import Timing, Workload, describe_machine, interleave
from modes import compile_loss
from packages import MASK_ID, Package, choose_reference, load_package, make_tokenizer
from report import amount, machine_text, markdown_table, text_table
from training_cases import TrainingSize, training_batch

KINDS = ("full", "padded", "packed")
SHAPE = TrainingSize(ModelShape(50_304, 768, 12), 32, 1_024)
TINY = TrainingSize(ModelShape(50, 64, 2), 2, 128)
HEADINGS = (
    "rows",
    "package",
    "step",
    "tokens/s",
    "times ours",
    "peak memory",
    "loss",
    "limit",
    "limit / step",
)


class Found(NamedTuple):
    """One package on one kind of rows; `error` says why there is nothing else."""

    seconds: Timing | None = None
    loss: float = float("nan")
    peak: int = 0
    error: str = ""


def waiter(device: str) -> Callable[[], None]:
    """Waits until the device has done what it was given."""
    return torch.cuda.synchronize if device == "cuda" else lambda: None


def packed_examples(size: TrainingSize, eos: int) -> list[dict[str, list[int]]]:
    """Blocks of several texts, each of a length uniform from a sixteenth of the block to half."""
    generator = torch.Generator().manual_seed(3)
    blocks = torch.randint(7, size.shape.vocabulary, (size.batch, size.length), generator=generator)
    for block in blocks:
        end = -1
        while end < size.length:
            low, high = size.length // 16, size.length // 2
            end += int(torch.randint(low, high + 1, (), generator=generator))
            if end < size.length:
                block[end] = eos
    return [{"input_ids": block.tolist()} for block in blocks]


def batch_of(package: Package, kind: str, size: TrainingSize) -> dict[str, Any]:
    """The same rows for both packages; packed ones come from the package's own collator."""
    if kind != "packed":
        return training_batch(size._replace(padded=kind == "padded"))
    if package.packed_collator is None:
        raise NotImplementedError(f"{package.name} has no packed batches")
    tokenizer = make_tokenizer(size.shape.vocabulary)
    torch.manual_seed(3)
    collator = package.packed_collator(tokenizer, size.length, None, use_flex_attn=True)
    return dict(collator(packed_examples(size, tokenizer.eos_token_id)))


def pass_of_batch(batch: dict[str, Any]) -> Pass:
    """The arithmetic of a batch, its texts (or rows without padding) each by itself."""
    masked = batch["input_ids"] == MASK_ID
    lengths: list[int] = []
    needed: list[int] = []
    for row in range(len(masked)):
        if batch.get("segment_ids") is None:
            lengths.append(int(batch["attention_mask"][row].sum()))
            needed.append(int(masked[row].sum()))
            continue
        segments = batch["segment_ids"][row]
        for segment in segments.unique():
            here = segments == segment
            lengths.append(int(here.sum()))
            needed.append(int((masked[row] & here).sum()))
    return pass_of(lengths, needed)


def step_workload(model: Any, loss: Any, batch: dict[str, Any], device: str) -> Workload:
    """A training step in bf16 autocast on a fresh copy of a batch; returns the loss."""
    wait = waiter(device)

    def prepare() -> Any:
        copy = clone_batch(batch)
        wait()

        def step() -> torch.Tensor:
            model.zero_grad()
            with torch.autocast(device, dtype=torch.bfloat16):
                value = loss(copy)["loss"]
            value.backward()
            wait()
            return value.detach()

        return step

    return prepare


def try_once(workload: Workload, device: str) -> Found:
    """Loss and peak memory of a step; two steps go before, compilation among them."""
    try:
        for _ in range(2):
            workload()()
        step = workload()
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
        value = step().item()
        peak = torch.cuda.max_memory_allocated() - before if device == "cuda" else 0
    except Exception as error:
        # Any failure of the other package is a result to report, and no reason to stop.
        lines = str(error).strip().splitlines() or [""]
        return Found(error=f"{type(error).__name__}: {lines[0][:100]}")
    return Found(loss=value, peak=peak)


def measure_kind(
    bench: Bench, kind: str, size: TrainingSize, device: str, compiled: bool
) -> tuple[dict[str, Found], float, int]:
    """Both packages on one kind of rows; then the arithmetic's seconds, and the valid tokens."""
    options = {"use_flex_attn": True} if kind == "packed" else {}
    models = build_models(bench, size.shape, size.length, **options)
    workloads, found = {}, {}
    for package, model in zip(bench.packages, models, strict=True):
        loss = build_loss(package, model.to(device), size.shape.vocabulary)
        loss.mask_token_id_tensor = loss.mask_token_id_tensor.to(device)
        if compiled:
            compile_loss(loss)
        try:
            batch = batch_of(package, kind, size)
        except NotImplementedError as error:
            found[package.name] = Found(error=str(error))
            continue
        on_device = {k: v.to(device) if hasattr(v, "to") else v for k, v in batch.items()}
        workload = step_workload(model, loss, on_device, device)
        found[package.name] = try_once(workload, device)
        if not found[package.name].error:
            workloads[package.name] = workload
    one = pass_of_batch(batch_of(bench.ours, kind, size))
    work = work_of(size.shape, [one], backward=True)
    products = {
        f"product {i}": product_workload(p, True, torch.bfloat16, device, waiter(device))
        for i, p in enumerate(work.products)
    }
    seconds = interleave({**workloads, **products}, bench.rounds, bench.budget)
    for name in workloads:
        found[name] = found[name]._replace(seconds=Timing.of(seconds[name]))
    rate = matmul_rate(work, [statistics.median(seconds[name]) for name in products])
    return found, work.operations / rate, one.tokens


def kind_rows(kind: str, found: dict[str, Found], limit: float, tokens: int) -> list[list[str]]:
    """Lines of the table, ours first."""
    ours = next(iter(found.values())).seconds
    rows = []
    for name, one in found.items():
        if one.seconds is None:
            rows.append([kind, name, one.error, *[""] * (len(HEADINGS) - 3)])
            continue
        step = one.seconds.median
        rows.append(
            [
                kind,
                name,
                amount(step, "s"),
                f"{tokens / step:,.0f}",
                f"{step / ours.median:.2f}x" if ours else "",
                amount(one.peak, "bytes"),
                f"{one.loss:.3f}",
                amount(limit, "s"),
                f"{limit / step:.0%}",
            ]
        )
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; without the device, say so and return 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="small sizes: does it run at all?")
    parser.add_argument("--eager", action="store_true", help="do not compile")
    parser.add_argument("--against", choices=("auto", "mlm", "naive"), default="auto")
    parser.add_argument("--only", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--markdown", type=Path, help="write the table to this file")
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        print("not run: torch finds no CUDA device here", file=sys.stderr)
        return 1
    reference = load_package(choose_reference(options.against))
    bench = Bench(load_package("xlm_mlm"), reference, rounds=3 if options.tiny else 15)
    size = TINY if options.tiny else SHAPE
    rows = []
    for kind in options.only:
        measured = measure_kind(bench, kind, size, options.device, not options.eager)
        rows += kind_rows(kind, *measured)
    machine = describe_machine(("xlm-models",))
    if options.device == "cuda":
        machine["gpu"] = torch.cuda.get_device_name()
    mode = "eager" if options.eager else "compiled"
    caption = f"{size.setting}, bf16 autocast, {mode}; {machine_text(machine)}"
    print(text_table(HEADINGS, rows), caption, sep="\n")
    if options.markdown:
        options.markdown.write_text(f"{markdown_table(HEADINGS, rows)}\n\n{caption}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
