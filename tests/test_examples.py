"""The example plugin: short, installable, found by the host, and it does what it says."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
import yaml
from toy_models import TableModel

EXAMPLE = Path(__file__).parents[1] / "examples" / "leftmost_plugin"


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The example as a wheel, unpacked into a folder that processes can have on their path."""
    work = tmp_path_factory.mktemp("leftmost")
    source = shutil.copytree(EXAMPLE, work / "source")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(work)]
    subprocess.run(build, cwd=source, check=True, capture_output=True, timeout=120)
    (wheel,) = work.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(work / "site")
    return work / "site"


def test_it_is_no_longer_than_sixty_lines():
    files = [f for f in EXAMPLE.rglob("*") if f.suffix in (".py", ".toml", ".yaml")]
    assert len(files) == 4
    assert sum(len(f.read_text().splitlines()) for f in files) <= 60


def test_it_fills_from_left_to_right(tokenizer, monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLE)
    from xlm_leftmost.predictor import LeftmostPredictor

    model = TableModel(torch.randn(5, 27))
    x = torch.tensor([[2, 9, 2, 2, 8], [9, 9, 9, 2, 9]])
    preds = LeftmostPredictor(9, tokenizer=tokenizer, model=model).predict({"input_ids": x})
    left = [[(row == 2).nonzero().flatten().tolist() for row in seen] for seen in model.inputs]
    assert left == [[[0, 2, 3], [3]], [[2, 3]], [[3]]]
    assert preds["steps_taken"] == [3, 1]


@pytest.mark.slow
def test_the_host_finds_it_and_composes_its_experiment(installed, tmp_path):
    env = {**os.environ, "PYTHONPATH": str(installed)}
    command = ["job_type=name", "job_name=x", "experiment=quickstart_leftmost", "--cfg", "job"]
    out = subprocess.run(
        [sys.executable, "-m", "xlm", *command],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert out.returncode == 0, out.stderr
    # The host prints lines of its own before the config.
    config = yaml.safe_load(out.stdout[out.stdout.index("paths:") :])
    assert config["predictor"]["_target_"] == "xlm_leftmost.predictor.LeftmostPredictor"
    collator = config["datamodule"]["dataset_managers"]["train"]["lm"]["collator"]["_target_"]
    assert collator == "xlm_mlm.datamodule_mlm.DefaultInfillMLMCollator"


@pytest.mark.slow
def test_its_predictor_and_its_rule_are_registered(installed, tmp_path):
    code = (
        "from xlm_mlm import MLMPredictor\n"
        "from xlm_mlm.plugin.registry import resolve\n"
        "print(resolve('predictor', 'leftmost'))\n"
        "print(type(MLMPredictor(3, strategy='leftmost').rules.strategy))\n"
    )
    out = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert out.stdout.splitlines() == [
        "<class 'xlm_leftmost.predictor.LeftmostPredictor'>",
        "<class 'xlm_leftmost.predictor.Leftmost'>",
    ], out.stderr
