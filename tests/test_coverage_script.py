"""The script of tests/coverage adds up what coverage.py has counted."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "coverage"))

import run_coverage


def an_entry(lines, missing, branches, branches_passed):
    summary = {
        "num_statements": lines,
        "covered_lines": lines - len(missing),
        "num_branches": branches,
        "covered_branches": branches_passed,
    }
    return {"summary": summary, "missing_lines": missing}


FILES = {
    "xlm_mlm/sampling/one.py": an_entry(10, [3, 4, 5, 9], 4, 1),
    "xlm_mlm/sampling/two.py": an_entry(30, [], 0, 0),
    "xlm_mlm/checks.py": an_entry(5, [5], 0, 0),
}


def test_rooms_are_summed_up():
    rooms = run_coverage.by_room(FILES)
    assert rooms == {"xlm_mlm/checks": (5, 4, 0, 0), "xlm_mlm/sampling": (40, 36, 4, 1)}


def test_the_table():
    table = run_coverage.markdown(FILES).splitlines()
    assert "| xlm_mlm/checks | 80.0% | 5 | none | 0 |" in table
    assert "| xlm_mlm/sampling | 90.0% | 40 | 25.0% | 4 |" in table
    assert "| all | 88.9% | 45 | 25.0% | 4 |" in table
    assert table[-2:] == [
        "| xlm_mlm/sampling/one.py | 4: 3-5, 9 |",
        "| xlm_mlm/checks.py | 1: 5 |",
    ]


def test_coverage_is_measured_in_the_processes_that_tests_start(tmp_path, monkeypatch, capsys):
    pytest.importorskip("coverage.cmdline")  # `coverage` alone is found in this folder, too
    for name, text in {
        "xlm_mlm/__init__.py": "",
        "xlm_mlm/half.py": "def half(value):\n    return value / 2\n",
        "hydra_plugins/here.py": "",
        "test_half.py": "import subprocess, sys\n\n\ndef test():\n"
        "    code = 'import xlm_mlm.half; assert 0'\n"
        "    subprocess.run([sys.executable, '-c', code], check=True)\n",
        "pyproject.toml": (run_coverage.ROOT / "pyproject.toml").read_text(),
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(run_coverage, "ROOT", tmp_path)
    monkeypatch.setattr(run_coverage, "TESTS", ["-c", "/dev/null", "-p", "no:cacheprovider"])
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    assert run_coverage.main(["test_half.py"]) == 1
    assert "| xlm_mlm/half | 50.0% | 2 |" in capsys.readouterr().out
