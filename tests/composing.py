"""Composes experiments in this process as `xlm` does."""

from pathlib import Path

import xlm

# Registers the host's resolvers and search path, and wants to be the first to do so.
import xlm.commands.lightning_main
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

HOST = Path(xlm.__file__).parent / "configs" / "lightning_train"


def composed(folder: Path, experiment: str, *overrides: str) -> DictConfig:
    """The config of an experiment whose files go to `folder`."""
    fixed = [
        f"experiment={experiment}",
        "job_name=test",
        "job_type=train",
        f"paths.log_dir={folder}/logs",
        # Hydra itself fills these two in, in a real run.
        f"paths.run_dir={folder}/run",
        f"paths.work_dir={folder}",
    ]
    with initialize_config_dir(str(HOST), version_base="1.3"):
        return compose("config", [*fixed, *overrides])
