"""A full disk: a clear error, no half file, and what was complete stays and is gone on with.

Most tests limit the size of a file, which any user may do for a process: a write past it fails as
on a full disk. Those of a small disk need the right to mount one.
"""

import copy
import json
import os
import shutil
import subprocess
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import pytest
import torch
from composing import composed
from made_up_histories import MASK, write
from omegaconf import OmegaConf
from tiny_checkpoints import changed, network, write_checkpoint
from xlm.utils.omegaconf_resolvers import dummy_resolvers
from xlm_process import TINY_MODEL, read_rows

from xlm_mlm import MLMPredictor
from xlm_mlm.commands import cli
from xlm_mlm.commands.generate import generate
from xlm_mlm.commands.score import score
from xlm_mlm.data.text import TextDatasetManager
from xlm_mlm.data.tokenizers import ByteTokenizer
from xlm_mlm.generation.files import PartialFile
from xlm_mlm.history.reading import read_traces
from xlm_mlm.history_mlm import HistoryTopKPlugin
from xlm_mlm.rebuild import rebuild

resource = pytest.importorskip("resource")


@contextmanager
def largest_file(size):
    """No file may grow past so many bytes; Python ignores the signal, so that the write fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def small_disk(tmp_path):
    """A disk of its own, and a function that makes it larger."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mounted(option):
        command = ["mount", "-t", "tmpfs", "-o", option, "tmpfs", str(folder)]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    if os.name != "posix" or not shutil.which("mount") or not mounted("size=1m"):
        pytest.skip("needs the right to mount a disk")
    yield SimpleNamespace(path=folder, grow=lambda: mounted("remount,size=8m"))
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a checkpoint."""
    folder = tmp_path_factory.mktemp("full")
    config = changed("model", "max_length", value=22)
    config["model"]["dim_feedforward"] = 256
    write_checkpoint(folder / "a.ckpt", network(1), hyper_parameters=config)
    return folder


@pytest.fixture(scope="module")
def config(made):
    """What all runs share, composed once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATA_DIR", str(made / "data"))
        ckpt = f"+generation.ckpt_path={made / 'a.ckpt'}"
        more = ("+generation.limit=40", "predictor.max_steps=4")
        yield composed(made, "quickstart_mlm", *TINY_MODEL, ckpt, *more)


@pytest.fixture
def job(config, capsys):
    """A function that generates 40 rows, and returns the exit code and the errors."""

    def ran(folder, size=None, **options):
        cfg = copy.deepcopy(config)
        for key, value in {"output_dir": str(folder), **options}.items():
            OmegaConf.update(cfg, f"generation.{key}", value, force_add=True)
        capsys.readouterr()
        code = 0
        with dummy_resolvers(), largest_file(size) if size else nullcontext():
            try:
                generate(cfg)
            except SystemExit as end:
                code = end.code
        said = [line for line in capsys.readouterr().err.splitlines() if "error" in line.lower()]
        return code, said

    return ran


@pytest.fixture
def whole(job, made):
    """A run that nothing stopped."""
    if not (made / "whole").exists():
        assert job(made / "whole") == (0, [])
    return made / "whole"


def without_time(path):
    rows = read_rows(path / "predictions.jsonl")
    return [{k: v for k, v in row.items() if k not in ("time_taken", "fid")} for row in rows]


def hidden(folder):
    return sorted(path.name for path in folder.rglob(".*"))


def test_predictions_stop_and_go_on(job, whole, tmp_path):
    # Enough for two batches of 8 rows and part of a third.
    rows = (whole / "predictions.jsonl").read_bytes().splitlines(keepends=True)
    size = sum(map(len, rows[:20]))
    code, said = job(tmp_path / "out", size)
    part = tmp_path / "out/.predictions.jsonl.0of1.partial"
    assert code == 1
    assert len(said) == 1
    assert f"{part}: File too large; whole batches that were predicted are kept" in said[0]
    assert "the same command goes on" in said[0]
    assert hidden(tmp_path / "out") == [part.name]
    lines = part.read_bytes().splitlines()
    assert [json.loads(line)["sample"] for line in lines[1:]] == list(range(16))
    assert job(tmp_path / "out") == (0, [])
    assert without_time(tmp_path / "out") == without_time(whole)
    assert hidden(tmp_path / "out") == []


def test_the_end_of_a_run_can_be_done_again(job, whole, tmp_path):
    shutil.copytree(whole, tmp_path / "out")
    # The new rows fit, all together don't.
    size = (whole / "predictions.jsonl").stat().st_size * 3 // 2
    code, said = job(tmp_path / "out", size, if_exists="append")
    assert code == 1
    assert "predictions.jsonl.merged: File too large; whole batches" in said[0]
    assert without_time(tmp_path / "out") == without_time(whole)
    assert job(tmp_path / "out", if_exists="append") == (0, [])
    samples = [row["sample"] for row in read_rows(tmp_path / "out/predictions.jsonl")]
    assert samples == list(range(80))
    assert hidden(tmp_path / "out") == []


def test_a_history_that_can_not_be_written_stops_the_prediction(job, tmp_path):
    code, said = job(tmp_path / "out", 500, history=True)
    assert code == 1
    assert "00000.p.safetensors: File too large; whole batches" in said[0]
    assert not (tmp_path / "out/predictions.jsonl").exists()
    assert {name.split(".")[1] for name in hidden(tmp_path / "out")} == {"predictions"}
    assert job(tmp_path / "out", history=True) == (0, [])
    fids = [row["fid"] for row in read_rows(tmp_path / "out/predictions.jsonl")]
    assert [trace.fid for trace in read_traces(tmp_path / "out/history")] == fids


def test_a_small_disk_is_gone_on_with_when_it_has_grown(job, whole, small_disk):
    code, said = job(small_disk.path / "out", history=True)
    assert code == 1
    assert "No space left on device; whole batches that were predicted are kept" in said[0]
    history = small_disk.path / "out/history"
    finished = [trace for trace in read_traces(history) if trace.finished]
    assert finished
    assert hidden(small_disk.path) == [".predictions.jsonl.0of1.partial"]
    assert small_disk.grow()
    assert job(small_disk.path / "out", history=True) == (0, [])
    assert without_time(small_disk.path / "out") == without_time(whole)
    assert len(read_traces(history)) == 40


def test_rows_that_do_not_fit_leave_no_part_of_them(tmp_path):
    part = PartialFile(tmp_path, 0, 1, "r", 0, {"a": 2})
    rows = [{"sample": i, "dataloader": "a", "x": "y" * 100} for i in range(4)]
    part.write(rows[:2])
    before = part.path.read_bytes()
    with (
        largest_file(len(before) + 150),
        pytest.raises(OSError, match="File too large.*0of1.partial"),
    ):
        part.write(rows[2:])
    assert part.path.read_bytes() == before
    # Nothing waits to be written once more.
    part.write(rows[2:])
    part.close()
    assert [row["sample"] for row in read_rows(part.path)[1:]] == [0, 1, 2, 3]


def test_a_record_that_was_not_begun_is_not_there(tmp_path, tokenizer):
    write(tmp_path, tokenizer, [[4, MASK, 7]], [[[1]]])
    history = HistoryTopKPlugin(tmp_path, tokenizer=tokenizer)
    with largest_file(50), pytest.raises(OSError, match=r"File too large.*before\.safetensors"):
        history.begin({"x": torch.tensor([[4, MASK, 7]])})
    assert len(read_traces(tmp_path)) == 1
    assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == 1
    assert hidden(tmp_path) == []


def test_the_passes_before_stay_readable(tmp_path, tokenizer):
    model = SimpleNamespace(calls=0)

    def network(x, **given):
        model.calls += 1
        if model.calls == 3:
            soft = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (50, soft[1]))
        return torch.zeros(*x.shape, len(tokenizer)).log_softmax(-1)

    history = HistoryTopKPlugin(tmp_path, 2)
    predictor = MLMPredictor(5, tokenizer=tokenizer, model=network, history=history)
    with (
        largest_file(resource.getrlimit(resource.RLIMIT_FSIZE)[0]),
        pytest.raises(OSError, match="File too large.*00002.p.safetensors"),
    ):
        predictor.predict({"input_ids": torch.full((1, 5), MASK)})
    assert model.calls == 3
    (trace,) = read_traces(tmp_path)
    assert (trace.steps, trace.finished) == (2, False)
    assert int(trace.masks_left[-1]) == 3
    # And the predictor serves the next batch.
    model.calls = -100
    predictor.predict({"input_ids": torch.full((1, 5), MASK)})
    assert [each.finished for each in read_traces(tmp_path)] == [False, True]


@pytest.mark.parametrize("kind", ["output", "png", "gif"])
def test_a_report_stays_as_it_was(tmp_path, tokenizer, capsys, monkeypatch, kind):
    if kind != "output":
        pytest.importorskip("matplotlib" if kind == "png" else "PIL")
    write(tmp_path / "history", tokenizer, [[4, MASK, MASK, 7]], [[[1], [2]]])
    name = {"output": "page.html", "png": "a.png", "gif": "a.gif"}[kind]
    page = ["--output", str(tmp_path / "page.html")]
    command = ["report", str(tmp_path / "history"), *page]
    command += [] if kind == "output" else [f"--{kind}", str(tmp_path / name)]
    assert cli.main(command) == 0
    before = (tmp_path / name).read_bytes()
    capsys.readouterr()
    if kind != "output":  # the page is written first, and is to fit
        monkeypatch.setattr("xlm_mlm.report.page.page", lambda *given: "")
    with largest_file(len(before) - 1):
        assert cli.main(command) == 1
    said = capsys.readouterr().err
    assert "File too large; it is as it was before, and so is the history" in said
    assert "Traceback" not in said
    assert (tmp_path / name).read_bytes() == before
    assert hidden(tmp_path) == []


# The tokenizer's options, its vocabulary, the weights: libraries write them, each in its own way.
@pytest.mark.parametrize("size", [100, 5_000, 30_000])
def test_a_model_that_does_not_fit_is_not_saved(tmp_path, capsys, size):
    ours = {"_target_": "xlm_mlm.data.tokenizers.ByteTokenizer"}
    config = changed("global_components", "tokenizer", value=ours)
    write_checkpoint(tmp_path / "a.ckpt", rebuild(config).model, hyper_parameters=config)
    command = ["save", str(tmp_path / "model"), "--checkpoint", str(tmp_path / "a.ckpt")]
    with largest_file(size):
        assert cli.main(command) == 1
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"error: {tmp_path / 'model'}: ")
    assert "File too large" in said
    assert "nothing of it is kept: make room and try again" in said
    assert not (tmp_path / "model").exists()
    assert cli.main(command) == 0


def test_scores_are_not_half_there(made, tmp_path, capsys):
    (tmp_path / "texts.txt").write_text("1 2 3\n" * 30)
    given = {"ckpt_path": str(made / "a.ckpt"), "text_file": str(tmp_path / "texts.txt")}
    given |= {"num_mc_samples": 1, "output_dir": str(tmp_path / "out")}
    cfg = OmegaConf.create({"score": given, "paths": {"output_dir": str(tmp_path)}})
    with largest_file(2000), pytest.raises(SystemExit) as end:
        score(cfg)
    assert end.value.code == 1
    said = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert len(said) == 1
    assert f"{tmp_path / 'out/scores.jsonl'}: File too large; there are no new scores" in said[0]
    assert list((tmp_path / "out").iterdir()) == []
    score(cfg)
    assert len(read_rows(tmp_path / "out/scores.jsonl")) == 30


@pytest.mark.parametrize("size", [300, 3000, 6000])
def test_rows_of_text_are_cached_whole_or_not(tmp_path, size):
    (tmp_path / "text.txt").write_text("".join(f"a line, number {n}\n" for n in range(100)))
    data = str(tmp_path / "text.txt")
    options = {"block_size": 16, "document": "line", "validation_fraction": 0.1}
    cache = tmp_path / "cache"

    def rows():
        manager = TextDatasetManager(None, "train", {"batch_size": 1}, data, **options)
        return manager.prepare_data(str(cache), ByteTokenizer(), load=True)

    says = "File too large; none of these rows are kept: make room"
    with largest_file(size), pytest.raises(OSError, match=says) as error:
        rows()
    assert str(cache) in error.value.filename
    assert [path.name for path in cache.rglob("*")] == ["xlm_mlm", "text"]
    assert len(rows()) > 90


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux only")
@pytest.mark.parametrize("how", [[], ["--json"]])
def test_what_can_not_be_printed_is_said(made, monkeypatch, capsys, how):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr("sys.stdout", full)
        command = ["fill", "1 [MASK]", "--checkpoint", str(made / "a.ckpt"), *how]
        assert cli.main(command) == 1
        monkeypatch.undo()
        with pytest.raises(OSError, match="No space"):  # as it keeps what it could not write
            full.close()
    assert "error: the output: No space left on device" in capsys.readouterr().err
