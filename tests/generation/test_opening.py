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


def test_a_folder_of_weights_that_are_no_numbers_is_refused_when_it_is_opened(folder):
    saved = rebuild(CONFIG)
    saved.model.embed_tokens.weight.data[3] = torch.nan
    save(saved, folder / "diverged")
    with pytest.raises(
        ValueError, match=r"diverged/model\.safetensors: embed_tokens\.weight holds"
    ):
        open_saved(folder / "diverged")


@pytest.mark.parametrize("trust", ["false", 1, None])
def test_trust_is_given_by_true_alone(folder, trust):
    for name in ("x.ckpt", "saved"):
        with pytest.raises(ValueError, match="trust is .*; it must be true or false"):
            open_saved(folder / name, trust=trust)
