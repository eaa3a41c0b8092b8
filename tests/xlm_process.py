"""Run the real `xlm` command in a folder, and read what it left there."""

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

XLM = Path(sys.executable).parent / "xlm"

# Nothing of these may be needed; DATA_DIR and LOG_DIR would send files elsewhere.
_DROPPED = re.compile(r"XLM_|HYDRA_|DATA_DIR$|LOG_DIR$|PROJECT_ROOT$|TQDM_|SLURM_|HF_|PYTHONPATH$")
# A proxy that refuses: whoever tries the network fails at once.
_NOWHERE = "http://127.0.0.1:9"

# Overrides: small batches and the smallest network, for runs of a few steps.
TINY_MODEL = (
    "per_device_batch_size=8",
    "global_batch_size=8",
    "model.d_model=32",
    "model.nhead=2",
    "model.rotary_emb_dim=16",
    "model.num_layers=1",
)


@dataclass
class Run:
    """A finished command."""

    code: int
    output: str


def clean_environment(**extra: str) -> dict[str, str]:
    """This process's environment without helpful variables or a network, and `extra`."""
    kept = {name: value for name, value in os.environ.items() if not _DROPPED.match(name)}
    return kept | {"HTTP_PROXY": _NOWHERE, "HTTPS_PROXY": _NOWHERE, "COLUMNS": "160"} | extra


def xlm(folder: Path, *overrides: str, timeout: float = 600, threads: int | None = None) -> Run:
    """Run `xlm` with these overrides in `folder`, without a network or helpful variables.

    Args:
        threads: CPU threads of an operation; tiny models are slower with more than one.
    """
    extra = {"OMP_NUM_THREADS": str(threads)} if threads else {}
    done = subprocess.run(
        [str(XLM), *overrides],
        cwd=folder,
        env=clean_environment(**extra),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        timeout=timeout,
        check=False,
    )
    return Run(done.returncode, done.stdout)


def metric(output: str, name: str) -> float:
    """A metric from the table that Lightning prints at the end."""
    found = re.findall(rf"{re.escape(name)}\s[^\d\n-]*(-?[\d.]+(?:e-?\d+)?)", output)
    assert found, f"{name} is not in:\n{output[-3000:]}"
    return float(found[-1])


def prediction_files(folder: Path, job_name: str, split: str, loader: str) -> list[Path]:
    """The prediction files of all runs of a job, oldest first."""
    runs = folder / "logs" / job_name / "runs"
    return sorted(runs.glob(f"*/predictions/{split}/{loader}/*.jsonl"), key=os.path.getmtime)


def read_rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
