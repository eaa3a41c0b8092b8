"""Our own plugin, and the smallest one, under every rule of the kit."""

import shutil
import tomllib

import pytest
from mutant import MINIMAL, install

import xlm_mlm.conformance.checks  # noqa: F401 - registers the rules
from xlm_mlm.conformance.rules import RULES
from xlm_mlm.conformance.subject import find_plugin
from xlm_mlm.conformance.survey import survey


@pytest.fixture(scope="module")
def ours():
    """What there is to check; not made where tests are only collected, as it takes seconds."""
    return survey(find_plugin("mlm"))


@pytest.mark.parametrize(
    "rule",
    [
        pytest.param(rule, id=rule.name, marks=[pytest.mark.slow] * (rule.part == "process"))
        for rule in RULES.values()
    ],
)
def test_ours_conforms(rule, ours):
    found = {str(check): check.run() for check in ours.checks([rule])}
    assert found
    assert {name: r.message for name, r in found.items() if r.outcome != "passed"} == {}


@pytest.mark.slow
@pytest.mark.usefixtures("warm_runs")
def test_the_minimal_plugin_runs_as_a_process(site):
    found = survey(install(site.folder))
    processes = [check for check in found.checks() if check.rule.part == "process"]
    assert processes
    for check in processes:
        result = check.run()
        assert result.outcome == "passed", result.message


@pytest.mark.slow
@pytest.mark.usefixtures("warm_runs")
def test_the_guide_s_first_example_conforms(site):
    """It brings a predictor alone; what it takes from us is left out."""
    example = MINIMAL.parent / "leftmost_plugin"
    shutil.copytree(example / "xlm_leftmost", site.folder / "xlm_leftmost")
    project = tomllib.loads((example / "pyproject.toml").read_text())["project"]
    site.register(project["name"], project["version"], **project["entry-points"])
    found = [check.run() for check in survey(find_plugin("leftmost")).checks()]
    assert {result.outcome for result in found} == {"passed", "absent"}, found
    passed = {result.area for result in found if result.outcome == "passed"}
    assert passed == {"configs", "discovery", "predictor", "process"}
