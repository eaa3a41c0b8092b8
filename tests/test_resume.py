"""Real runs of `xlm`, killed, stopped and resumed, equal one that nothing happened to."""

import signal
from pathlib import Path

import pytest
import torch
from warm_process import start_xlm
from xlm_process import TINY_MODEL

pytestmark = pytest.mark.slow

STEPS = 7
# Of 6 batches an epoch: killed in the first, resumed over the end of it.
JOB = (
    "job_type=train",
    "experiment=quickstart_mlm",
    "job_name=resume",
    "trainer_strategy=cpu",
    *TINY_MODEL,
    "per_device_batch_size=40",
    "global_batch_size=40",
    *(
        f"datamodule.dataset_managers.{loader}.{option}=1"
        for loader in ("train.lm", "val.lm", "val.infill_prediction")
        for option in ("puzzles_per_grid", "held_out_puzzles_per_grid")
    ),
    "predictor.max_steps=2",
    "model.dropout=0.1",
    "lr_scheduler.num_warmup_steps=2",
    f"trainer.max_steps={STEPS}",
    "trainer.val_check_interval=4",
    "+trainer.limit_val_batches=1",
    "+trainer.limit_test_batches=0",
    "callbacks.checkpoint_every_n_steps.every_n_train_steps=2",
    "+callbacks.probe._target_=resume_probe.Probe",
)
LOADER = "datamodule.dataset_managers.train.lm.dataloader_kwargs"
WORKERS = {0: (), 2: (f"{LOADER}.num_workers=2", f"+{LOADER}.prefetch_factor=2")}


def run(folder: Path, workers: int, losses: str, *overrides: str):
    """Train in `folder`; the run, and the step and loss of each of its batches."""
    folder.mkdir(exist_ok=True)
    process = start_xlm(
        folder,
        *JOB,
        *WORKERS[workers],
        f"+callbacks.probe.file={folder / losses}",
        *overrides,
        OMP_NUM_THREADS="1",
        PYTHONPATH=str(Path(__file__).parent),
    )
    done = process.finish(120)
    return done, (folder / losses).read_text().splitlines()


def stop_at(batch: int, number: int):
    return f"+callbacks.probe.at={batch}", f"+callbacks.probe.number={int(number)}"


def last(folder: Path):
    path = folder / "logs" / "resume" / "checkpoints" / "last.ckpt"
    return torch.load(path, weights_only=False)


@pytest.mark.parametrize("workers", [0, 2])
def test_killed_and_stopped_runs_equal_the_whole_one(tmp_path, workers):
    done, whole = run(tmp_path / "whole", workers, "losses")
    assert done.code == 0, done.output[-3000:]
    assert len({line.split()[1] for line in whole}) == STEPS

    folder = tmp_path / "stopped"
    killed, first = run(folder, workers, "first", *stop_at(3, signal.SIGKILL))
    assert killed.code == -signal.SIGKILL
    assert first == whole[:3]

    # Resumed from step 2, the last that was saved.
    number = {0: signal.SIGINT, 2: signal.SIGTERM}[workers]
    stopped, second = run(folder, workers, "second", *stop_at(4, number))
    assert stopped.code == 128 + number, stopped.output[-3000:]
    assert second == whole[2:5]
    assert "stopped after step 5, saved in" in stopped.output
    assert "Traceback" not in stopped.output

    done, rest = run(folder, workers, "rest")
    assert done.code == 0, done.output[-3000:]
    assert rest == whole[5:]
    resumed, expected = last(folder), last(tmp_path / "whole")
    for name, weight in expected["state_dict"].items():
        assert torch.equal(resumed["state_dict"][name], weight), name
    averages = (resumed["ema"]["shadow_params"], expected["ema"]["shadow_params"])
    assert all(torch.equal(a, b) for a, b in zip(*averages, strict=True))
