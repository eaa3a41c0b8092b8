"""The command that users run, as a process."""

import json
import os
import subprocess
import sys

import pytest
from mutant import Mutant, edit, install
from warm_process import WarmProcess

KIT = ("--pyargs", "xlm_mlm.conformance")


def run_pytest(site, *arguments, warm=False):
    """Run pytest in an empty folder, with the packages of `site` to be found.

    Args:
        site: the packages.
        arguments: what follows `pytest`.
        warm: whether torch may be there before; stdout has stderr in it, then.
    """
    work = site.folder / "work"
    work.mkdir(exist_ok=True)
    env = {**os.environ, "PYTHONPATH": str(site.folder), "OMP_NUM_THREADS": "1"}
    if warm:
        done = WarmProcess("pytest", arguments, work, env).finish(timeout=300)
        return subprocess.CompletedProcess(arguments, done.code, done.output, "")
    return subprocess.run(
        [sys.executable, "-m", "pytest", *arguments],
        cwd=work,
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (KIT, "say what to test: --xlm-plugin NAME"),
        (("--xlm-report", "r.html"), "say what to test"),
        ((*KIT, "--xlm-plugin", "nope"), "no plugin is registered as 'nope'"),
        ((*KIT, "--xlm-package", "nope"), "no package 'nope' to import"),
        ((*KIT, "--xlm-plugin", "mlm", "--xlm-package", "x"), "two ways to say"),
        ((*KIT, "--xlm-plugin", "mlm", "--xlm-report", "r.txt"), "--xlm-report: "),
        ((*KIT, "--xlm-plugin", "mlm", "--xlm-adapter", "json:x"), "json:x can't be imported"),
    ],
)
def test_mistakes_on_the_command_line_are_one_line(arguments, message, site):
    done = run_pytest(site, *arguments)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_an_ordinary_run_imports_nothing_and_says_nothing(site):
    site.write(test_theirs="import sys\n\ndef test_it():\n    assert 'torch' not in sys.modules\n")
    done = run_pytest(site, str(site.folder / "test_theirs.py"), "-p", "no:jaxtyping")
    assert done.returncode == 0, done.stdout
    assert "conformance" not in done.stdout.replace("xlm-conformance", "")


def test_no_check_at_all_is_said(site):
    site.write(test_theirs="def test_it():\n    pass\n")
    done = run_pytest(site, str(site.folder / "test_theirs.py"), "--xlm-plugin", "mlm")
    assert "no check of plugin mlm was made; see pytest --pyargs" in done.stdout


@pytest.mark.slow
def test_in_the_folder_of_a_project_with_its_own_ways(site):
    """Other names for tests, warnings as errors, a report for CI, a report that can't be kept."""
    name = install(site.folder).name
    (site.folder / "work").mkdir()
    (site.folder / "work" / "taken.json").mkdir()
    (site.folder / "work" / "pytest.ini").write_text(
        "[pytest]\npython_files = *_spec.py\npython_functions = check_*\n"
        "junit_family = xunit2\naddopts = -W error --junitxml=junit.xml\n"
    )
    arguments = ("--xlm-plugin", name, "--xlm-report", "taken.json", "-k", "configs-parse")
    done = run_pytest(site, *KIT, *arguments, warm=True)
    assert "The only check passed" in done.stdout, done.stdout
    assert "the report could not be written to taken.json" in done.stdout
    assert done.returncode == pytest.ExitCode.INTERNAL_ERROR
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.slow
def test_a_module_that_ends_the_process_is_no_success(site):
    end = edit("collators.py", "", "\nimport os\nos._exit(0)\n")
    name = install(site.folder, Mutant("", (end,), says="")).name
    done = run_pytest(site, *KIT, "--xlm-plugin", name, "-k", "model-", warm=True)
    assert done.returncode not in (0, pytest.ExitCode.NO_TESTS_COLLECTED)
    assert "it ended with code 0" in done.stdout


@pytest.mark.slow
def test_a_plugin_that_passes(site):
    name = install(site.folder).name
    done = run_pytest(
        site, *KIT, "--xlm-plugin", name, "--xlm-report", "out/r.json", "-k", "model-"
    )
    assert done.returncode == 0, done.stdout
    report = json.loads((site.folder / "work/out/r.json").read_text())
    assert report["subject"]["name"] == name
    assert report["counts"]["passed"] == len(report["results"]) > 5
    assert {result["area"] for result in report["results"]} == {"model"}
    assert f"plugin {name}: All {report['counts']['passed']} checks passed" in done.stdout


@pytest.mark.slow
def test_a_plugin_that_does_not(site):
    wrong = edit("model.py", "torch.nn.Module, Model", "torch.nn.Module")
    name = install(site.folder, Mutant("", (wrong,), says="")).name
    arguments = ("--xlm-plugin", name, "--xlm-report", "r.HTML", "-k", "model-base-class")
    done = run_pytest(site, *KIT, *arguments, warm=True)
    assert done.returncode == pytest.ExitCode.TESTS_FAILED
    said = [line for line in done.stdout.splitlines() if line.startswith("[model-base-class]")]
    assert "MinimalModel does not derive from Model" in said[0]
    for head in ("look at: ", "rule: ", "host: xlm/model.py"):
        assert f"\n{head}" in done.stdout
    assert "model-base-class" in (site.folder / "work/r.HTML").read_text()
