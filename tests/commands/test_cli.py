"""The program `xlm-mlm`: help, version, one-line errors, and how it ends."""

import json
import os
import pty
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import xlm_mlm
from xlm_mlm.commands import cli
from xlm_mlm.commands.cli import app

PROGRAM = Path(sys.executable).with_name("xlm-mlm")
COMMANDS = sorted(command.name or command.callback.__name__ for command in app.registered_commands)
ESCAPE = "\x1b["


def test_the_installed_program_runs_this_function():
    (point,) = entry_points(group="console_scripts", name="xlm-mlm")
    assert point.load() is cli.main


def shown(capsys, *args):
    """What a command that succeeds writes."""
    assert cli.main([*args]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def complaint(capsys, *args, code=1):
    """The one line that a command that fails writes."""
    assert cli.main([*args]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    return line


@pytest.mark.parametrize("args", [[], ["-h"], ["--help"]])
def test_help_lists_each_command_with_what_it_does(capsys, args):
    out = shown(capsys, *args)
    assert out.startswith("Usage: xlm-mlm")
    rows = dict(line.strip().partition("  ")[::2] for line in out.splitlines())
    for command in COMMANDS:
        assert len(rows[command]) > 10
    assert "Look after the installation:\n" in out
    assert "More:" not in out  # every command has a section
    assert ESCAPE not in out


def test_help_shows_examples_that_can_be_copied(capsys, monkeypatch):
    for width in ("40", "80"):
        monkeypatch.setenv("COLUMNS", width)
        lines = shown(capsys).partition("Examples:\n")[2].splitlines()
        text = " ".join(line.strip().removesuffix("\\").strip() for line in lines)
        for examples in cli.XLMMLM.examples.values():
            for example in examples:
                assert example in text


@pytest.mark.parametrize("width", [40, 80, 200])
@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_fits_the_terminal(capsys, monkeypatch, width, command):
    monkeypatch.setenv("COLUMNS", str(width))
    out = shown(capsys, *filter(None, [command]), "-h")
    wide = [line for line in out.splitlines() if len(line) > min(width, 96)]
    # A word that is longer than the terminal, an argument of an example, can't be broken.
    assert all(len(max(line.split(), key=len)) > width - 14 for line in wide), wide
    assert len(wide) <= 1
    assert "--debug" in out
    assert "Raises:" not in out


def test_version(capsys):
    assert shown(capsys, "--version") == f"xlm-mlm {xlm_mlm.__version__}\n"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["plugin"], "error: no command 'plugin'; did you mean 'plugins'? `xlm-mlm --help` "),
        (["zzz"], "error: no command 'zzz'; the commands: "),
        (["plugins", "--jsn"], "--jsn"),
        (["--jsn"], "--jsn"),
        (["plugins", "extra"], "(extra); `xlm-mlm plugins --help` shows how"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line(capsys, args, message):
    assert message in complaint(capsys, *args, code=2)


def failing(monkeypatch, error):
    def fail(**_):
        raise error

    monkeypatch.setattr("xlm_mlm.plugin.registry.installed", fail)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError("k is 0;\nit must be 1"), "k is 0; it must be 1"),
        (KeyError("no 'k'"), "no 'k'"),
        (AssertionError(), "AssertionError"),
        (MemoryError("bytes"), "there is not enough memory for this"),
        (ValueError("\x1b[2J"), r"\x1b[2J"),
        (ValueError("a" * 5000), "a" * 1000 + "... (--debug"),
        (FileNotFoundError(2, "No such file or directory", "a.ckpt"), "a.ckpt: No such file or d"),
        (ImportError("no 'x' in y"), "no 'x' in y; `xlm-mlm doctor` examines the installation"),
    ],
)
def test_an_error_is_one_line_unless_debugging(monkeypatch, capsys, error, message):
    failing(monkeypatch, error)
    line = complaint(capsys, "plugins")
    assert line.startswith(f"error: {message}")
    assert line.endswith(" (--debug shows more)")
    for args in (["--debug", "plugins"], ["plugins", "--debug"]):
        assert cli.main(args) == 1
        assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"), [(KeyboardInterrupt(), 130), (BrokenPipeError(), 141), (SystemExit(3), 3)]
)
def test_an_end_that_is_no_error_is_silent(monkeypatch, capsys, error, code):
    failing(monkeypatch, error)
    assert cli.main(["plugins"]) == code
    assert capsys.readouterr() == ("", "")


def test_a_reader_that_leaves_is_no_error():
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([PROGRAM, "-h"], stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


def on_terminal(**env):
    """What `xlm-mlm -h` sends to a terminal."""
    ours, theirs = pty.openpty()
    clean = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "TERM")}
    subprocess.run([PROGRAM, "-h"], stdout=theirs, env=clean | {"TERM": "xterm"} | env, check=True)
    os.close(theirs)
    return os.read(ours, 100_000).decode()


def test_colours_are_for_terminals_that_want_them():
    assert f"{ESCAPE}1mUsage:{ESCAPE}0m" in on_terminal()
    assert ESCAPE not in on_terminal(NO_COLOR="1")
    assert ESCAPE not in on_terminal(TERM="dumb")


def test_help_imports_nothing_heavy():
    code = (
        "import json, sys\n"
        "from xlm_mlm.commands.cli import main\n"
        "assert main(['--help']) == 0\n"
        "print(json.dumps([*sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = set(json.loads(done.stdout.splitlines()[-1]))
    heavy = {"torch", "numpy", "pandas", "xlm", "hydra", "lightning", "matplotlib", "PIL"}
    assert modules & heavy == set()
