"""The device: what is said of each kind of machine, and what to add."""

import shutil

import pytest

from xlm_mlm.commands.diagnosis.child import Answer, Answers
from xlm_mlm.commands.diagnosis.machine import device_findings

AUTO = "`trainer_strategy=auto_mlm`"
CPU = {
    "version": "2.13.0",
    "built_for": None,
    "cuda": False,
    "devices": [],
    "mps": False,
    "error": None,
}


@pytest.fixture(autouse=True)
def _no_driver(monkeypatch):
    """Whatever machine the tests run on."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setattr("xlm_mlm.commands.diagnosis.machine.os.path.exists", lambda _: False)


def finding(**torch):
    (found,) = device_findings(Answers({"torch": Answer({**CPU, **torch})}))
    assert found.check == "device"
    return found


def test_a_gpu_that_computes_needs_nothing():
    found = finding(built_for="12.8", cuda=True, devices=["H100", "A40", "H100"])
    assert (found.level, found.fix) == ("ok", None)
    assert "2 x H100, 1 x A40" in found.text


def test_a_gpu_that_does_not_compute_is_a_problem():
    found = finding(built_for="12.8", cuda=True, devices=["K80"], error="no kernel image")
    assert found.level == "problem"
    assert "1 x K80, but can't compute there: no kernel image" in found.text
    assert AUTO in found.fix


def test_no_gpu_is_no_problem_but_needs_an_option():
    for build in (None, "12.8"):
        found = finding(built_for=build)
        assert found.level == "note"
        assert AUTO in found.fix
    assert "mps" in finding(mps=True).text


def test_a_driver_that_torch_can_not_use(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/nvidia-smi")
    found = finding(built_for="12.8", error="the driver is too old")
    assert found.level == "problem"
    assert found.text.endswith("sees no GPU though a driver is installed: the driver is too old")
    assert "`nvidia-smi`" in found.fix
    found = finding()
    assert found.level == "note"
    assert found.fix.startswith("install a CUDA build of torch")


@pytest.mark.parametrize("value", ["", "-1"])
def test_gpus_hidden_by_a_variable(monkeypatch, value):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    found = finding(built_for="12.8")
    assert found.level == "note"
    assert "`unset CUDA_VISIBLE_DEVICES`" in found.fix
