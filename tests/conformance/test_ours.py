"""Our own plugin, and the smallest one, under every rule of the kit."""

import shutil
import tomllib

import pytest
from mutant import MINIMAL, install

import xlm_mlm.conformance.checks  # noqa: F401 - registers the rules
from xlm_mlm.conformance.subject import find_plugin
from xlm_mlm.conformance.survey import survey

CHECKS = survey(find_plugin("mlm")).checks()


@pytest.mark.parametrize(
    "check",
    [
        pytest.param(
            check, id=str(check), marks=[pytest.mark.slow] * (check.rule.part == "process")
        )
        for check in CHECKS
    ],
)
def test_ours_conforms(check):
    result = check.run()
    assert result.outcome == "passed", result.message


@pytest.mark.slow
def test_the_minimal_plugin_runs_as_a_process(site):
    found = survey(install(site.folder))
    processes = [check for check in found.checks() if check.rule.part == "process"]
    assert processes
    for check in processes:
        result = check.run()
        assert result.outcome == "passed", result.message


@pytest.mark.slow
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
