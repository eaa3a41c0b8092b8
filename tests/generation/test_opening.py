"""Checkpoints and folders are opened alike, with the weights that are asked for."""

import pytest
import torch
from tiny_checkpoints import CONFIG, write_checkpoint

from xlm_mlm.checkpoints import read_checkpoint
from xlm_mlm.generation.opening import open_saved
from xlm_mlm.rebuild import rebuild, save


@pytest.fixture
def folder(tmp_path):
    raw, ema = rebuild(CONFIG).model, rebuild(CONFIG).model
    write_checkpoint(tmp_path / "x.ckpt", raw, ema, hyper_parameters=CONFIG)
    saved = rebuild(CONFIG)
    read_checkpoint(tmp_path / "x.ckpt").apply(saved.model, "raw")
    save(saved, tmp_path / "saved")
    return tmp_path


def test_weights_are_those_that_were_asked_for(folder):
    opened = {which: open_saved(folder / "x.ckpt", which) for which in ("raw", "ema", "auto")}
    assert [one.weights for one in opened.values()] == ["raw", "ema", "ema"]
    kept = {which: one.saved.model.state_dict() for which, one in opened.items()}
    first = next(iter(kept["raw"]))
    assert torch.equal(kept["auto"][first], kept["ema"][first])
    assert not torch.equal(kept["raw"][first], kept["ema"][first])
    assert opened["raw"].checkpoint.path == folder / "x.ckpt"
    from_folder = open_saved(folder / "saved")
    assert (from_folder.weights, from_folder.checkpoint) == ("as saved", None)
    assert torch.equal(from_folder.saved.model.state_dict()[first], kept["raw"][first])


def test_what_can_t_be_opened_is_said(folder):
    with pytest.raises(ValueError, match="holds one kind only"):
        open_saved(folder / "saved", "ema")
    with pytest.raises(FileNotFoundError, match="nothing.ckpt"):
        open_saved(folder / "nothing.ckpt")
