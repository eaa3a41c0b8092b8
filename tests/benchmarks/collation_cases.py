"""Collation: rows as Python lists in, a batch of tensors out."""

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from cases import Bench, Line, time_both
from measure import Timing, Workload, interleave
from packages import MASK_ID, SPECIAL_TOKENS, Package, make_tokenizer

Examples = list[dict[str, list[int]]]
VOCABULARY = 30_522
IGNORED = -100
"""Target of a position that does not count."""


def examples_of(rows: int, lengths: dict[str, tuple[int, int]]) -> Examples:
    """Rows of random tokens, each field of a length uniform between two bounds."""
    source = random.Random(0)
    return [
        {
            name: [
                source.randrange(SPECIAL_TOKENS, VOCABULARY)
                for _ in range(source.randint(low, high))
            ]
            for name, (low, high) in lengths.items()
        }
        for _ in range(rows)
    ]


def check_batches(ours: dict[str, Any], reference: dict[str, Any]) -> str:
    """Both hold the same tokens, mask some of them, and change nothing else.

    Compared are the targets where both have one: the existing package's pairs are a column
    narrower, and it puts more of the padding into the loss.

    Raises:
        AssertionError: they do not.
    """
    for batch in (ours, reference):
        masked = batch["input_ids"] == MASK_ID
        seen = (batch["target_ids"] != IGNORED) & ~masked
        if not masked.any() or not torch.equal(batch["input_ids"][seen], batch["target_ids"][seen]):
            raise AssertionError("a batch has no masks, or tokens that are not its targets")
    width = min(len(ours["target_ids"][0]), len(reference["target_ids"][0]))
    targets, others = (batch["target_ids"][:, :width].long() for batch in (ours, reference))
    both = (targets != IGNORED) & (others != IGNORED)
    if not torch.equal(targets[both], others[both]):
        raise AssertionError("the targets of the two batches differ")
    share = both.sum().item() / max((targets != IGNORED).sum().item(), 1)
    return f"unmasked inputs equal their targets, {share:.0%} of the targets compared and equal"


def as_arrays(examples: Examples) -> Workload:
    """Copy every list into an array of known type: what any collator must do at least."""
    rows = [row for example in examples for row in example.values()]

    def run() -> None:
        for row in rows:
            np.array(row, dtype=np.int64)

    return lambda: run


def collation_workload(collator: Callable[[Examples], Any], examples: Examples) -> Workload:
    return lambda: lambda: collator(examples)


def collation_line(
    bench: Bench,
    names: tuple[str, str],
    make: Callable[[Package], Any],
    examples: Examples,
    goal: float | None,
) -> Line:
    """Check, then time; the limit is the time that the arrays alone take."""
    ours, reference = (make(package) for package in bench.packages)
    torch.manual_seed(0)
    check = check_batches(ours(examples), reference(examples))
    # Milliseconds each: many rounds cost little and settle the median.
    bench = replace(bench, rounds=bench.rounds * 10)
    measured = time_both(
        bench, collation_workload(ours, examples), collation_workload(reference, examples)
    )
    arrays = interleave({"arrays": as_arrays(examples)}, bench.rounds)["arrays"]
    limit = Timing.of(arrays).median
    check = f"limit: arrays of the lists alone; {check}"
    return Line("collate", *names, *measured[:2], goal, limit, others=measured.others, check=check)


def collate(bench: Bench) -> Iterator[Line]:
    rows, length = (64, 1024) if not bench.tiny else (3, 16)
    tokenizer = make_tokenizer(VOCABULARY)
    half = length // 2

    def default(package: Package) -> Any:
        return package.default_collator(tokenizer, length, None)

    def seq2seq(package: Package) -> Any:
        return package.seq2seq_train_collator(tokenizer, None, half, half - 1)

    full = examples_of(rows, {"input_ids": (length - 2, length - 2)})
    mixed = examples_of(rows, {"input_ids": (1, length - 2)})
    pairs = examples_of(
        rows, {"prompt_ids": (half - 1, half - 1), "input_ids": (half - 1, half - 1)}
    )
    mixed_pairs = examples_of(rows, {"prompt_ids": (1, half - 1), "input_ids": (1, half - 1)})
    kinds = [("default", default, full, 5.0), ("seq2seq train", seq2seq, pairs, 5.0)]
    if bench.extra:
        kinds += [("default", default, mixed, None), ("seq2seq train", seq2seq, mixed_pairs, None)]
    threads = torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            for kind, make, examples, goal in kinds:
                setting = f"{rows} x {length:,}{'' if goal else ', lengths uniform'}"
                setting += f", {count} thread{'s'[: count - 1]}"
                yield collation_line(bench, (f"collation, {kind}", setting), make, examples, goal)
    finally:
        torch.set_num_threads(threads)
