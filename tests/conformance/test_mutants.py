"""The kit itself: each rule finds a plugin that breaks it, and lets the correct one pass."""

import re
from importlib import import_module
from pathlib import Path

import pytest
from mutant import Mutant, compose_once, install, results

from xlm_mlm.conformance import survey, wiring
from xlm_mlm.conformance.rules import RULES


def _mutants() -> list[Mutant]:
    files = sorted((Path(__file__).parents[1] / "mutants").glob("*.py"))
    return [mutant for file in files for mutant in import_module(f"mutants.{file.stem}").MUTANTS]


MUTANTS = _mutants()


@pytest.fixture
def site(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.fixture
def quick(monkeypatch):
    """Compose what mutants have in common once; theirs is the code."""
    for module in (survey, wiring):
        monkeypatch.setattr(module, "compose", compose_once)


@pytest.mark.parametrize(
    "mutant",
    [pytest.param(m, id=str(m), marks=[pytest.mark.slow] * m.slow) for m in MUTANTS],
)
def test_it_is_found(mutant, site, request):
    if RULES[mutant.rule].area != "configs":
        request.getfixturevalue("quick")
    if RULES[mutant.rule].area == "process":
        request.getfixturevalue("warm_runs")
    found = results(install(site, mutant), mutant.rule)
    failed = [result for result in found if result.outcome == mutant.outcome]
    assert failed, found
    assert any(re.search(mutant.says, result.message) for result in failed), failed


def test_no_rule_without_a_mutant():
    assert {mutant.rule for mutant in MUTANTS} == set(RULES)


def test_the_correct_plugin_passes(site):
    found = results(install(site))
    assert {result.rule for result in found} == {
        r.name for r in RULES.values() if r.part != "process"
    }
    assert [result for result in found if result.outcome != "passed"] == []
