"""`xlm-mlm doctor`: does everything work together here, and if not, what mends it."""

import json
import sys
import textwrap
from functools import partial
from itertools import groupby
from typing import Annotated

import typer

from xlm_mlm.commands.diagnosis.findings import Finding, examine
from xlm_mlm.commands.terminal import coloured, columns, paint

# Seconds for everything that is imported; a sound installation takes about 8.
_LIMIT = 60.0
_STYLES = {"ok": ("green",), "note": ("yellow",), "problem": ("bold", "red")}
_MARGIN = 9  # columns of "problem" and what stands around it


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """Examine the installation, and say what mends each problem.

    Versions and pins, whether the host starts and finds our configs, which folders it searches and
    who wins, plugins that do not load, the device, variables and files that interfere.

    The exit code is 1 if there is a problem; notes do no harm.
    """
    waiting = "importing everything ..." if sys.stderr.isatty() else ""
    print(waiting, end="\r" if waiting else "", file=sys.stderr, flush=True)
    findings = diagnose(_LIMIT)
    print(" " * len(waiting), end="\r" if waiting else "", file=sys.stderr, flush=True)
    typer.echo(_json(findings) if as_json else _text(findings, coloured(sys.stdout)))
    if any(finding.level == "problem" for finding in findings):
        raise typer.Exit(1)


def diagnose(limit: float) -> list[Finding]:
    """Look at everything.

    Args:
        limit: seconds for what is imported, which happens in another process.
    """
    from xlm_mlm.commands.diagnosis import host, machine, packages, surroundings
    from xlm_mlm.commands.diagnosis.child import Answers, ask
    from xlm_mlm.entries import attempt

    answers, failure = attempt(lambda: ask(limit))
    told = answers or Answers()
    findings = [
        *examine("versions", packages.version_findings),
        *examine("pins", packages.pin_findings),
        *examine("host", partial(host.host_findings, told)),
        *examine("discovery", partial(host.discovery_findings, told)),
        *examine("plugins", partial(host.plugin_findings, told)),
        *examine("device", partial(machine.device_findings, told)),
        *examine("command", surroundings.command_findings),
        *examine("variables", partial(surroundings.variable_findings, told)),
        *examine("folder", surroundings.folder_findings),
    ]
    if failure:
        text = f"no other Python could be started to import things: {failure}"
        findings.insert(0, Finding("versions", "problem", text, f"see that {sys.executable} runs"))
    return findings


def _json(findings: list[Finding]) -> str:
    from xlm_mlm.commands.diagnosis.packages import versions

    levels = [finding.level for finding in findings]
    report = {
        "problems": levels.count("problem"),
        "notes": levels.count("note"),
        "versions": versions(),
        "findings": [
            {
                "check": finding.check,
                "level": finding.level,
                "text": finding.text,
                "fix": finding.fix,
                "details": list(finding.details),
            }
            for finding in findings
        ],
    }
    return json.dumps(report, indent=2)


def _text(findings: list[Finding], colours: bool) -> str:
    lines: list[str] = []
    for check, group in groupby(findings, key=lambda finding: finding.check):
        lines.append(paint(check, "bold", on=colours))
        for finding in group:
            lines += _lines(finding, colours)
        lines.append("")
    levels = [finding.level for finding in findings]
    problems, notes = levels.count("problem"), levels.count("note")
    ending = f"{_counted(problems, 'problem')}, {_counted(notes, 'note')}"
    style = _STYLES["problem" if problems else "ok"]
    return "\n".join([*lines, paint(ending, *style, on=colours)])


def _counted(number: int, noun: str) -> str:
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"


def _lines(finding: Finding, colours: bool) -> list[str]:
    level = finding.level
    mark = paint(f"{level:<7}", *_STYLES[level], on=colours)
    first, *rest = _wrapped(finding.text)
    margin = " " * _MARGIN
    lines = [f" {mark} {first}", *(margin + line for line in rest)]
    for detail in finding.details:
        lines += [paint(margin + line, "dim", on=colours) for line in _wrapped(detail, "   ")]
    if finding.fix:
        first, *rest = _wrapped(finding.fix, "  ")
        arrow = paint("->", *_STYLES[level], on=colours)
        lines += [f"{margin}{arrow} {first}", *(f"{margin} {line}" for line in rest)]
    return lines


def _wrapped(text: str, hang: str = "") -> list[str]:
    """Lines for the terminal; what stands between backticks stays in one piece, to be copied."""
    # On a pipe, one line each: programs that search want whole sentences.
    width = columns() - _MARGIN - 3 if sys.stdout.isatty() else 10_000
    pieces = text.split("`")
    pieces[1::2] = [piece.replace(" ", "\0") for piece in pieces[1::2]]
    wrapped = textwrap.wrap(
        "`".join(pieces),
        max(width, 16),
        subsequent_indent=hang,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [line.replace("\0", " ") for line in wrapped] or [""]
