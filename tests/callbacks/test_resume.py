"""Resuming at any step, and after anything that ended a run, goes on as if nothing had happened."""

import re
import signal
import warnings
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback
from small_runs import BATCHES, ROWS, Data, goes_on_as, train

from xlm_mlm.callbacks.resume import KEY, ExactResume
from xlm_mlm.callbacks.signals import Stopped


class KeepEach(Callback):
    """A copy of each step's checkpoint, which thinning would delete."""

    def __init__(self, folder):
        self.folder = folder

    def on_train_batch_end(self, trainer, *args):
        path = self.folder / f"{trainer.global_step}.ckpt"
        if trainer.global_step and not path.exists():
            trainer.save_checkpoint(path)


def copies(folder):
    return sorted(folder.glob("*.ckpt"), key=lambda path: int(path.stem))


@pytest.mark.parametrize(
    ("steps", "options"),
    [
        (11, {}),
        (6, {"generator": 5}),
        (5, {"accumulate": 2, "validate_every": 3}),
        (4, {"accumulate": 3, "validate_every": 1}),
    ],
    ids=["plain", "own generator", "summed gradients", "validated between them"],
)
def test_at_every_step(tmp_path, steps, options):
    whole = train(tmp_path / "whole", steps, more=(KeepEach(tmp_path / "each"),), **options)
    assert whole.exception is None
    saved = copies(tmp_path / "each")
    assert len(saved) == steps
    for path in saved[:-1]:
        rest = train(tmp_path / path.stem, steps, resume=path, **options)
        assert goes_on_as(rest, whole), path.stem
        assert len({loss for _, _, loss in whole.losses}) == len(whole.losses)


def test_with_workers_in_the_middle_of_an_epoch_and_at_its_end(tmp_path):
    steps = BATCHES + 3
    each = tmp_path / "each"
    whole = train(tmp_path / "whole", steps, workers=2, more=(KeepEach(each),))
    for step in (3, BATCHES, BATCHES + 1):
        rest = train(tmp_path / str(step), steps, workers=2, resume=each / f"{step}.ckpt")
        assert goes_on_as(rest, whole), step


def test_workers_with_a_generator_of_their_own(tmp_path):
    each, options = tmp_path / "each", {"workers": 2, "generator": 5}
    whole = train(tmp_path / "whole", 4, more=(KeepEach(each),), **options)
    assert goes_on_as(train(tmp_path / "b", 4, resume=each / "3.ckpt", **options), whole)


def test_without_the_callback_it_goes_on_otherwise(tmp_path):
    whole = train(tmp_path, 6, exact=False, every=4)
    rest = train(tmp_path / "b", 6, exact=False, resume=next(tmp_path.glob("*-4.ckpt")))
    assert whole.exception is rest.exception is None
    assert not goes_on_as(rest, whole)


ENDS = {
    "in a step": ({("train", 5): RuntimeError("x")}, {}),
    "in the first step of an epoch": ({("train", BATCHES): RuntimeError("x")}, {}),
    "between summed gradients": ({("train", 7): RuntimeError("x")}, {"accumulate": 3}),
    "in validation": ({("val", 3): RuntimeError("x")}, {}),
    "validation between summed gradients": (
        {("val", 3): RuntimeError("x")},
        {"accumulate": 2, "validate_every": 3},
    ),
    "SIGTERM in a step": ({("train", 5): signal.SIGTERM}, {}),
    "Ctrl-C in a step": ({("train", 5): signal.SIGINT}, {}),
    "Ctrl-C between summed gradients": ({("train", 7): signal.SIGINT}, {"accumulate": 3}),
    "SIGTERM in the last step of an epoch": ({("train", BATCHES - 1): signal.SIGTERM}, {}),
    "SIGTERM in validation": ({("val", 3): signal.SIGTERM}, {}),
    "SIGTERM in an update": ({("update", 4): signal.SIGTERM}, {}),
}


@pytest.mark.parametrize("name", ENDS)
def test_after_what_ended_it(tmp_path, name):
    """No other checkpoint has been written: it is the one of the end that is resumed from."""
    at, options = ENDS[name]
    whole = train(tmp_path / "whole", 8, every=100, **options)
    ended = train(tmp_path, 8, at=at, every=100, **options)
    assert ended.exception is not None
    assert ended.losses == whole.losses[: len(ended.losses)]
    path = tmp_path / "on_exception.ckpt"
    rest = train(tmp_path, 8, resume=path, every=100, **options)
    assert goes_on_as(rest, whole)
    assert not path.exists()


def test_twice_in_a_row(tmp_path):
    """Resumed after step 3, Lightning saves again after the next batch: a third of a step."""
    options = {"accumulate": 3, "every": 3, "validate_every": 100}
    whole = train(tmp_path / "whole", 6, **options)
    for resume in (None, tmp_path / "last.ckpt"):
        train(tmp_path, 6, at={("train", 9): RuntimeError("x")}, resume=resume, **options)
        (tmp_path / "on_exception.ckpt").unlink()
    assert goes_on_as(train(tmp_path, 6, resume=tmp_path / "last.ckpt", **options), whole)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_after_the_step_and_says_so(tmp_path, capfd, number, code):
    before = signal.getsignal(number)
    ended = train(tmp_path, 8, at={("train", 3): number})
    assert isinstance(ended.exception, Stopped)
    assert ended.exception.code == code
    assert len(ended.losses) == 4
    assert torch.load(tmp_path / "on_exception.ckpt", weights_only=False)["global_step"] == 4
    said = capfd.readouterr()
    assert "stopping after this step; once more stops at once" in said.err
    name = signal.Signals(number).name
    assert re.search(f"{name}: stopped after step 4, saved in .*on_exception.ckpt; the", said.out)
    assert signal.getsignal(number) == before


def test_a_signal_in_the_last_step_leaves_nothing_to_do(tmp_path):
    whole = train(tmp_path / "whole", 4)
    ended = train(tmp_path, 4, at={("train", 3): signal.SIGTERM})
    assert isinstance(ended.exception, Stopped)
    rest = train(tmp_path, 4, resume=tmp_path / "on_exception.ckpt")
    assert rest.losses == []
    assert all(torch.equal(a, b) for a, b in zip(rest.weights, whole.weights, strict=True))


def test_a_stop_before_anything_was_saved_is_told(tmp_path, capfd):
    train(tmp_path, 4, at={("train", 0): signal.SIGTERM}, every=100)
    assert "before there was anything to save" in capfd.readouterr().out
    assert not list(tmp_path.glob("*.ckpt"))


def test_signals_can_be_left_alone(tmp_path):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    seen = []

    class Look(Callback):
        def on_train_batch_start(self, *args):
            seen.append(signal.getsignal(signal.SIGINT))

    train(tmp_path, 1, exact=False, more=(ExactResume(signals=False), Look()))
    assert seen == [before[0]]


def test_the_state_is_plain(tmp_path):
    train(tmp_path, 3, workers=2)
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=False)
    part = {KEY: checkpoint[KEY], "loops": checkpoint["loops"]}
    torch.save(part, tmp_path / "part")
    assert torch.load(tmp_path / "part", weights_only=True)[KEY] == checkpoint[KEY]


@pytest.mark.parametrize("workers", [0, 2])
def test_it_loads_without_the_callback(tmp_path, workers):
    train(tmp_path, 3, workers=workers)
    rest = train(tmp_path / "b", 5, resume=tmp_path / "last.ckpt", exact=False, workers=workers)
    assert rest.exception is None
    assert len(rest.losses) == 2


@pytest.mark.parametrize("workers", [0, 2])
def test_a_checkpoint_without_the_state_loads_with_one_warning(tmp_path, workers):
    train(tmp_path, 3, exact=False, workers=workers)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        rest = train(tmp_path / "b", 5, resume=tmp_path / "last.ckpt", workers=workers)
    assert rest.exception is None
    assert len(rest.losses) == 2
    told = [str(w.message) for w in seen if "random state" in str(w.message)]
    assert len(told) == 1
    assert "dropout and masks will differ" in told[0]


@pytest.mark.parametrize(("saved", "now"), [(0, 2), (2, 0), (2, 1)])
def test_another_number_of_workers_is_refused(tmp_path, saved, now):
    train(tmp_path, 3, workers=saved)
    rest = train(tmp_path / "b", 5, resume=tmp_path / "last.ckpt", workers=now)
    assert isinstance(rest.exception, ValueError)
    assert f"written with {saved} dataloader workers and this run has {now}" in str(rest.exception)


def test_rows_and_options_of_the_caller_stay_as_they_were():
    data = Data(workers=2)
    manager = data.dataset_managers["train"]["lm"]
    options, copy = manager.dataloader_kwargs, dict(manager.dataloader_kwargs)

    class FakeTrainer:
        world_size, datamodule = 1, data
        strategy = type("Strategy", (), {"checkpoint_io": None})()

    for _ in range(2):
        ExactResume().setup(FakeTrainer(), None, "fit")
    assert options == copy
    assert manager.dataset.rows is ROWS
    assert data.dataset_managers["val"]["lm"].dataset is ROWS


def test_what_the_page_names_of_the_host_is_there():
    """Where these go, its explanations go with them."""
    from lightning.pytorch.loops.fetchers import _PrefetchDataFetcher
    from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
    from lightning.pytorch.trainer.connectors.checkpoint_connector import _CheckpointConnector
    from lightning.pytorch.utilities.exceptions import SIGTERMException
    from xlm.utils.checkpoint_paths import find_auto_resume_checkpoint

    page = (Path(__file__).parents[2] / "docs" / "resuming.md").read_text(encoding="utf-8")
    named = (
        _PrefetchDataFetcher,
        _TrainingEpochLoop.advance,
        _CheckpointConnector._select_ckpt_path,
        SIGTERMException,
        find_auto_resume_checkpoint,
        ExactResume,
    )
    for thing in named:
        assert f"{thing.__qualname__}`" in page, thing
    assert f"`{KEY}`" in page
    for name in ("default_mlm", "terminal_mlm", "resume_mlm"):
        assert f"`{name}`" in page or f": {name}`" in page
        folder = Path(__file__).parents[2] / "xlm_mlm" / "configs" / "callbacks"
        assert (folder / f"{name}.yaml").exists()
