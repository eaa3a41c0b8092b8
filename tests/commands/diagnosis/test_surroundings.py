"""The command on PATH, variables, and files of the current folder."""

import json
import sys
from pathlib import Path

import pytest

from xlm_mlm.commands.diagnosis.child import Answer, Answers
from xlm_mlm.commands.diagnosis.probes import VARIABLES
from xlm_mlm.commands.diagnosis.surroundings import (
    command_findings,
    folder_findings,
    variable_findings,
)


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def on_path(monkeypatch, tmp_path, head):
    """Make `xlm` on PATH a script that begins with `head`."""
    script = tmp_path / "bin" / "xlm"
    script.parent.mkdir()
    script.write_text(f"{head}\nprint()\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(script.parent))
    (found,) = command_findings()
    return found


@pytest.mark.parametrize("head", ["#!{}", '#!/bin/sh\n\'\'\'exec\' "{}" "$0" "$@"'])
def test_a_command_of_this_python_elsewhere(monkeypatch, tmp_path, head):
    found = on_path(monkeypatch, tmp_path, head.format(sys.executable))
    assert found.level == "ok"


@pytest.mark.parametrize("head", ["#!/opt/other/bin/python3.11", "\x7fELF"])
def test_a_command_of_another_python_is_a_problem(monkeypatch, tmp_path, head):
    found = on_path(monkeypatch, tmp_path, head)
    assert found.level == "problem"
    assert ("/opt/other/bin/python3.11" if head[0] == "#" else "another Python") in found.text
    assert str(Path(sys.executable).with_name("xlm")) in found.fix


def test_no_command_on_path_is_a_note(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    (found,) = command_findings()
    assert found.level == "note"
    assert found.fix


def test_a_python_without_the_command_is_a_problem(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    (found,) = command_findings()
    assert found.level == "problem"
    assert "--force-reinstall --no-deps xlm-core" in found.fix


def variables(monkeypatch, from_file=None, **outside):
    for name in (*VARIABLES, "PYTHONPATH"):
        monkeypatch.delenv(name, raising=False)
    for name, value in outside.items():
        monkeypatch.setenv(name, value)
    host = Answer({"variables": from_file or {}})
    return {(f.level, f.text): f.fix for f in variable_findings(Answers({"host": host}))}


def test_no_variable_and_what_the_host_takes_anyway(monkeypatch):
    for outside in ({}, {"PROJECT_ROOT": "."}):
        assert [level for level, _ in variables(monkeypatch, **outside)] == ["ok"]


def test_a_file_of_variables_wins_over_those_outside(monkeypatch):
    found = variables(monkeypatch, {"DATA_DIR": "/tmp/b"}, DATA_DIR="/tmp/a")
    assert [text.partition(":")[0] for _, text in found] == ["DATA_DIR=/tmp/b (from .env)"]


def test_lists_of_packages_and_folders(monkeypatch, tmp_path):
    found = variables(monkeypatch, XLM_MODELS_PACKAGES="xlm_mlm", XLM_MODELS_PATH="")
    assert {level for level, _ in found} == {"note"}
    found = variables(monkeypatch, XLM_MODELS_PACKAGES="xlm_mlm:no_such", XLM_MODELS_PATH="gone")
    texts = " ".join(text for _, text in found)
    assert "names 'no_such', which is not installed" in texts
    assert "names gone, which has no xlm_models.json" in texts
    found = variables(monkeypatch, XLM_MODELS_PACKAGES="a,b")
    assert "`export XLM_MODELS_PACKAGES=a:b`" in found.values()


def folder():
    return {(f.level, f.text): f.fix for f in folder_findings()}


def test_an_innocent_folder(tmp_path):
    # Neither a folder without __init__.py nor our own clone hides anything.
    (tmp_path / "xlm").mkdir()
    assert [level for level, _ in folder()] == ["ok"]


def test_a_clone_does_not_hide_itself(monkeypatch):
    import xlm_mlm

    monkeypatch.chdir(Path(xlm_mlm.__file__).parents[1])
    assert not any("hides" in text for _, text in folder())


@pytest.mark.parametrize(
    ("file", "level"),
    [
        ("xlm.py", "problem"),
        ("xlm/__init__.py", "problem"),
        ("xlm_mlm.py", "problem"),
        ("torch.py", "note"),
        ("hydra_plugins/__init__.py", "problem"),
    ],
)
def test_a_file_that_hides_an_installed_module(tmp_path, file, level):
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).touch()
    ((found, fix),) = folder().items()
    assert found[0] == level
    assert "from `python -m xlm`" in found[1]
    assert str(tmp_path / file.removesuffix("/__init__.py")) in fix


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ('{"a": "mine"}', "note"),
        ('{"a": "lost"}', "problem"),
        ('{"a": 3}', "problem"),
        ("[1]", "problem"),
        ("{", "problem"),
        ("\udcff", "problem"),
    ],
)
def test_a_list_of_local_models(tmp_path, text, level):
    (tmp_path / "mine" / "configs").mkdir(parents=True)
    (tmp_path / "xlm_models.json").write_bytes(text.encode(errors="surrogateescape"))
    assert level in {each for each, _ in folder()}


def test_leftovers_are_notes(tmp_path):
    for name in ("data/xlm_mlm/star/.train-1/x", "logs/a/checkpoints/best-v1.ckpt"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    found = folder()
    assert {level for level, _ in found} == {"note"}
    assert f"`rm -r {tmp_path}/data/xlm_mlm/star/.train-1`" in found.values()


def test_a_run_without_its_final_test_is_noted(tmp_path):
    for name, line in {"good": "done", "bad": "[ERROR] - Could not run test: no 'ids'"}.items():
        log = tmp_path / "logs" / name / "runs" / "1" / "job.log"
        log.parent.mkdir(parents=True)
        log.write_text(f"{'x' * 200_000}\n{line}\nbye\n")
    ((found, fix),) = folder().items()
    assert found[0] == "note"
    assert found[1].endswith("bad/runs/1/job.log: a run ended without its final test: no 'ids'")
    assert fix


def test_a_folder_that_is_gone(tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    ((found, fix),) = folder().items()
    assert found[0] == "problem"
    assert "`cd` to another" in fix


def test_findings_are_ready_for_json(tmp_path):
    (tmp_path / "xlm_models.json").write_text('{"a": null}')
    assert json.dumps([finding.__dict__ for finding in folder_findings()])
