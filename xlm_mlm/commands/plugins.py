"""`xlm-mlm plugins`: what is installed, and what is wrong with it."""

import json
import sys
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from xlm_mlm.plugin.registry import Component

_COLUMNS = ("GROUP", "NAME", "CLASS", "DISTRIBUTION", "VERSION")


def plugins(
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a JSON list instead of a table.")
    ] = False,
) -> None:
    """List the installed components, loading each.

    Below a component stands what is wrong with it, if anything; the exit code is then 1.
    """
    from xlm_mlm.plugin.registry import installed

    # What an imported package prints must not end up in the output.
    with redirect_stdout(sys.stderr):
        components = installed(load=True)
    typer.echo(_json(components) if as_json else _table(components))
    if any(component.error for component in components):
        raise typer.Exit(1)


def _json(components: "list[Component]") -> str:
    keys = [column.lower() for column in _COLUMNS] + ["shadowed_by", "error"]
    rows = [(*_cells(each), each.shadowed_by, each.error) for each in components]
    return json.dumps([dict(zip(keys, row, strict=True)) for row in rows], indent=2)


def _table(components: "list[Component]") -> str:
    rows = [_cells(component) for component in components]
    widths = [max(map(len, column)) for column in zip(_COLUMNS, *rows, strict=True)]
    lines = [_line(_COLUMNS, widths)]
    for component, row in zip(components, rows, strict=True):
        lines.append(_line(row, widths))
        if component.shadowed_by:
            lines.append(f"    not used: {component.shadowed_by} brings the same name")
        if component.error:
            lines.append(f"    error: {component.error}")
    return "\n".join(lines)


def _cells(component: "Component") -> tuple[str, ...]:
    entry = component.entry
    return entry.group, entry.name, entry.value, entry.distribution, entry.version


def _line(cells: tuple[str, ...], widths: list[int]) -> str:
    return "  ".join(map(str.ljust, cells, widths)).rstrip()
