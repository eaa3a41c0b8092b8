"""A hundred thousand files of a history, written and read, and a folder of as many records."""

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from collate_load import make_tokenizer
from load_samples import Growth, watch

from xlm_mlm import MLMPredictor, RotaryTransformerMLMModel
from xlm_mlm.history.files import META
from xlm_mlm.history.reading import read_traces
from xlm_mlm.history_mlm import HistoryTopKPlugin

BATCH, LENGTH, PASSES = 8, 6, 2
FILES_A_RECORD = 2 + 3 * PASSES
_WRITTEN = f"by the predictor, {BATCH} rows of {LENGTH} tokens at a time, {PASSES} passes"


def history(wanted: int, seconds: float) -> Iterator[Growth]:
    """Write so many files through the predictor, read them back, and look through the folder."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        written = watch("history files written", writing(folder), wanted, seconds, _WRITTEN)
        yield written
        files = sum(len(names) for _, _, names in os.walk(folder))
        assert files == written.items + 1, "and one vocabulary"
        records = (entry.name for entry in os.scandir(folder) if entry.is_dir())
        count = written.items // FILES_A_RECORD
        yield watch(
            "history files read, from_serialized",
            lambda: read_one(folder, next(records)),
            min(wanted, written.items),
            seconds,
            f"{count:,} records, each whole",
        )
        yield watch(
            "read_traces, the first 10 of all",
            lambda: len(read_traces(folder, limit=10)),
            1_000,
            seconds / 3,
            f"of {count:,} records",
        )
    yield looking_through(wanted, seconds)


def writing(folder: Path) -> Callable[[], int]:
    """A step that predicts a batch with a history, and returns how many files that makes."""
    tokenizer = make_tokenizer()
    torch.manual_seed(0)
    model = RotaryTransformerMLMModel(
        len(tokenizer), 16, 1, 2, mask_idx=tokenizer.mask_token_id, rotary_emb_dim=8, max_length=8
    )
    kept = HistoryTopKPlugin(folder, 3)
    predictor = MLMPredictor(PASSES, tokenizer=tokenizer, model=model, history=kept)
    rows = torch.full((BATCH, LENGTH), tokenizer.mask_token_id)

    def step() -> int:
        return len(predictor.predict({"input_ids": rows})["fid"]) * FILES_A_RECORD

    return step


def read_one(folder: Path, fid: str) -> int:
    """Read all of a record, and count its files."""
    trace = HistoryTopKPlugin.from_serialized(folder, fid).trace()
    assert (trace.steps, trace.finished) == (PASSES, True)
    return FILES_A_RECORD


def looking_through(records: int, seconds: float) -> Growth:
    """Find the first record of a folder of so many; the time a record must not grow with them."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        writing(folder)()
        first = read_traces(folder, limit=1)[0].fid
        meta = json.loads((folder / first / META).read_text())
        made, spent = BATCH, []

        def step() -> int:
            nonlocal made
            goal = max(records * (len(spent) + 1) // 20, made)
            for number in range(made, goal):
                later = meta | {"begun": meta["begun"] + 10**9 + number}
                (folder / f"{number:032x}").mkdir()
                (folder / f"{number:032x}" / META).write_text(json.dumps(later))
            made = goal
            started = time.perf_counter()
            (trace,) = read_traces(folder, limit=1)
            spent.append((time.perf_counter() - started) / made)
            assert trace.fid == first
            return records // 20

        found = watch("records looked through for the first", step, records, seconds)
    half = len(spent) // 2
    small, large = (statistics.median(part) * 1e6 for part in (spent[:half], spent[half:]))
    note = f"{small:.0f} us a record in folders of up to half as many, {large:.0f} us above"
    return found._replace(note=note)
