"""Fixtures that several test modules share."""

import os
import signal
import sys
from pathlib import Path

# One thread a process when several share the cores; torch reads it once, when it is imported.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
# A shell starts what runs in its background with Ctrl-C ignored, and so it would be for the
# programs that tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import pytest
import torch
from fake_packages import Site
from hypothesis import settings
from xlm.datamodule import SimpleSpaceTokenizer

# No luck: every run tries the same examples. `--hypothesis-profile=deep` looks for new ones.
settings.register_profile(
    "ci", max_examples=200, derandomize=True, deadline=None, database=None, print_blob=True
)
settings.register_profile("deep", max_examples=5000, deadline=None, database=None, print_blob=True)
settings.load_profile("ci")


@pytest.fixture(autouse=True)
def _seeded():
    """Every test starts from the same random state: none depends on luck or on order."""
    torch.manual_seed(0)


@pytest.fixture
def tokenizer():
    """Special tokens PAD=0 CLS=1 MASK=2 EOS=3 BOS=4 SEP=5 UNK=6; the number n is n + 7."""
    return SimpleSpaceTokenizer.for_numbers(20)


@pytest.fixture
def in_time():
    """A test that would wait for ever, as at a pipe, fails after ten seconds."""
    if not hasattr(os, "mkfifo"):
        pytest.skip("no pipes with names here")

    def fail(number, frame):
        raise TimeoutError("it waits for somebody who never comes")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(10)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def no_other_plugins(tmp_path, monkeypatch):
    """Of what is installed around the tests, only this package: others may be there or not."""
    from xlm_mlm import entries

    installed = entries.distributions

    def ours_and_made_up():
        for distribution in installed():
            path = Path(str(getattr(distribution, "_path", "")))
            if path.name.startswith("xlm_mlm-") or path.is_relative_to(tmp_path):
                yield distribution

    monkeypatch.setattr(entries, "distributions", ours_and_made_up)


@pytest.fixture
def site(tmp_path, monkeypatch):
    """An empty `site-packages` on `sys.path`, whose modules are forgotten after the test."""
    site = Site(tmp_path / "site")
    site.folder.mkdir()
    monkeypatch.syspath_prepend(str(site.folder))
    before = set(sys.modules)
    yield site
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None)
        if file and Path(file).is_relative_to(site.folder):
            del sys.modules[name]


def pytest_xdist_auto_num_workers():
    """One worker more than there are cores: many tests wait for a process that they started."""
    return len(os.sched_getaffinity(0)) + 1 if hasattr(os, "sched_getaffinity") else None
