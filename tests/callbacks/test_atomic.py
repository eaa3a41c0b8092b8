"""Whatever happens while a checkpoint is written, the one before it stays whole."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning.fabric.plugins import TorchCheckpointIO

from xlm_mlm.callbacks.atomic import AtomicCheckpointIO, save_atomically


def test_a_write_that_fails_leaves_the_one_before(tmp_path, monkeypatch):
    path = tmp_path / "folder" / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"step": 1}, str(path))

    def half(self, checkpoint, part, options=None):
        Path(part).write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(TorchCheckpointIO, "save_checkpoint", half)
    with pytest.raises(OSError, match="no space left"):
        AtomicCheckpointIO().save_checkpoint({"step": 2}, path)
    assert torch.load(path) == {"step": 1}
    assert [file.name for file in path.parent.iterdir()] == ["last.ckpt"]


def test_it_takes_the_place_of_an_older_one(tmp_path):
    path = tmp_path / "last.ckpt"
    for step in (1, 2):
        AtomicCheckpointIO().save_checkpoint({"step": step}, path)
        assert torch.load(path) == {"step": step}
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


def test_other_systems_are_left_to_lightning():
    AtomicCheckpointIO().save_checkpoint({"step": 1}, "memory://folder/last.ckpt")
    assert AtomicCheckpointIO().load_checkpoint("memory://folder/last.ckpt") == {"step": 1}


def test_only_the_default_is_replaced():
    for given, kind in (
        (TorchCheckpointIO(), AtomicCheckpointIO),
        (other := object(), type(other)),
    ):
        trainer = SimpleNamespace(strategy=SimpleNamespace(checkpoint_io=given))
        save_atomically(trainer)
        assert type(trainer.strategy.checkpoint_io) is kind
