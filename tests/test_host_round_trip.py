"""The host's jobs as real processes, one after the other, on a tiny network.

prepare_data, train until interrupted, resume, eval, extract_checkpoint; the results are read back
from the files that each job leaves.
"""

import csv
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

import datasets
import pytest
import torch
from warm_process import start_xlm, xlm
from xlm_process import prediction_files, read_rows

from xlm_mlm.model_mlm import RotaryTransformerMLMModel

pytestmark = pytest.mark.slow

MODEL = {"d_model": 32, "num_layers": 2, "nhead": 2, "rotary_emb_dim": 16}
COUNTS = {"train": 64, "validation": 6, "test": 5}
JOB = (
    "experiment=star_easy_offline_mlm",
    "job_name=trip",
    "trainer_strategy=cpu",
    "per_device_batch_size=8",
    "global_batch_size=8",
    "lr_scheduler.num_warmup_steps=1",
    "lr_scheduler.num_training_steps=100",
    "trainer.num_sanity_val_steps=0",
    "callbacks.checkpoint_every_n_steps.every_n_train_steps=2",
    "callbacks.ema.decay=0.5",
    "predictor.max_steps=4",
    "trainer.log_every_n_steps=1",
    "~loggers.tensorboard",
    "+loggers.csv._target_=lightning.pytorch.loggers.CSVLogger",
    "+loggers.csv.save_dir=.",
    "+loggers.csv.name=csv",
    *(f"model.{name}={value}" for name, value in MODEL.items()),
    *(f"star_graphs.counts.{split}={count}" for split, count in COUNTS.items()),
)


@dataclass
class Trip:
    """Where everything happened, and what was there at each stop."""

    folder: Path
    prepared: dict[str, int] = field(default_factory=dict)
    stopped_at: int = 0
    resumed_from: dict = field(default_factory=dict)
    last: dict = field(default_factory=dict)

    @property
    def checkpoints(self) -> Path:
        return self.folder / "logs" / "trip" / "checkpoints"


def train_until_interrupted(trip: Trip) -> None:
    """Press Ctrl-C once two steps have been saved."""
    process = start_xlm(trip.folder, "job_type=train", *JOB, "trainer.max_steps=100000")
    try:
        deadline = time.monotonic() + 120
        while not (trip.checkpoints / "last.ckpt").exists():
            assert process.poll() is None, process.output()
            assert time.monotonic() < deadline, "no checkpoint after two minutes"
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)
    finally:
        process.kill()


def cached_rows(folder: Path) -> dict[str, int]:
    """How many rows of each split were cached; a folder is named after its split and a hash."""
    found = [path.parent for path in (folder / "data").rglob("dataset_info.json")]
    return {path.name.split("-")[0]: len(datasets.load_from_disk(path)) for path in found}


def run(trip: Trip, job_type: str, *overrides: str) -> None:
    done = xlm(trip.folder, f"job_type={job_type}", *JOB, *overrides, timeout=120)
    assert done.code == 0, done.output[-3000:]


@pytest.fixture(scope="module")
def trip(tmp_path_factory) -> Trip:
    trip = Trip(tmp_path_factory.mktemp("round_trip"))
    run(trip, "prepare_data")
    trip.prepared = cached_rows(trip.folder)

    train_until_interrupted(trip)
    trip.resumed_from = load(trip.checkpoints / "on_exception.ckpt")
    trip.stopped_at = trip.resumed_from["global_step"]

    end = trip.stopped_at + trip.stopped_at % 2 + 4
    run(trip, "train", f"trainer.max_steps={end}")
    trip.last = load(trip.checkpoints / "last.ckpt")

    last = trip.checkpoints / "last.ckpt"
    run(trip, "eval", f"+eval.checkpoint_path={last}")
    run(
        trip,
        "extract_checkpoint",
        f"+post_training.checkpoint_path={last}",
        f"+post_training.model_state_dict_path={trip.folder}/weights.pt",
        "+post_training.apply_ema=true",
    )
    return trip


def load(path: Path) -> dict:
    return torch.load(path, weights_only=False)


def logged(folder: Path, version: int, name: str) -> dict[int, float]:
    """What a run logged under `name`, by step."""
    with (folder / "csv" / f"version_{version}" / "metrics.csv").open(newline="") as file:
        return {int(row["step"]): float(row[name]) for row in csv.DictReader(file) if row[name]}


def weights_of(checkpoint: dict) -> dict[str, torch.Tensor]:
    states = checkpoint["state_dict"].items()
    return {key.removeprefix("model."): value for key, value in states if key.startswith("model.")}


def tiny_model() -> RotaryTransformerMLMModel:
    # 7 special tokens and 20 numbers; a prompt of 28, an answer of 14, and 4 to spare.
    return RotaryTransformerMLMModel(27, **MODEL, mask_idx=2, dim_feedforward=128, max_length=46)


def test_prepare_data_fills_the_cache(trip):
    assert trip.prepared == COUNTS  # predictions read the test split


def test_an_interrupted_run_saves_where_it_stopped(trip):
    assert trip.stopped_at >= 2
    assert set(weights_of(trip.resumed_from)) == set(tiny_model().state_dict())
    assert trip.resumed_from["ema"]["num_updates"] == trip.stopped_at


def test_a_resumed_run_goes_on_from_there(trip):
    end = trip.last["global_step"]
    assert end - trip.stopped_at in (4, 5)
    steps = sorted(logged(trip.folder, 1, "train/loss"))
    # Lightning numbers the first step after a resume by one more than the last before it.
    assert len(steps) == end - trip.stopped_at
    assert min(steps) >= trip.stopped_at
    assert trip.last["ema"]["num_updates"] == end
    (optimizer,) = trip.last["optimizer_states"]
    assert {int(state["step"]) for state in optimizer["state"].values()} == {end}
    assert trip.last["lr_schedulers"][0]["last_epoch"] == end
    before, after = weights_of(trip.resumed_from), weights_of(trip.last)
    assert not torch.equal(before["embed_tokens.weight"], after["embed_tokens.weight"])


def test_the_test_after_training_predicts_every_row(trip):
    (path,) = prediction_files(trip.folder, "trip", "test", "prediction")
    assert len(read_rows(path)) == COUNTS["test"]


def test_eval_predicts_every_row_of_the_checkpoint_it_is_given(trip):
    (path,) = prediction_files(trip.folder, "trip", "val", "prediction")
    rows = read_rows(path)
    assert len(rows) == COUNTS["validation"]
    assert all(1 <= row["steps_taken"] <= 4 and row["truth"] for row in rows)
    (match,) = logged(trip.folder, 2, "val/prediction/exact_match").values()
    mean = sum(row["metric_exact_match"] for row in rows) / len(rows)
    assert match == pytest.approx(mean, abs=1e-6)
    (loss,) = logged(trip.folder, 2, "val/lm/accumulated_loss").values()
    assert 0 < loss < 5


def test_extracted_weights_are_the_averaged_ones(trip):
    weights = load(trip.folder / "weights.pt")
    assert set(weights) == set(weights_of(trip.last))
    averaged = dict(
        zip(dict(tiny_model().named_parameters()), trip.last["ema"]["shadow_params"], strict=True)
    )
    for name, expected in averaged.items():
        torch.testing.assert_close(weights[name], expected, rtol=0, atol=0)
    raw = weights_of(trip.last)["embed_tokens.weight"]
    assert not torch.equal(weights["embed_tokens.weight"], raw)


def test_extracted_weights_survive_save_and_load(trip, tmp_path):
    model = tiny_model().eval()
    model.load_state_dict(load(trip.folder / "weights.pt"))
    model.save_pretrained(tmp_path / "model")
    loaded = RotaryTransformerMLMModel.from_pretrained(tmp_path / "model").eval()
    assert set(loaded.state_dict()) == set(model.state_dict())
    ids = torch.randint(27, (2, 46))
    torch.testing.assert_close(loaded(ids), model(ids), rtol=0, atol=0)
