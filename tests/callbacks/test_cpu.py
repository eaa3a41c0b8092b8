"""Settings for the CPU: set while a trainer runs there, and put back."""

from types import SimpleNamespace

import pytest
import torch

from xlm_mlm.callbacks.cpu import CPUSettings


def trainer(device="cpu"):
    return SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device(device)))


def settings():
    return torch.get_num_threads(), torch.get_float32_matmul_precision()


@pytest.fixture(autouse=True)
def _known_settings():
    before = settings()
    torch.set_num_threads(2)
    torch.set_float32_matmul_precision("medium")
    yield
    torch.set_num_threads(before[0])
    torch.set_float32_matmul_precision(before[1])


@pytest.mark.parametrize("end", ["teardown", "on_exception"])
def test_set_during_a_run_and_put_back_after_it(end):
    callback = CPUSettings(threads=1, matmul_precision="highest")
    for _ in range(2):  # training, then testing
        callback.setup(trainer(), None, "fit")
        assert settings() == (1, "highest")
        getattr(callback, end)(trainer(), None, None)
        assert settings() == (2, "medium")


def test_none_leaves_a_setting():
    callback = CPUSettings()
    callback.setup(trainer(), None, "fit")
    assert settings() == (2, "medium")


def test_other_devices_are_left_alone():
    callback = CPUSettings(threads=1, matmul_precision="highest")
    callback.setup(trainer("meta"), None, "fit")
    assert settings() == (2, "medium")
    callback.teardown(trainer("meta"), None, "fit")
    assert settings() == (2, "medium")


@pytest.mark.parametrize(
    ("options", "name"), [({"threads": 0}, "threads"), ({"matmul_precision": "low"}, "precision")]
)
def test_options_are_checked(options, name):
    with pytest.raises(ValueError, match=name):
        CPUSettings(**options)
