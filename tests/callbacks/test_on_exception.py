"""The checkpoint of a run that stopped: not torn, not preferred to a newer one, not lost."""

from types import SimpleNamespace

import torch
from small_runs import Watching, goes_on_as, train

from xlm_mlm.callbacks.on_exception import StepOnExceptionCheckpoint


def step_of(path):
    return torch.load(path, weights_only=False)["global_step"]


def test_nothing_is_saved_within_an_optimizer_step(tmp_path, caplog):
    ended = train(tmp_path, 8, at={("update", 4): RuntimeError("x")}, every=2)
    assert isinstance(ended.exception, RuntimeError)
    assert not (tmp_path / "on_exception.ckpt").exists()
    assert "within an optimizer step" in caplog.text
    whole = train(tmp_path / "whole", 8, every=2)
    assert goes_on_as(train(tmp_path, 8, resume=tmp_path / "last.ckpt", every=2), whole)


def test_one_that_was_resumed_from_goes_once_last_is_newer(tmp_path):
    path, seen = tmp_path / "on_exception.ckpt", []
    train(tmp_path, 9, at={("train", 3): RuntimeError("x")}, every=100)
    assert step_of(path) == 3
    train(tmp_path, 7, resume=path, every=5, more=(Watching(path, seen),))
    assert seen == [(3, True), (4, True), (5, False), (6, False), (7, False)]
    assert not (tmp_path / "superseded.ckpt").exists()


def test_one_that_was_not_is_set_aside(tmp_path, caplog):
    path, seen = tmp_path / "on_exception.ckpt", []
    train(tmp_path, 9, at={("train", 5): RuntimeError("x")}, every=2)
    assert step_of(path) == 5
    content = path.read_bytes()
    train(tmp_path, 7, resume=tmp_path / "last.ckpt", every=2, more=(Watching(path, seen),))
    assert seen == [(4, True), (5, True), (6, False), (7, False)]
    assert (tmp_path / "superseded.ckpt").read_bytes() == content
    assert "would be resumed from" in caplog.text


def test_another_rate_of_saving_still_writes_the_last_ckpt_that_is_resumed_from(tmp_path):
    whole = train(tmp_path / "whole", 8)
    train(tmp_path, 4, every=2)
    train(tmp_path, 6, every=3, resume=tmp_path / "last.ckpt")
    assert step_of(tmp_path / "last.ckpt") == 6
    assert not list(tmp_path.glob("last-v*"))
    assert goes_on_as(train(tmp_path, 8, resume=tmp_path / "last.ckpt"), whole)


def test_only_the_end_of_training_deletes_it(tmp_path):
    callback = StepOnExceptionCheckpoint(str(tmp_path))
    removed = []
    strategy = SimpleNamespace(remove_checkpoint=removed.append)
    for stage in ("validate", "test", "predict", "fit"):
        trainer = SimpleNamespace(state=SimpleNamespace(fn=stage), strategy=strategy)
        callback.teardown(trainer, None, stage)
        assert bool(removed) == (stage == "fit")
    assert removed == [str(tmp_path / "on_exception.ckpt")]
