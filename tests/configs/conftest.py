"""Composes experiments as `xlm` does, and runs them on made-up rows."""

from functools import partial

import pytest
from composing import composed
from made_up_rows import raw_rows, write_sudoku_csv
from omegaconf import DictConfig
from xlm.utils.omegaconf_resolvers import dummy_resolvers

# The smallest network of the same kind, one optimizer step, one batch a loader, no processes.
SHRUNK = (
    "trainer_strategy=cpu",
    "++model.d_model=32",
    "++model.num_layers=2",
    "++model.nhead=2",
    "++model.rotary_emb_dim=16",
    "per_device_batch_size=2",
    "global_batch_size=2",
    "num_dataloader_workers=0",
    "num_dataset_workers=1",
    "dataloader_prefetch_factor=null",
    "dataloader_pin_memory=false",
    "++trainer.max_steps=1",
    "++trainer.val_check_interval=1",
    "++trainer.check_val_every_n_epoch=null",
    "++trainer.num_sanity_val_steps=0",
    "++trainer.limit_val_batches=1",
    "++trainer.limit_test_batches=1",
    "++trainer.log_every_n_steps=1",
    "++predictor.max_steps=3",
)


@pytest.fixture
def compose_experiment(tmp_path):
    """A function from an experiment's name and further overrides to its config."""
    return partial(composed, tmp_path)


@pytest.fixture
def train_experiment(compose_experiment, tmp_path, monkeypatch):
    """A function that runs the host's `train` on an experiment and returns its config.

    The network is shrunk, the rows are made up, and the rest is as configured: preprocessing,
    collators, loss, a step, validation, test, metrics, logged predictions.
    """
    from xlm.commands.lightning_train import train
    from xlm.datamodule import DatasetManager

    monkeypatch.setattr(
        DatasetManager, "_download", lambda self, num_proc=None: raw_rows(self.full_name, 45)
    )
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "data"))
    write_sudoku_csv(tmp_path / "data" / "sudoku", 6)

    def trained(name: str, *overrides: str) -> DictConfig:
        cfg = compose_experiment(name, *SHRUNK, *overrides)
        for managers in cfg.datamodule.dataset_managers.values():
            for manager in managers.values():
                if manager.get("iterable_dataset_shards"):
                    manager.iterable_dataset_shards = 1
        cfg.loggers = {
            "csv": {
                "_target_": "lightning.pytorch.loggers.CSVLogger",
                "save_dir": str(tmp_path),
                "name": "csv",
                "version": "",
            }
        }
        with dummy_resolvers():
            train(cfg)
        return cfg

    return trained
