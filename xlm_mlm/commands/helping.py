"""Help that reads well: commands in sections, examples, any width, colours where they are seen."""

import re
import shlex
import sys
from collections.abc import Iterable
from copy import copy
from difflib import get_close_matches
from functools import partial
from typing import Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup

from xlm_mlm.commands.terminal import coloured, columns, paint

_NARROW = 60
_REST = "More"
# Sections of a docstring that are meant for whoever reads the source.
_FOR_READERS = re.compile(r"^(?:Args|Raises|Returns|Yields):", re.M)


class _Readable:
    """What the program and each of its commands share."""

    params: list[Any]

    def get_help(self, ctx: Any) -> str:
        """The help text, as wide as the terminal, and coloured if that shows colours."""
        formatter = ctx.make_formatter()
        if formatter.width < _NARROW:
            # Two columns do not fit: what an option does goes below its name.
            formatter.write_dl = partial(formatter.write_dl, col_max=4)
        self.format_help(ctx, formatter)  # type: ignore[attr-defined]
        return _painted(formatter.getvalue().rstrip("\n"), coloured(sys.stdout))


class Command(_Readable, TyperCommand):
    """One command. Its help is its docstring, without the sections for readers of the source."""

    def __init__(self, *args: Any, help: str | None = None, **rest: Any) -> None:
        super().__init__(*args, help=help and _FOR_READERS.split(help)[0].rstrip(), **rest)

    @property
    def summary(self) -> str:
        """The first sentence of the help."""
        first = " ".join((self.help or "").partition("\n\n")[0].split())
        return re.split(r"(?<=[.!?])\s", first, maxsplit=1)[0].rstrip(".")


class Group(_Readable, TyperGroup):
    """The program: its commands under headings, then examples.

    Attributes:
        sections: the headings, each with the names below it; what none of them names comes last.
        examples: what to achieve, each with the command lines that do it.
    """

    sections: ClassVar[dict[str, tuple[str, ...]]]
    examples: ClassVar[dict[str, tuple[str, ...]]]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the commands with their one-line summaries, then the options."""
        for heading, names in self._sorted(self.list_commands(ctx)):
            commands = [(name, self.get_command(ctx, name)) for name in names]
            rows = [
                (name, getattr(command, "summary", "")) for name, command in commands if command
            ]
            with formatter.section(heading):
                formatter.write_dl(rows)
        super().format_options(ctx, formatter)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Nothing more: click writes the commands after the options."""

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the examples, so that each can be copied whatever the width."""
        with formatter.section("Examples"):
            indent = " " * formatter.current_indent
            for purpose, lines in self.examples.items():
                formatter.write_text(f"# {purpose}")
                for line in lines:
                    parts = _broken(line, formatter.width - len(indent))
                    formatter.write("".join(f"{indent}{part}\n" for part in parts))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """A command by name, with a `--debug` of its own: users write it there."""
        command = super().get_command(ctx, cmd_name)
        debug = next((param for param in self.params if param.name == "debug"), None)
        if command and debug and all(param.name != "debug" for param in command.params):
            command.params.append(_for_command(debug))
        return command

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that `args` begins with; an unknown one is an error that names the nearest.

        Raises:
            UsageError: there is no such command.
        """
        name, known = args[0], self.list_commands(ctx)
        # What starts with a dash is a mistaken option, and explained as such.
        if name not in known and not name.startswith("-"):
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"the commands: {', '.join(known)}"
            ctx.fail(f"no command {name!r}; {hint}")
        return super().resolve_command(ctx, args)

    def _sorted(self, names: list[str]) -> Iterable[tuple[str, list[str]]]:
        named = {name for section in self.sections.values() for name in section}
        rest = tuple(name for name in names if name not in named)
        for heading, section in {**self.sections, _REST: rest}.items():
            if present := [name for name in section if name in names]:
                yield heading, present


class Program(typer.Typer):
    """A typer application whose commands explain themselves in the way of this module."""

    def command(self, name: str | None = None, **options: Any) -> Any:
        """Like typer's."""
        options.setdefault("cls", Command)
        return super().command(name, **options)


def terminal_settings() -> dict[str, Any]:
    """Settings of the outermost context; a plain one never goes below 50 columns."""
    return {"terminal_width": columns() - 1}


def _for_command(debug: Any) -> Any:
    """The program's `--debug`, for a command that does not know of it."""

    def keep(ctx: Any, param: Any, value: bool) -> None:
        ctx.obj.debug = ctx.obj.debug or value

    option = copy(debug)
    option.expose_value, option.callback = False, keep
    return option


def _painted(text: str, on: bool) -> str:
    """Headings bold, and what explains an example dim."""
    text = re.sub(r"(?m)^(?:Usage:|\S.*:$)", lambda found: paint(found[0], "bold", on=on), text)
    return re.sub(r"(?m)^ +# .*$", lambda found: paint(found[0], "dim", on=on), text)


def _broken(line: str, width: int) -> list[str]:
    """A command line in pieces no wider than `width` where words allow, joined by backslashes."""
    words = [shlex.quote(word) if " " in word else word for word in shlex.split(line)]
    lines = [""]
    for word in words:
        longer = f"{lines[-1]} {word}".strip()
        if len(longer) + 2 > width and lines[-1].strip():
            lines[-1] += " \\"
            lines.append(f"    {word}")
        else:
            lines[-1] = longer if len(lines) == 1 else f"{lines[-1]} {word}"
    return lines
