"""An empty `site-packages` on `sys.path`, whose modules are forgotten after the test."""

import sys
from pathlib import Path

import pytest
from fake_packages import Site

from xlm_mlm.plugin import entries


@pytest.fixture(autouse=True)
def _no_other_plugins(tmp_path, monkeypatch):
    """Of what is installed around the tests, only this package: others may be there or not."""
    installed = entries.distributions

    def ours_and_made_up():
        for distribution in installed():
            path = Path(str(getattr(distribution, "_path", "")))
            if path.name.startswith("xlm_mlm-") or path.is_relative_to(tmp_path):
                yield distribution

    monkeypatch.setattr(entries, "distributions", ours_and_made_up)


@pytest.fixture
def site(tmp_path, monkeypatch):
    site = Site(tmp_path / "site")
    site.folder.mkdir()
    monkeypatch.syspath_prepend(str(site.folder))
    before = set(sys.modules)
    yield site
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None)
        if file and Path(file).is_relative_to(site.folder):
            del sys.modules[name]
