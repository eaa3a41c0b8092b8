"""A folder on `sys.path` to install made-up packages in, and the minimal plugin in one."""

import sys

import pytest
from fake_packages import Site
from mutant import install


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder that stands for `site-packages`; what it brings is forgotten afterwards."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield Site(tmp_path)
    for name in set(sys.modules) - before:
        module = sys.modules[name]
        # A folder without `__init__.py` has no file, but a path.
        places = [getattr(module, "__file__", None), *getattr(module, "__path__", ())]
        if any(str(place).startswith(str(tmp_path)) for place in places):
            del sys.modules[name]


@pytest.fixture
def minimal(site):
    """The minimal plugin of the examples, installed."""
    return install(site.folder)
