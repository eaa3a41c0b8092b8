"""The one test: a rule applied to a part of the plugin that is named on the command line."""

from dataclasses import asdict

import pytest

from xlm_mlm.conformance.isolated import run_isolated
from xlm_mlm.conformance.pytest_plugin import PROPERTY
from xlm_mlm.conformance.rules import Check


def test_conforms(xlm_check: Check, request: pytest.FixtureRequest) -> None:
    """A rule, and the part of the plugin that it is about."""
    result = run_isolated(xlm_check)
    # As `record_property` does it, which warns under --junitxml.
    request.node.user_properties.append((PROPERTY, asdict(result)))
    if result.outcome == "absent":
        pytest.skip(f"absent, {result.message}")
    if result.outcome != "passed":
        lines = (
            f"[{result.rule}] {result.outcome}: {result.message}",
            f"rule: {result.says}",
            f"host: {result.host}",
        )
        pytest.fail("\n".join(lines), pytrace=False)
