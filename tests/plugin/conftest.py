"""An empty `site-packages` on `sys.path`, whose modules are forgotten after the test."""

import sys
from pathlib import Path

import pytest
from fake_packages import Site


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
