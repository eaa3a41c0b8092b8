"""A million collations by every collator, and loaders with workers over many epochs."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from load_samples import Growth, watch
from torch.utils.data import DataLoader
from xlm.datamodule import SimpleSpaceTokenizer

from xlm_mlm import datamodule_mlm as collators
from xlm_mlm.papl_unconditional import PaplUnconditionalCollator

MASK_SAMPLING = ("bernoulli", "stratified", "exact_count", "complementary")
VOCABULARY, LENGTH, ROWS = 20, 12, 2
_EXAMPLES = 512


def make_tokenizer() -> Any:
    return SimpleSpaceTokenizer.for_numbers(VOCABULARY)


def make_examples(tokenizer: Any) -> list[dict[str, Any]]:
    """Rows that hold what any collator asks for, of varied lengths."""
    drawn = np.random.default_rng(0)
    rows = []
    for number in range(_EXAMPLES):
        ids = drawn.integers(7, 7 + VOCABULARY, drawn.integers(2, LENGTH - 2)).tolist()
        hidden = drawn.random(len(ids)) < 0.5
        masked = [tokenizer.mask_token_id if h else i for h, i in zip(hidden, ids, strict=True)]
        rows.append({"input_ids": ids, "prompt_ids": masked, "sample_id": number})
    return rows


def packed_examples(tokenizer: Any) -> list[dict[str, Any]]:
    """Full blocks of two segments."""
    drawn = np.random.default_rng(0)
    rows = []
    for _ in range(_EXAMPLES):
        ids = drawn.integers(7, 7 + VOCABULARY, LENGTH)
        ids[drawn.integers(1, LENGTH - 1)] = ids[-1] = tokenizer.eos_token_id
        rows.append({"input_ids": ids.tolist()})
    return rows


def make_collators(tokenizer: Any) -> dict[str, tuple[Any, list[dict[str, Any]]]]:
    """Every collator in every way to draw masks, with the rows that it takes."""
    rows, packed = make_examples(tokenizer), packed_examples(tokenizer)
    equal = [{"input_ids": [tokenizer.mask_token_id] * LENGTH} for _ in range(_EXAMPLES)]
    pairs = [
        {"prompt_ids": row["input_ids"], "input_ids": row["input_ids"][::-1]}
        | {"target_ids": row["input_ids"][::-1], "sample_id": row["sample_id"]}
        for row in rows
    ]
    whole = {"block_size": LENGTH, "noise_schedule": None}
    halves = {"block_size": LENGTH, "input_block_size": LENGTH, "noise_schedule": None}
    found: dict[str, tuple[Any, list[dict[str, Any]]]] = {}
    for way in MASK_SAMPLING:
        made = {
            "DefaultMLMCollator": (whole, rows),
            "DefaultInfillMLMCollator": (whole, rows),
            "MLMSeq2SeqTrainCollator": (halves, pairs),
            "MLMSeq2SeqCollator": (halves, pairs),
            "PackedMLMCollator": ({**whole, "use_flex_attn": True}, packed),
        }
        for name, (options, examples) in made.items():
            collator = getattr(collators, name)(tokenizer, mask_sampling=way, **options)
            found[f"{name} {way}"] = collator, examples
    exact = collators.MLMInfillWithExactTargetPredCollator(tokenizer, **whole)
    found["MLMInfillWithExactTargetPredCollator"] = exact, rows
    found["MLMSeq2SeqPredCollator"] = (
        collators.MLMSeq2SeqPredCollator(tokenizer, **halves),
        pairs,
    )
    unconditional = collators.MLMUnconditionalPredCollator(tokenizer, **whole)
    found["MLMUnconditionalPredCollator"] = unconditional, equal
    found["PaplUnconditionalCollator"] = PaplUnconditionalCollator(), equal
    return found


def collate(wanted: int, seconds: float) -> Iterator[Growth]:
    """All collators in turns in this process, then loaders with two workers."""
    tokenizer = make_tokenizer()
    made = make_collators(tokenizer)
    yield watch(
        f"collate, {len(made)} collators in turns, batches of {ROWS}",
        collating(list(made.values())),
        wanted,
        seconds,
    )
    collator, rows = made["DefaultMLMCollator stratified"]
    batches = len(rows) // 32
    for kept in (False, True):
        loader = DataLoader(
            rows,  # type: ignore[arg-type]
            batch_size=32,
            collate_fn=collator,
            num_workers=2,
            persistent_workers=kept,
        )
        name = "kept over epochs" if kept else "new each epoch"
        epochs = max(wanted // 20_000, 10)
        yield watch(
            f"DataLoader, 2 workers, {name}",
            lambda loader=loader: sum(1 for _ in loader),
            epochs * batches,
            seconds / 3,
            "with the workers" if kept else "without the workers",
            children=kept,
        )


def collating(made: list[tuple[Any, list[dict[str, Any]]]]) -> Callable[[], int]:
    """A step that lets each collator make a batch, of the next rows."""
    starts = itertools.cycle(range(0, _EXAMPLES, ROWS))

    def step() -> int:
        start = next(starts)
        for collator, rows in made:
            collator(rows[start : start + ROWS])
        return len(made)

    return step
