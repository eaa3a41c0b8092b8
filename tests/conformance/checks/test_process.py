"""What is run, what is read of it, and what the rules make of that; without a real run."""

import json
import math
import re
import sys
import time
from dataclasses import replace

import pytest

from xlm_mlm.conformance import process
from xlm_mlm.conformance.process import STEPS, Run
from xlm_mlm.conformance.rules import RULES, Check
from xlm_mlm.conformance.survey import survey

ROWS = [{"text": "w1 w2"}] * 4
GOOD = Run("xlm ...", 0, "", (2.0,) * STEPS, {"val.prediction": ROWS, "test.prediction": ROWS})


@pytest.fixture
def star(minimal):
    parts = survey(minimal).parts["process"]
    return next(part for part in parts if part.wiring.experiment == "star_easy_minimal")


def outcome(part, run, name, absent=None):
    process._RUNS[part.wiring] = run
    result = Check(RULES[name], (part,), absent or {}).run()
    return result.outcome, result.message


@pytest.mark.parametrize("name", ["process-trains", "process-predicts", "process-tests"])
def test_a_good_run_passes(star, name):
    assert outcome(star, GOOD, name) == ("passed", "")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"code": None}, "not done after 300 s"),
        ({"code": -11, "output": "Segmentation fault"}, "exit code -11.*\nSegmentation fault"),
        ({"losses": (1.0, 2.0)}, r"is \[1.0, 2.0\]; 5 finite numbers are right"),
        ({"losses": (1.0, 2.0, math.nan, 1.0, 1.0)}, "nan"),
    ],
)
def test_a_run_that_does_not_train_is_broken(star, changes, says):
    found, message = outcome(star, replace(GOOD, **changes), "process-trains")
    assert found == "broken"
    assert re.search(says, message), message


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (None, "no predictions of val.prediction were written"),
        (ROWS[:3], "3 rows were written for the 4 samples"),
        ([*ROWS[:3], "nothing"], "is no JSON object: 'nothing'"),
        ([*ROWS[:3], {"text": None}], "has no `text` of type str"),
    ],
)
def test_predictions_that_are_not_right_are_broken(star, rows, says):
    written = {"test.prediction": ROWS} | ({"val.prediction": rows} if rows else {})
    found, message = outcome(star, replace(GOOD, predictions=written), "process-predicts")
    assert (found, says in message) == ("broken", True), message


def test_a_text_that_the_experiment_leaves_out_is_not_asked_for(star):
    star.wiring.cfg.log_predictions.fields_to_keep_in_output = ["truth"]
    written = dict.fromkeys(GOOD.predictions, [{"truth": "w1"}] * 4)
    run = replace(GOOD, predictions=written)
    assert outcome(star, run, "process-predicts") == ("passed", "")


def test_a_swallowed_error_of_the_test_stage_is_broken(star):
    run = replace(GOOD, output="[ERROR] - Could not run test: no such metric\nbye")
    found, message = outcome(star, run, "process-tests")
    assert (found, "no such metric" in message) == ("broken", True)


@pytest.mark.parametrize("name", ["process-predicts", "process-tests"])
def test_a_run_that_failed_is_judged_once(star, name):
    found, message = outcome(star, replace(GOOD, code=1), name)
    assert (found, "see process-trains" in message) == ("could not run", True)


def test_the_command_line(star):
    told = list(process.overrides(star.wiring))
    manager = "++datamodule.dataset_managers.val.prediction"
    assert told[:3] == ["job_type=train", "job_name=conformance", "experiment=star_easy_minimal"]
    assert f"{manager}._target_=xlm_mlm.conformance.made_up.MadeUpManager" in told
    assert (
        f"{manager}.made_up={{loader:'val.prediction',kind:prompted,"
        "sizes:{block_size:12,input_block_size:8},adapter:null}"
    ) in told
    assert told.index("~global_components.tokenizer") < told.index(
        "+global_components.tokenizer._target_=xlm_mlm.conformance.made_up.make_tokenizer"
    )
    assert {"++trainer.accelerator=cpu", "++loggers.tensorboard=null"} <= set(told)


def test_a_command_is_run_with_what_this_process_can_import(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("XLM_MODELS_PACKAGES", "somebody")
    show = "import os, sys; print(sys.path, sorted(os.environ)); sys.exit(3)"
    code, output = process._run([sys.executable, "-c", show], tmp_path)
    assert code == 3
    assert str(tmp_path) in output
    assert "HF_HUB_OFFLINE" in output
    assert "XLM_MODELS_PACKAGES" not in output


def test_a_command_that_hangs_is_ended_with_its_children(tmp_path, monkeypatch):
    monkeypatch.setattr(process, "TIMEOUT", 0.5)
    start = time.monotonic()
    code, output = process._run(["sh", "-c", "echo begun; sleep 60 & sleep 60"], tmp_path)
    assert (code, output) == (None, "begun\n")
    assert time.monotonic() - start < 30


def test_a_package_comes_before_plugins_with_the_same_names(tmp_path):
    configs = tmp_path / "installed" / "configs"
    configs.mkdir(parents=True)
    (configs / "here.yaml").touch()
    run = tmp_path / "run"
    run.mkdir()
    process._make_first([configs], run)
    homes = json.loads((run / "xlm_models.json").read_text())
    assert [(run / home / "configs" / "here.yaml").exists() for home in homes.values()] == [True]
    assert all((run / home).resolve() != configs.parent for home in homes.values())


def test_what_is_left_is_read(tmp_path):
    (tmp_path / "metrics.csv").write_text("step,train/loss,val\n0,1.5,\n1,,2\n2,nan,\n")
    first, last = process._losses(tmp_path / "metrics.csv")
    assert first == 1.5
    assert math.isnan(last)
    assert list(process._losses(tmp_path / "none.csv")) == []
    files = tmp_path / "predictions" / "val" / "prediction"
    files.mkdir(parents=True)
    (files / "epoch=0_step=5.jsonl").write_text('{"text": "a"}\nhalf a r\n')
    assert process._predictions(tmp_path / "predictions") == {
        "val.prediction": [{"text": "a"}, "half a r"]
    }


def test_the_tail_leaves_progress_out():
    output = "one\n\n  50%|#####     | 5/10\n--------\nTesting: |   | 0/? [00:00<?]\ntwo  \n"
    assert replace(GOOD, output=output).tail() == "one\ntwo"
