"""A short training run of an experiment through the `xlm` command, in a process of its own."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from omegaconf import DictConfig, OmegaConf

from xlm_mlm.conformance.isolated import in_child
from xlm_mlm.conformance.made_up import MadeUpManager
from xlm_mlm.conformance.rules import preparing
from xlm_mlm.conformance.wiring import MANAGER, TOKENIZER, Loader, Wiring, plain_dict

STEPS = 5
# Starting alone takes the host six or seven seconds; on a busy machine it may take a minute.
TIMEOUT = 300.0

EVALUATOR = "post_hoc_evaluator"

# Variables of the host and its tools that would change what is run or where its files go.
_DROPPED = re.compile(r"XLM_|HYDRA_|DATA_DIR$|LOG_DIR$|PROJECT_ROOT$|TQDM_|SLURM_|HF_|WANDB_")
# A proxy that refuses: whoever tries the network fails at once.
_NOWHERE = "http://127.0.0.1:9"
_COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_TRAINER: dict[str, Any] = {
    "accelerator": "cpu",
    "strategy": "auto",
    "devices": 1,
    "num_nodes": 1,
    "precision": "32-true",
    "accumulate_grad_batches": 1,
    "max_steps": STEPS,
    "max_epochs": "null",
    "limit_train_batches": STEPS,
    "limit_val_batches": 1,
    "limit_test_batches": 1,
    "val_check_interval": STEPS,
    "check_val_every_n_epoch": "null",
    "num_sanity_val_steps": 0,
    "log_every_n_steps": 1,
}


@dataclass(frozen=True)
class Run:
    """What is left of a run.

    Attributes:
        command: as it could be typed.
        code: the exit code; None if it took too long and was ended.
        output: everything it printed, without colours.
        losses: `train/loss` of each step.
        predictions: `split.loader` -> the rows of the first file, as JSON has them.
    """

    command: str
    code: int | None
    output: str
    losses: tuple[float, ...]
    predictions: dict[str, list[Any]]

    def tail(self, lines: int = 25) -> str:
        """The last lines of the output that say something."""
        told = [
            line.rstrip()
            for line in self.output.splitlines()
            if line.strip(" .─━│-=") and not re.search(r"\d+%\||\| 0/", line)
        ]
        return "\n".join(told[-lines:])


_RUNS: WeakKeyDictionary[Wiring, Run] = WeakKeyDictionary()


def train(wiring: Wiring) -> Run:
    """Train for a few steps, validate once and test; once for each experiment, then remembered."""
    if wiring not in _RUNS:
        with tempfile.TemporaryDirectory(prefix="xlm-conformance-") as folder:
            _RUNS[wiring] = _train(wiring, Path(folder))
    return _RUNS[wiring]


def _train(wiring: Wiring, folder: Path) -> Run:
    if wiring.subject.kind == "package":
        _make_first(wiring.subject.config_dirs, folder)
    with preparing(f"working out how to run {wiring}"):
        # Collators and adapters are asked for their rows.
        arguments = in_child(lambda: list(overrides(wiring)))
    code, output = _run([sys.executable, "-m", "xlm", *arguments], folder)
    return Run(
        command=f"xlm {' '.join(arguments)}",
        code=code,
        output=_COLOURS.sub("", output).replace("\r", "\n"),
        losses=tuple(_losses(folder / "run" / "csv" / "metrics.csv")),
        predictions=_predictions(folder / "run" / "predictions"),
    )


def _make_first(config_dirs: Sequence[Path], folder: Path) -> None:
    """Let the host find configs before those of plugins, which may have the same names.

    It looks into the folders of `xlm_models.json` first. They are links, since a folder that it
    finds as an installed package as well would come after the plugins.
    """
    homes = {f"conformance_{number}": path for number, path in enumerate(config_dirs)}
    for name, configs in homes.items():
        (folder / name).mkdir()
        (folder / name / "configs").symlink_to(configs.resolve(), target_is_directory=True)
    (folder / "xlm_models.json").write_text(json.dumps({name: name for name in homes}))


def overrides(wiring: Wiring) -> Iterator[str]:
    """What is written after `xlm`: the experiment made small, without a network or a GPU."""
    yield "job_type=train"
    yield "job_name=conformance"
    yield f"experiment={wiring.experiment}"
    yield "hydra.run.dir=run"
    yield from ("paths.log_dir=logs", "paths.data_dir=data")
    yield from wiring.overrides
    yield "~global_components.tokenizer"
    yield f"+global_components.tokenizer._target_={TOKENIZER}"
    yield from _no_evaluators(wiring)
    yield from (f"++trainer.{key}={value}" for key, value in _TRAINER.items())
    for name in plain_dict(wiring.cfg, "loggers"):
        yield f"++loggers.{name}=null"
    yield "++loggers.csv._target_=lightning.pytorch.loggers.CSVLogger"
    yield from ("++loggers.csv.save_dir=${paths.run_dir}", "++loggers.csv.name=csv")
    yield "++loggers.csv.version=''"
    if isinstance(OmegaConf.select(wiring.cfg, "log_predictions"), DictConfig):
        yield "++log_predictions.writers=[file]"
    for loader in wiring.loaders:
        yield from _made_up(wiring, loader)


def _no_evaluators(wiring: Wiring) -> Iterator[str]:
    """The host's evaluator with nothing in it: the others download models."""
    yield from (f"~{EVALUATOR}.{key}" for key in plain_dict(wiring.plain, EVALUATOR))
    yield f"+{EVALUATOR}._target_=xlm.tasks.composite_eval.CompositePostHocEvaluator"
    yield f"+{EVALUATOR}.evaluators={{}}"


def _made_up(wiring: Wiring, loader: Loader) -> Iterator[str]:
    manager = wiring.datamodule.dataset_managers[loader.split][loader.name]
    if not isinstance(manager, MadeUpManager):
        return
    name = wiring.subject.adapter_name
    sizes = ",".join(f"{key}:{value}" for key, value in wiring.sizes.items())
    told = {
        "loader": f"'{loader}'",
        "kind": wiring.kind(loader),
        "sizes": f"{{{sizes}}}",
        "adapter": f"'{name}'" if name else "null",
    }
    place = f"++datamodule.dataset_managers.{loader}"
    yield f"{place}._target_={MANAGER}"
    yield f"{place}.made_up={{{','.join(f'{key}:{value}' for key, value in told.items())}}}"
    if not OmegaConf.select(wiring.cfg, f"{place[2:]}.dataloader_kwargs"):
        kwargs = {"batch_size": manager.dataloader_kwargs["batch_size"], "num_workers": 0}
        yield f"{place}.dataloader_kwargs={{{','.join(f'{k}:{v}' for k, v in kwargs.items())}}}"


def _run(command: list[str], folder: Path) -> tuple[int | None, str]:
    """The exit code, None if it did not end in time, and the output."""
    with open(folder / "output.txt", "w+", encoding="utf-8", errors="replace") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            _end(process)
        output.seek(0)
        return code, output.read()


def _end(process: subprocess.Popen) -> None:
    """End a process and those that it started."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _environment() -> dict[str, str]:
    """This process's environment, and what it can import, without a network."""
    kept = {name: value for name, value in os.environ.items() if not _DROPPED.match(name)}
    path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
    proxies = {
        name: _NOWHERE for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")
    }
    offline = dict.fromkeys(("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"), "1")
    # A tiny model is slower with several threads.
    settings = {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "COLUMNS": "160"}
    return kept | proxies | offline | settings | {"WANDB_MODE": "offline"}


def _losses(path: Path) -> Iterator[float]:
    if not path.is_file():
        return
    with open(path, encoding="utf-8", newline="") as lines:
        for line in csv.DictReader(lines):
            if line.get("train/loss"):
                yield float(line["train/loss"])


def _predictions(folder: Path) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for file in sorted(folder.glob("*/*/*.jsonl")):
        split, name = file.parts[-3:-1]
        lines = file.read_text(encoding="utf-8").splitlines()
        found.setdefault(f"{split}.{name}", [_row(line) for line in lines])
    return found


def _row(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return line
