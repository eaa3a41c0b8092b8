"""The end of a run is saved, whatever its length."""

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer

from xlm_mlm.callbacks.final import FinalCheckpoint


class Counting(LightningModule):
    """One weight that grows by one a step."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def training_step(self, batch, batch_idx):
        return -self.weight.sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1.0)


def train(folder, steps):
    module = Counting()
    trainer = Trainer(
        accelerator="cpu",
        max_steps=steps,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        callbacks=[FinalCheckpoint(folder)],
    )
    trainer.fit(module, torch.utils.data.DataLoader(torch.zeros(4, 1)))


@pytest.mark.parametrize("steps", [1, 3, 6])
def test_the_last_step_is_in_last_ckpt(tmp_path, steps):
    train(tmp_path, steps)
    assert [f.name for f in tmp_path.iterdir()] == ["last.ckpt"]
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert saved["global_step"] == steps
    assert saved["state_dict"]["weight"].item() == steps


def test_an_older_one_is_replaced(tmp_path):
    (tmp_path / "last.ckpt").write_bytes(b"old")
    train(tmp_path, 2)
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 2
