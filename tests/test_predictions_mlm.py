"""The shared file of predictions beside the host's; `test_processes.py` has two writers."""

import builtins
import json
from types import SimpleNamespace

import pytest
import torch
from hydra.utils import instantiate
from xlm.log_predictions import FilePredictionWriter, LoggerPredictionWriter, LogPredictions

from xlm_mlm.predictions_mlm import SharedFileWriter, SharedPredictions

PLACE = ("val", "infill_prediction")
FIELDS = {"inject_target": "target_ids", "fields_to_keep_in_output": ["text", "truth"]}


@pytest.fixture
def harness(tokenizer, tmp_path):
    def to_dict(batch, preds):
        return [
            {"text": f"row {row}", "metric_exact_match": row / 4, "dropped": 1}
            for row in batch["input_ids"][:, 0].tolist()
        ]

    return SimpleNamespace(
        predictions_dir=tmp_path, tokenizer=tokenizer, predictor=SimpleNamespace(to_dict=to_dict)
    )


def batch_of(*rows, numbered=True):
    ids = torch.tensor(rows)
    batch = {"input_ids": ids[:, None], "target_ids": ids[:, None] + 7}
    return {**batch, "sample_ids": ids} if numbered else batch


def written(tmp_path):
    (file,) = tmp_path.glob("val/infill_prediction/*.jsonl")
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_alone_it_writes_what_the_host_does_and_the_numbers(harness, tmp_path):
    batch = batch_of(0, 1, 2)
    LogPredictions(["file"], **FIELDS)(harness, None, batch, {}, *PLACE)
    hosts = written(tmp_path)
    (tmp_path / "val" / "infill_prediction" / "epoch=0_step=0.jsonl").unlink()
    SharedPredictions(["file"], **FIELDS)(harness, None, batch, {}, *PLACE)
    assert [row["truth"] for row in hosts] == ["0", "1", "2"]
    assert written(tmp_path) == [{**row, "sample_id": i} for i, row in enumerate(hosts)]


def test_a_sample_that_is_there_is_left_out_whoever_wrote_it(harness, tmp_path):
    one, other = (SharedPredictions(["file"], **FIELDS) for _ in range(2))
    one(harness, None, batch_of(4, 1), {}, *PLACE)
    other(harness, None, batch_of(0, 4, 3), {}, *PLACE)
    one(harness, None, batch_of(3, 2), {}, *PLACE)
    assert [row["sample_id"] for row in written(tmp_path)] == [4, 1, 0, 3, 2]
    # The truth goes with its row.
    assert all(row["text"] == f"row {row['truth']}" for row in written(tmp_path))
    assert [row["sample_id"] for row in one.read(0, 0, *PLACE, harness)] == [0, 1, 2, 3, 4]
    # Another step is another file.
    later = SimpleNamespace(global_step=7, current_epoch=0)
    one(harness, later, batch_of(4), {}, *PLACE)
    assert [row["sample_id"] for row in one.read(7, 0, *PLACE, harness)] == [4]


def test_rows_without_numbers_are_all_written_in_order(harness, tmp_path):
    log = SharedPredictions(["file"], **FIELDS)
    for _ in range(2):
        log(harness, None, batch_of(2, 1, numbered=False), {}, *PLACE)
    rows = log.read(0, 0, *PLACE, harness)
    assert [row["text"] for row in rows] == ["row 2", "row 1"] * 2
    assert "sample_id" not in rows[0]


def test_every_process_writes(harness, tmp_path, monkeypatch):
    monkeypatch.setattr("xlm.log_predictions.rank_zero_only.rank", 1)
    LogPredictions(["file"], **FIELDS)(harness, None, batch_of(0), {}, *PLACE)
    assert not list(tmp_path.rglob("*.jsonl"))
    SharedPredictions(["file"], **FIELDS)(harness, None, batch_of(1), {}, *PLACE)
    assert [row["sample_id"] for row in written(tmp_path)] == [1]


def test_where_files_cannot_be_locked_one_process_still_writes(harness, tmp_path, monkeypatch):
    load = builtins.__import__

    def on_windows(name, *args, **kwargs):
        if name == "fcntl":
            raise ImportError(name)
        return load(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", on_windows)
    SharedPredictions(["file"], **FIELDS)(harness, None, batch_of(1), {}, *PLACE)
    assert [row["sample_id"] for row in written(tmp_path)] == [1]


@pytest.mark.parametrize("line", ['{"text": "to', "7\n"])
def test_a_damaged_file_is_named(harness, tmp_path, line):
    first, log = (SharedPredictions(["file"], **FIELDS) for _ in range(2))
    first(harness, None, batch_of(0), {}, *PLACE)
    path = tmp_path / "val" / "infill_prediction" / "epoch=0_step=0.jsonl"
    path.write_text(line)
    with pytest.raises(ValueError, match=r"step=0\.jsonl has a line that is no row"):
        log(harness, None, batch_of(1), {}, *PLACE)
    assert path.read_text() == line


def test_rows_of_an_earlier_run_are_put_aside_and_kept(harness, tmp_path, caplog):
    folder = tmp_path / "val" / "infill_prediction"
    for run in range(3):
        writers = [SharedPredictions(["file"], **FIELDS) for _ in range(2)]
        writers[0](harness, None, batch_of(run), {}, *PLACE)
        writers[1](harness, None, batch_of(run, 9), {}, *PLACE)
    assert [row["sample_id"] for row in written(tmp_path)] == [2, 9]
    aside = [folder / f"epoch=0_step=0.jsonl.old-{n}" for n in (1, 2)]
    kept = [[json.loads(line)["sample_id"] for line in path.open()] for path in aside]
    assert kept == [[0, 9], [1, 9]]
    assert "holds rows of an earlier run; they are now in epoch=0_step=0.jsonl.old-1" in caplog.text
    # The host's own rows, with no note of when they were begun, too.
    (folder / ".epoch=0_step=0.jsonl.lock").unlink()
    SharedPredictions(["file"], **FIELDS)(harness, None, batch_of(5), {}, *PLACE)
    assert [row["sample_id"] for row in written(tmp_path)] == [5]


def test_other_writers_are_the_hosts():
    config = {"_target_": "xlm.log_predictions.FilePredictionWriter", "file_path_": "none"}
    log = SharedPredictions(["file", "logger", config], None, None, ["text"])
    kinds = [SharedFileWriter, LoggerPredictionWriter, FilePredictionWriter]
    assert [type(writer) for writer in log.writers] == kinds
    assert SharedFileWriter(file_path_="none").write([], None, 0, 0, *PLACE, None, None) is None


def test_it_takes_the_experiments_options(tmp_path):
    from composing import composed

    chosen = composed(tmp_path, "quickstart_mlm", "+log_predictions=shared_mlm").log_predictions
    log = instantiate(chosen)
    assert type(log) is SharedPredictions
    assert log.inject_target == "target_ids"
    assert [type(writer) for writer in log.writers] == [SharedFileWriter]
    assert log.writers[0].fields_to_keep_in_output == ["text", "truth"]
