"""What the tests of all areas share."""

import pytest
from mutant import compose_once

from xlm_mlm.conformance import survey, wiring


@pytest.fixture(autouse=True)
def quick(request, monkeypatch):
    """Compose what plugins with the same configs share once, where configs are not the subject."""
    if request.module.__name__.rpartition(".")[2] not in ("test_configs", "test_discovery"):
        for module in (survey, wiring):
            monkeypatch.setattr(module, "compose", compose_once)
