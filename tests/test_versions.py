"""The script that runs the tests with other versions, and the bounds that it goes by."""

import importlib.util
import re
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = ROOT / "pyproject.toml"


@pytest.fixture(scope="module")
def script():
    path = ROOT / "tests" / "versions" / "run.py"
    spec = importlib.util.spec_from_file_location("versions_run", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def declared():
    project = tomllib.loads(PROJECT.read_text())["project"]
    return [*project["dependencies"], *project["optional-dependencies"]["test"]]


@pytest.mark.parametrize("line", declared())
def test_every_dependency_has_a_lower_bound(line):
    # A resolver that looks for the oldest would else take a version of twenty years ago.
    assert ">=" in {specifier.operator for specifier in Requirement(line).specifier}


def test_every_pin_says_why():
    block = re.search(r"^dependencies = \[\n(.*?)^\]", PROJECT.read_text(), re.M | re.S)[1]
    lines = [line.strip() for line in block.splitlines()]
    for number, line in enumerate(lines):
        if ",<" in line:
            assert lines[number - 1].startswith("#"), f"{line} has no comment of its own"
    assert lines[0].startswith("#")


def test_the_prereleases_are_of_what_is_allowed(script):
    hydra = next(Requirement(line) for line in declared() if line.startswith("hydra-core"))
    wanted = Requirement(script.PRERELEASES)
    assert hydra.name == wanted.name
    assert hydra.specifier.contains(Version("1.4.0rc3"), prereleases=True)
    assert wanted.specifier.prereleases


def test_each_end_installs_this_repository_with_what_its_tests_need(script):
    lowest, highest = (script.installation(end, Path("python")) for end in script.ENDS)
    for command in (lowest, highest):
        assert command[:3] == [sys.executable, "-m", "uv"]
        assert command[command.index("--editable") + 1] == f"{ROOT}[test]"
        assert command[command.index("--python") + 1] == "python"
    assert "lowest-direct" in lowest
    assert "--resolution" not in highest


@pytest.fixture
def calls(script, monkeypatch):
    """The ends and arguments of tests that the script would run; "lowest" fails."""
    made = []

    def run(end, folder, tests):
        made.append((end, tests))
        return end == "highest"

    monkeypatch.setattr(script, "run", run)
    monkeypatch.setattr(script, "has_uv", lambda: True)
    return made


def test_both_ends_run_and_one_failure_fails(script, calls):
    assert script.main(["--", "-m", "not slow"]) == 1
    assert calls == [(end, ["-m", "not slow"]) for end in ("lowest", "highest")]


def test_one_end(script, calls):
    assert script.main(["highest"]) == 0
    assert calls == [("highest", [])]


def test_without_uv_it_says_so(script, monkeypatch, capsys):
    monkeypatch.setattr(script, "has_uv", lambda: False)
    with pytest.raises(SystemExit):
        script.main([])
    assert "pip install uv" in capsys.readouterr().err
