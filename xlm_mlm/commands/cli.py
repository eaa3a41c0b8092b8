"""The command line `xlm-mlm`: one program, to which each command module adds its own."""

import sys
import traceback
from dataclasses import dataclass
from typing import Annotated

import typer

from xlm_mlm import __version__
from xlm_mlm.commands.plugins import plugins
from xlm_mlm.plugin.entries import message_of

app = typer.Typer(
    name="xlm-mlm",
    help="Tools of xlm-mlm, the masked language model for XLM. Training runs under `xlm`.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command()(plugins)


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
    """Run the program and return its exit code.

    Args:
        args: the command line without the program's name; that of the process if None.
    """
    session = Session()
    try:
        # Typer itself answers mistakes on the command line and an interrupt, and exits.
        app(args, prog_name="xlm-mlm", obj=session)
    except SystemExit as end:
        if isinstance(end.code, str):
            raise
        return end.code or 0
    except Exception as error:
        if session.debug:
            traceback.print_exc()
        else:
            message = message_of(error) or type(error).__name__
            print(f"error: {message} (--debug shows more)", file=sys.stderr)
        return 1
    return 0
