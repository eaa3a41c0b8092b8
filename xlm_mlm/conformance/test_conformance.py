"""The one test: a rule applied to a part of the plugin that is named on the command line."""

from typing import Any

import pytest

from xlm_mlm.conformance.rules import Check


def test_conforms(xlm_check: Check, xlm_results: list[Any]) -> None:
    """A rule, and the part of the plugin that it is about."""
    result = xlm_check.run()
    xlm_results.append(result)
    if result.outcome == "absent":
        pytest.skip(f"declared absent, {result.message}")
    if result.outcome != "passed":
        lines = (
            f"[{result.rule}] {result.outcome}: {result.message}",
            f"rule: {result.says}",
            f"host: {result.host}",
        )
        pytest.fail("\n".join(lines), pytrace=False)
