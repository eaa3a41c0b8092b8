"""The command line `xlm-mlm`: one program, to which each command module adds its own."""

import os
import sys
import traceback
from dataclasses import dataclass
from typing import Annotated, ClassVar

import typer

from xlm_mlm import __version__
from xlm_mlm.commands.doctor import doctor
from xlm_mlm.commands.fill import fill
from xlm_mlm.commands.helping import Group, Program, terminal_settings
from xlm_mlm.commands.plugins import plugins
from xlm_mlm.commands.report import report
from xlm_mlm.commands.save import save
from xlm_mlm.commands.terminal import coloured, paint
from xlm_mlm.entries import message_of
from xlm_mlm.visible import readable

# What a shell reports for a program that an interrupt or a closed pipe ended.
_INTERRUPTED = 130
_PIPE_CLOSED = 141
_LONGEST = 1000  # characters of a message; some libraries list all that they know


class XLMMLM(Group):
    """The program's table of contents."""

    sections: ClassVar = {
        "Use a model": ("fill", "save"),
        "See what it did": ("report",),
        "Look after the installation": ("doctor", "plugins"),
    }
    examples: ClassVar = {
        "is everything in order?": ("xlm-mlm doctor",),
        "train, then sample, under xlm": (
            "xlm job_type=train job_name=quickstart experiment=quickstart_mlm",
            "xlm job_type=mlm_generate job_name=samples experiment=quickstart_mlm "
            "+generation.ckpt_path=logs/quickstart/checkpoints/last.ckpt",
        ),
        "fill in the blanks": (
            "xlm-mlm fill --checkpoint last.ckpt 'The [MASK] sat on the [MASK].'",
        ),
        "see how the masks went (add +generation.history=true to the sampling above)": (
            "xlm-mlm report logs/samples/generated/history",
        ),
    }


app = Program(
    name="xlm-mlm",
    cls=XLMMLM,
    help="Tools of xlm-mlm, the masked language model for XLM.\n\n"
    "Training, evaluation and sampling are jobs of the `xlm` command.",
    context_settings={"help_option_names": ["-h", "--help"]},
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command()(fill)
app.command()(save)
app.command()(plugins)
app.command()(report)
app.command()(doctor)


@dataclass
class Session:
    """What holds for the whole run, found by a command as `ctx.obj`."""

    debug: bool = False


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"xlm-mlm {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    ctx: typer.Context,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error, not just one line.")
    ] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    ctx.obj.debug = debug


def main(args: list[str] | None = None) -> int:
    """Run the program and return its exit code: 0, or 1 for an error, 2 for a mistaken command.

    Args:
        args: the command line without the program's name; that of the process if None.
    """
    session = Session()
    try:
        code = _run(sys.argv[1:] if args is None else args, session)
        # A closed pipe shows here at the latest, not when Python shuts down.
        sys.stdout.flush()
    except (KeyboardInterrupt, typer.Abort):
        return _INTERRUPTED
    except BrokenPipeError:
        _write_no_more()
        return _PIPE_CLOSED
    except Exception as error:
        if session.debug:
            traceback.print_exc()
        else:
            _complain(f"{_message(error)} (--debug shows more)")
        return 1
    return code


def _run(args: list[str], session: Session) -> int:
    program = typer.main.get_command(app)
    try:
        with program.make_context(
            "xlm-mlm", args or ["--help"], obj=session, **terminal_settings()
        ) as ctx:
            program.invoke(ctx)
    except typer.Exit as end:
        return end.exit_code
    except SystemExit as end:
        if isinstance(end.code, str):
            raise
        return end.code or 0
    except Exception as error:
        # Which class it is depends on the release of typer.
        if not hasattr(error, "format_message"):
            raise
        path = getattr(getattr(error, "ctx", None), "command_path", "xlm-mlm")
        mistake = " ".join(error.format_message().split()).rstrip(".")
        mistake = mistake[:1].lower() + mistake[1:] + ("" if mistake.endswith("?") else ";")
        _complain(f"{mistake} `{path} --help` shows how")
        return getattr(error, "exit_code", 2)
    return 0


def _message(error: Exception) -> str:
    """What went wrong, in one line."""
    if isinstance(error, MemoryError):
        return "there is not enough memory for this"
    text = message_of(error) or type(error).__name__
    text = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
    if isinstance(error, ImportError):
        return f"{text}; `xlm-mlm doctor` examines the installation"
    return text


def _complain(text: str) -> None:
    # What a message quotes may come from a file, and must not control the terminal.
    label = paint("error:", "bold", "red", on=coloured(sys.stderr))
    print(label, readable(text), file=sys.stderr)


def _write_no_more() -> None:
    """Let the rest of the output go nowhere: Python flushes once more as it ends."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (AttributeError, OSError, ValueError):
        return  # no real file, so nothing to be flushed
