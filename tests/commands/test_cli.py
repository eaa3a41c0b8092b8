"""The program `xlm-mlm`: help, version, and one-line errors."""

import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import xlm_mlm
from xlm_mlm.commands import cli


def test_the_installed_program_runs_this_function():
    (point,) = entry_points(group="console_scripts", name="xlm-mlm")
    assert point.load() is cli.main


def test_help_lists_the_commands(capsys):
    assert cli.main(["--help"]) == 0
    out = capsys.readouterr().out
    assert "Usage: xlm-mlm" in out
    assert "plugins" in out
    assert "--debug" in out


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"xlm-mlm {xlm_mlm.__version__}\n"


@pytest.mark.parametrize("args", [["no-such-command"], ["plugins", "--no-such-option"]])
def test_a_mistake_on_the_command_line_is_named(args, capsys):
    assert cli.main(args) == 2
    captured = capsys.readouterr()
    assert args[-1] in captured.err
    assert captured.out == ""


@pytest.mark.parametrize("error", [ValueError("k is 0;\nit must be 1"), KeyError("no 'k'")])
def test_an_error_is_one_line_unless_debugging(monkeypatch, capsys, error):
    def fail(**_):
        raise error

    monkeypatch.setattr("xlm_mlm.plugin.registry.installed", fail)
    assert cli.main(["plugins"]) == 1
    captured = capsys.readouterr()
    message = " ".join(error.args[0].split())
    assert captured.err == f"error: {message} (--debug shows more)\n"
    assert captured.out == ""

    assert cli.main(["--debug", "plugins"]) == 1
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.slow
def test_help_of_the_real_program_imports_no_torch():
    program = Path(sys.executable).with_name("xlm-mlm")
    code = (
        f"import runpy, sys; sys.argv = ['xlm-mlm', '--help']\n"
        f"try: runpy.run_path({str(program)!r}, run_name='__main__')\n"
        "except SystemExit as end: assert not end.code\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Usage: xlm-mlm" in done.stdout
