"""The end of a run is saved, whatever its length."""

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer

from xlm_mlm.callbacks.final import FinalThinningCheckpoint


class Counting(LightningModule):
    """One weight that grows by one a step."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def training_step(self, batch, batch_idx):
        return -self.weight.sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1.0)


def train(folder, steps, resume=None):
    saving = FinalThinningCheckpoint(
        dirpath=str(folder), save_top_k=-1, save_last=True, every_n_train_steps=2, keep_multiple=2
    )
    trainer = Trainer(
        accelerator="cpu",
        max_steps=steps,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        callbacks=[saving],
    )
    loader = torch.utils.data.DataLoader(torch.zeros(4, 1))
    trainer.fit(Counting(), loader, ckpt_path=resume)


def last(folder):
    return torch.load(folder / "last.ckpt", weights_only=False)


@pytest.mark.parametrize("steps", [1, 2, 3, 7])
def test_the_last_step_is_in_last_ckpt(tmp_path, steps):
    train(tmp_path, steps)
    assert last(tmp_path)["global_step"] == steps
    assert last(tmp_path)["state_dict"]["weight"].item() == steps
    saved = [int(f.stem.split("-")[1]) for f in tmp_path.glob("*-*.ckpt")]
    assert max(saved) == steps
    assert len(set(saved)) == len(saved)


def test_a_longer_run_goes_on_from_there_under_the_same_name(tmp_path):
    train(tmp_path, 3)
    train(tmp_path, 5, resume=str(tmp_path / "last.ckpt"))
    assert last(tmp_path)["global_step"] == 5
    assert last(tmp_path)["state_dict"]["weight"].item() == 5
    assert not list(tmp_path.glob("last-v*"))
