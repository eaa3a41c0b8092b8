"""Every test here sees no installed package but ours and those it makes up."""

import pytest


@pytest.fixture(autouse=True)
def _no_other_plugins(no_other_plugins):
    pass
