"""A folder on `sys.path` to install made-up packages in, and the minimal plugin in one."""

import sys
from functools import lru_cache

import omegaconf.base
import pytest
import torch
from fake_packages import Site
from mutant import install
from warm_process import WarmProcess

from xlm_mlm.conformance import process


@pytest.fixture(autouse=True, scope="package")
def one_thread():
    """Models of a width of 16 take longer with several threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True, scope="package")
def parsed_once():
    """Every harness asks for the same few interpolations, and parsing them takes a third of it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(omegaconf.base, "parse", lru_cache(maxsize=None)(omegaconf.base.parse))
        yield


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder that stands for `site-packages`; what it brings is forgotten afterwards."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield Site(tmp_path)
    # All are looked at before any is dropped: the path of a namespace asks its parent.
    for name in [name for name in set(sys.modules) - before if _is_below(name, tmp_path)]:
        del sys.modules[name]


def _is_below(name, folder):
    module = sys.modules[name]
    # A folder without `__init__.py` has no file, but a path.
    places = [getattr(module, "__file__", None), *getattr(module, "__path__", ())]
    return any(str(place).startswith(str(folder)) for place in places)


@pytest.fixture
def warm_runs(monkeypatch):
    """Let the kit's training runs begin where torch is imported already.

    What it does otherwise, a command started from nothing, `test_ours_conforms` sees.
    """

    def run(command, folder):
        assert command[1:3] == ["-m", "xlm"]
        environment = process._environment()
        done = WarmProcess("xlm", command[3:], folder, environment).finish(process.TIMEOUT)
        return done.code, done.output

    monkeypatch.setattr(process, "_run", run)


@pytest.fixture
def minimal(site):
    """The minimal plugin of the examples, installed."""
    return install(site.folder)
