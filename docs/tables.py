"""Makes the tables of `conformance.md`: `python docs/tables.py [REPORT.json ...]`.

The rules come from the kit, and the results from reports that `--xlm-report` wrote, in their
order. Both are written between the markers of the page; without reports, the rules alone.
"""

import re
import sys
from pathlib import Path

import xlm_mlm.conformance.checks  # noqa: F401 - registers the rules
from xlm_mlm.conformance.adapter import CAPABILITIES
from xlm_mlm.conformance.report import Report, read_report
from xlm_mlm.conformance.rules import RULES

PAGE = Path(__file__).parent / "conformance.md"
# The worst that happened to any part is what the table shows.
WORST = ("broken", "could not run", "passed", "absent")
WORDS = {"broken": "**broken**", "could not run": "**not run**", "passed": "ok", "absent": "absent"}


def rules_table() -> str:
    """Every rule: its name, what it says, where it comes from, what may be declared absent."""
    lines = ["| rule | says | comes from | unless absent |", "|---|---|---|---|"]
    for rule in RULES.values():
        needs = ", ".join(f"`{need}`" for need in rule.needs)
        lines.append(f"| `{rule.name}` | {_cell(rule.says)} | {_cell(rule.host)} | {needs} |")
    return "\n".join(lines)


def capabilities_table() -> str:
    """What a family may declare absent."""
    lines = ["| capability | the plugin has it if |", "|---|---|"]
    lines += [f"| `{name}` | {_cell(text)} |" for name, text in CAPABILITIES.items()]
    return "\n".join(lines)


def results_table(reports: list[Report]) -> str:
    """One row a rule, one column a plugin, and what was found below."""
    heads = [f"`{r.subject['name']}` of {r.subject['distribution']}" for r in reports]
    lines = [f"| rule | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for name in RULES:
        cells = [WORDS[outcome] if (outcome := _worst(r, name)) else "" for r in reports]
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    counts = [report.counts() for report in reports]
    for outcome in WORST:
        numbers = " | ".join(str(count[outcome]) for count in counts)
        lines.append(f"| checks: {outcome} | {numbers} |")
    return "\n\n".join(["\n".join(lines), _versions(reports), *map(_findings, reports)])


def _worst(report: Report, rule: str) -> str | None:
    outcomes = {result.outcome for result in report.results if result.rule == rule}
    return next((outcome for outcome in WORST if outcome in outcomes), None)


def _versions(reports: list[Report]) -> str:
    tested = {
        f"{report.subject['name']} of {report.subject['distribution']} {report.subject['version']}"
        for report in reports
    }
    versions = ", ".join(
        f"{name} {version}" for name, version in reports[0].versions.items() if name != "platform"
    )
    return f"{reports[0].date[:10]}: {', '.join(sorted(tested))}; with {versions}."


def _findings(report: Report) -> str:
    """The first line of each message, once, with the rules and how often it was found."""
    found: dict[str, dict[str, int]] = {}
    for result in report.results:
        if result.outcome in ("broken", "could not run"):
            what = _short(result.message.splitlines()[0].removeprefix(f"{result.part}: "))
            rules = found.setdefault(what, {})
            rules[result.rule] = rules.get(result.rule, 0) + 1
    lines = [
        f"- {', '.join(f'`{rule}`' for rule in rules)}: {_cell(what)}"
        f"{f' ({sum(rules.values())} checks)' if sum(rules.values()) > 1 else ''}"
        for what, rules in found.items()
    ]
    name = f"{report.subject['name']} of {report.subject['distribution']}"
    return "\n".join([f"### {name}", "", *(lines or ["Nothing."])])


def _short(message: str, limit: int = 300) -> str:
    message = re.sub(r"/\S*/site-packages/", "", message)
    return message if len(message) <= limit else f"{message[:limit]} ..."


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def between(page: str, name: str, text: str) -> str:
    """`page` with what stands between the markers of `name` replaced.

    Raises:
        ValueError: the page has no such markers.
    """
    start, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    if page.count(start) != 1 or page.count(end) != 1:
        raise ValueError(f"{PAGE.name} must have {start} and {end}, once each")
    before, _, rest = page.partition(start)
    return f"{before}{start}\n{text}\n{end}{rest.partition(end)[2]}"


def main(paths: list[str]) -> None:
    """Write the tables into the page."""
    page = between(PAGE.read_text(encoding="utf-8"), "rules", rules_table())
    page = between(page, "capabilities", capabilities_table())
    if paths:
        page = between(page, "results", results_table([read_report(path) for path in paths]))
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
