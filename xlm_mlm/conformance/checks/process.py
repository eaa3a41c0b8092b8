"""The whole: an experiment trains, predicts and is tested through the `xlm` command."""

import math
from typing import Any

from omegaconf import OmegaConf

from xlm_mlm.conformance.process import STEPS, TIMEOUT, Run, train
from xlm_mlm.conformance.rules import Broken, CannotRun, NothingHere, rule
from xlm_mlm.conformance.survey import Part
from xlm_mlm.conformance.wiring import Loader


@rule(
    "process-trains",
    part="process",
    says=f"`xlm job_type=train experiment=...` makes {STEPS} steps with a finite loss on made-up "
    "data, on a CPU and without a network, and ends with exit code 0.",
    host="xlm/commands/lightning_main.py, main, and lightning_train.py, train: the command",
)
def trains(part: Part) -> None:
    """Run the command as a process."""
    run = train(part.wiring)
    if run.code is None:
        raise Broken(_told(run, f"not done after {TIMEOUT:.0f} s"))
    if run.code != 0:
        raise Broken(_told(run, f"exit code {run.code} (0 would be right)"))
    finite = [loss for loss in run.losses if math.isfinite(loss)]
    if len(finite) != STEPS:
        what = f"train/loss of its steps is {list(run.losses)}; {STEPS} finite numbers are right"
        raise Broken(_told(run, what))


def _told(run: Run, what: str) -> str:
    return f"{what}; the output ends:\n{run.tail()}\nthe command: {run.command}"


def _finished(part: Part) -> Run:
    run = train(part.wiring)
    if run.code != 0:
        raise CannotRun("the command did not run to its end; see process-trains")
    return run


@rule(
    "process-predicts",
    part="process",
    needs=("predictor",),
    somewhere=True,
    says="While validating or testing, every prediction loader's first batch is written as JSON, "
    "one row for each sample, with its text.",
    host="xlm/harness.py, Harness._call_log_predictions, and xlm/log_predictions.py, "
    "FilePredictionWriter: write what the predictor's `to_dict` returns",
)
def predicts(part: Part) -> None:
    """Read the files of the run."""
    loaders = [
        loader
        for loader in part.wiring.loaders
        if loader.role == "prediction" and loader.split in ("val", "test")
    ]
    if not loaders:
        raise NothingHere("no loader for validation or test has `prediction` in its name")
    run = _finished(part)
    for loader in loaders:
        _written(part, loader, run)


def _written(part: Part, loader: Loader, run: Run) -> None:
    manager = part.wiring.datamodule.dataset_managers[loader.split][loader.name]
    size = int(manager.dataloader_kwargs["batch_size"])
    # Datasets that an experiment makes out of nothing may be smaller than a batch.
    expected = min(size, getattr(manager, "num_examples", size))
    rows = run.predictions.get(str(loader))
    if rows is None:
        raise Broken(_told(run, f"no predictions of {loader} were written"))
    if len(rows) != expected:
        raise Broken(f"{len(rows)} rows were written for the {expected} samples of {loader}")
    for row in rows:
        if not isinstance(row, dict):
            raise Broken(f"a row of the predictions of {loader} is no JSON object: {row!r:.200}")
        if _text_is_kept(part) and not isinstance(row.get("text"), str):
            raise Broken(
                f"a row of the predictions of {loader} has no `text` of type str: {row!r:.200}"
            )


def _text_is_kept(part: Part) -> bool:
    """Whether the experiment leaves `text` among what is written."""
    kept: Any = OmegaConf.select(part.wiring.cfg, "log_predictions.fields_to_keep_in_output")
    return kept is None or any("text".startswith(field) for field in kept)


@rule(
    "process-tests",
    part="process",
    says="The test stage that ends a training run is done without an error.",
    host="xlm/commands/lightning_train.py, train: catches whatever the test raises, logs `Could "
    "not run test` and still ends with exit code 0",
)
def tests(part: Part) -> None:
    """Look for what the host says of its failure."""
    run = _finished(part)
    for line in run.output.splitlines():
        if "Could not run test:" in line:
            raise Broken(_told(run, line.partition("Could not run test:")[2].strip() or line))
