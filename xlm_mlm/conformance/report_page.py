"""The report as a page: fragments of HTML put into the skeleton `report.html`.

Everything in a report may come from a plugin, so every text goes through `_text`.
"""

import html
import unicodedata
from collections.abc import Mapping, Sequence
from importlib.resources import files
from string import Template

from xlm_mlm.conformance.report import OUTCOMES, Report, Result

SYMBOLS = {"passed": "✓", "broken": "✗", "could not run": "!", "absent": "○"}
FAILING = ("broken", "could not run")
# The order to read in: what to act on comes first.
READING_ORDER = (*FAILING, "absent", "passed")
_OVERRIDES = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


def page(report: Report) -> str:
    """The whole page."""
    skeleton = Template(files(__package__).joinpath("report.html").read_text(encoding="utf-8"))
    areas = _by_area(report.results)
    return skeleton.substitute(
        name=_text(report.subject.get("name", "unnamed")),
        verdict=_text(report.verdict()),
        verdict_class="passed" if report.conforms() else "broken",
        verdict_symbol=SYMBOLS["passed" if report.conforms() else "broken"],
        date=_text(report.date),
        date_shown=_text(f"{report.when():%Y-%m-%d %H:%M %Z}"),
        subject=_pairs(report.subject),
        versions=_pairs(report.versions),
        absent=_absent(report.absent),
        overview=_overview(areas, report.counts()),
        filters=_filters(report.counts()),
        areas="\n".join(_area(number, *item) for number, item in enumerate(areas.items())),
    )


def _by_area(results: Sequence[Result]) -> dict[str, list[Result]]:
    """The results of each area in reading order; areas as they first appear."""
    areas: dict[str, list[Result]] = {}
    for result in sorted(results, key=lambda each: READING_ORDER.index(each.outcome)):
        areas.setdefault(result.area, []).append(result)
    order = dict.fromkeys(result.area for result in results)
    return {area: areas[area] for area in order}


def _pairs(mapping: Mapping[str, str]) -> str:
    rows = (f"<dt>{_text(key)}</dt><dd>{_text(value)}</dd>" for key, value in mapping.items())
    return f"<dl>{''.join(rows)}</dl>" if mapping else "<p>None.</p>"


def _absent(absent: Mapping[str, str]) -> str:
    if not absent:
        return ""
    head = "<h2>Capabilities that are absent</h2>"
    return f'<section class="fact">{head}{_pairs(absent)}</section>'


def _overview(areas: Mapping[str, list[Result]], counts: Mapping[str, int]) -> str:
    """A table of areas and outcomes, which is also the way to each area."""
    head = "".join(f'<th scope="col">{_outcome(word)}</th>' for word in OUTCOMES)
    rows = []
    for number, (area, results) in enumerate(areas.items()):
        outcomes = [result.outcome for result in results]
        cells = "".join(_cell(word, outcomes.count(word)) for word in OUTCOMES)
        link = f'<a href="#area-{number}">{_text(area)}</a>'
        rows.append(f'<tr><th scope="row">{link}</th>{cells}</tr>')
    total = "".join(_cell(word, counts[word]) for word in OUTCOMES)
    return (
        f'<table><thead><tr><th scope="col">area</th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody>"
        f'<tfoot><tr><th scope="row">all</th>{total}</tr></tfoot></table>'
    )


def _cell(word: str, count: int) -> str:
    return f'<td class="{_class(word) if count else "none"}">{count}</td>'


def _filters(counts: Mapping[str, int]) -> str:
    """Radio buttons that the style sheet reads, so that they work without a script."""
    choices = {
        "all": sum(counts.values()),
        "failing": sum(counts[word] for word in FAILING),
        "absent": counts["absent"],
    }
    shown = {choice: count for choice, count in choices.items() if count}
    if len(shown) < 2:
        return ""
    buttons = "".join(
        f'<label><input type="radio" name="show" id="show-{choice}"'
        f"{' checked' if choice == 'all' else ''}><span>{choice} <b>{count}</b></span></label>"
        for choice, count in shown.items()
    )
    return f'<fieldset class="filters"><legend>Show</legend>{buttons}</fieldset>'


def _area(number: int, area: str, results: Sequence[Result]) -> str:
    passed = [result for result in results if result.outcome == "passed"]
    others = [result for result in results if result.outcome != "passed"]
    body = "".join(map(_result, others))
    passes = "".join(map(_result, passed))
    if passed:
        summary = f"<summary>{_outcome('passed')} <b>{len(passed)}</b></summary>"
        passes = f'<details class="passes">{summary}{passes}</details>'
    kinds = {"failing" if each.outcome in FAILING else each.outcome for each in results}
    marks = " ".join(f"has-{kind}" for kind in sorted(kinds))
    return (
        f'<section class="area {marks}" id="area-{number}"><h2>{_text(area)}</h2>'
        f"{body}{passes}</section>"
    )


def _result(result: Result) -> str:
    message = result.message.strip("\n")
    part = f"<dt>tested</dt><dd><code>{_text(result.part)}</code></dd>" if result.part else ""
    host = f"<dt>host</dt><dd>{_text(result.host)}</dd>" if result.host else ""
    return (
        f'<article class="result {_class(result.outcome)}">'
        f"<header>{_outcome(result.outcome)}<h3><code>{_text(result.rule)}</code></h3>"
        f'<span class="seconds">{result.seconds:.2f} s</span></header>'
        f'<p class="says">{_text(result.says)}</p>'
        f"{f'<pre>{_text(message)}</pre>' if message else ''}"
        f"<dl>{part}{host}</dl></article>"
    )


def _outcome(word: str) -> str:
    symbol = f'<span aria-hidden="true">{SYMBOLS[word]}</span>'
    return f'<span class="outcome {_class(word)}">{symbol} {word}</span>'


def _class(outcome: str) -> str:
    return outcome.replace(" ", "-")


def _text(text: str) -> str:
    """`text` for HTML; what HTML can't hold or would reorder the line is shown as an escape."""
    text = text.replace("\r\n", "\n")
    return html.escape("".join(char if _shows(char) else _escape(char) for char in text))


def _shows(char: str) -> bool:
    if unicodedata.category(char) in ("Cc", "Cs"):
        return char in "\n\t"
    return unicodedata.bidirectional(char) not in _OVERRIDES


def _escape(char: str) -> str:
    return f"\\x{ord(char):02x}" if ord(char) < 256 else f"\\u{ord(char):04x}"
