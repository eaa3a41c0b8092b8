"""What a run of the kit found, as data, as JSON and as a page.

This module is loaded in every pytest run, so it needs the standard library only.

The JSON is one object: `format` (1), the fields of `Report`, and `counts`, the number of results
with each outcome. `results` is a list of objects with the fields of `Result`. All of it is ASCII;
what a plugin said comes back unchanged, lone surrogates included.
"""

import json
import math
import os
import secrets
from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any

FORMAT = 1
OUTCOMES = ("passed", "broken", "could not run", "absent")


@dataclass(frozen=True)
class Result:
    """What one check found about one part of a plugin.

    Attributes:
        rule: Short name, such as `model-padding`.
        area: What the rule is about, such as `model`.
        says: The rule in one sentence.
        host: Which rule of the host it follows from, and where in the host that is found.
        part: What was tested; may be empty.
        outcome: One of `OUTCOMES`. `absent`: the plugin declares that it lacks the capability.
        message: What is wrong and where to look, in any number of lines.
        seconds: How long the check took.

    Raises:
        ValueError: A text that is not a string, an unknown outcome, or seconds that are negative
            or not finite.
    """

    rule: str
    area: str
    says: str
    host: str
    part: str
    outcome: str
    message: str
    seconds: float

    def __post_init__(self) -> None:
        for field in fields(self):
            if field.type is str:
                _need_text(getattr(self, field.name), field.name)
        if self.outcome not in OUTCOMES:
            raise ValueError(f"outcome is {self.outcome!r}; it must be one of {OUTCOMES}")
        number = isinstance(self.seconds, (int, float)) and not isinstance(self.seconds, bool)
        if not number or not math.isfinite(self.seconds) or self.seconds < 0:
            raise ValueError(f"seconds is {self.seconds!r}; it must be a finite number >= 0")


@dataclass(frozen=True)
class Report:
    """Everything a run of the kit found about one plugin or package.

    Attributes:
        subject: What was tested: name, kind, distribution and so on.
        versions: Version of each program that took part.
        date: When, in ISO 8601 with the time zone.
        absent: For each capability that the plugin declares absent, its reason.
        results: In the order in which the checks ran.

    Raises:
        ValueError: A mapping that is not from strings to strings, a result that is not a
            `Result`, or a date without a time zone.
    """

    subject: Mapping[str, str]
    versions: Mapping[str, str]
    date: str
    absent: Mapping[str, str]
    results: Sequence[Result]

    def __post_init__(self) -> None:
        for name in ("subject", "versions", "absent"):
            mapping = getattr(self, name)
            if not isinstance(mapping, Mapping):
                raise ValueError(f"{name} is {mapping!r}; it must map strings to strings")
            for key, value in mapping.items():
                _need_text(key, f"a key of {name}")
                _need_text(value, f"{name}[{key!r}]")
            object.__setattr__(self, name, dict(mapping))
        object.__setattr__(self, "results", tuple(self.results))
        for result in self.results:
            if not isinstance(result, Result):
                raise ValueError(f"results holds {result!r}; each must be a Result")
        _need_text(self.date, "date")
        if self.when().tzinfo is None:
            raise ValueError(f"date is {self.date!r}; it must name its time zone, such as +00:00")

    def when(self) -> datetime:
        """The date, parsed."""
        return datetime.fromisoformat(self.date)

    def counts(self) -> dict[str, int]:
        """How many results have each outcome, in the order of `OUTCOMES`."""
        outcomes = [result.outcome for result in self.results]
        return {outcome: outcomes.count(outcome) for outcome in OUTCOMES}

    def verdict(self) -> str:
        """The result in one line, such as `3 of 52 checks broken, 1 could not run`.

        Checks of absent capabilities are not among the 52; they are named after a semicolon.
        """
        counts = self.counts()
        absent = counts.pop("absent")
        total = sum(counts.values())
        checks = "1 check" if total == 1 else f"{total} checks"
        failed = [f"{counts[word]} {word}" for word in ("broken", "could not run") if counts[word]]
        if failed:
            number, word = failed[0].split(" ", 1)
            line = ", ".join([f"{number} of {checks} {word}", *failed[1:]])
        elif total:
            line = "The only check passed" if total == 1 else f"All {checks} passed"
        else:
            line = "No check ran"
        return f"{line}; {absent} absent" if absent else line

    def conforms(self) -> bool:
        """Whether a check ran and every check that ran passed."""
        counts = self.counts()
        return counts["passed"] > 0 and not counts["broken"] and not counts["could not run"]

    def to_json(self) -> str:
        """The report in the format that the module describes."""
        content = {"format": FORMAT, **asdict(self), "counts": self.counts()}
        return json.dumps(content, indent=2) + "\n"

    def to_html(self) -> str:
        """The report as one page that needs no other file, no network and no script."""
        # Not at the top: only a run that writes a page needs it, and it imports this module.
        from xlm_mlm.conformance.report_page import page

        return page(self)


def report_format(path: str | os.PathLike[str]) -> str:
    """`html` or `json`, by the suffix of `path` in any case.

    Raises:
        ValueError: Any other suffix.
    """
    suffix = Path(path).suffix
    if suffix.lower() not in (".html", ".json"):
        raise ValueError(
            f"the report's path {os.fspath(path)!r} ends in {suffix!r}; "
            "it must end in .html (a page to read) or .json (data)"
        )
    return suffix.lower()[1:]


def write_report(report: Report, path: str | os.PathLike[str]) -> None:
    """Write `report` as HTML or JSON, by the suffix of `path`.

    Missing folders are made. The file appears whole or not at all: where writing fails, what
    was at `path` before stays.

    Raises:
        ValueError: A suffix that is neither `.html` nor `.json`.
        OSError: The file can't be written.
    """
    text = report.to_html() if report_format(path) == "html" else report.to_json()
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not tempfile: its files are closed to other users, a report is not.
    unfinished = path.with_name(f".xlm-report-{secrets.token_hex(8)}.tmp")
    try:
        unfinished.write_bytes(text.encode())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def read_report(path: str | os.PathLike[str]) -> Report:
    """The report that `write_report` wrote to a `.json` file.

    Raises:
        ValueError: The file is not JSON or not such a report.
        OSError: The file can't be read.
    """
    try:
        return _from_json(json.loads(Path(path).read_text(encoding="utf-8")))
    except ValueError as error:
        raise ValueError(f"{os.fspath(path)!r} is not a conformance report: {error}") from error


def _from_json(content: Any) -> Report:
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = repr(content.get("format")) if isinstance(content, dict) else "none"
        raise ValueError(f"its format is {found}; this version reads format {FORMAT}")
    names = _need_keys(content, Report, "the report", also={"format", "counts"})
    if not isinstance(content["results"], list):
        raise ValueError(f"results is {content['results']!r}; it must be a list")
    results = []
    for number, row in enumerate(content["results"]):
        _need_keys(row, Result, f"results[{number}]")
        results.append(Result(**row))
    report = Report(**{name: content[name] for name in names - {"results"}}, results=results)
    if content["counts"] != report.counts():
        raise ValueError(f"counts is {content['counts']}, but its results give {report.counts()}")
    return report


def _need_text(value: Any, name: str) -> None:
    if not isinstance(value, str):
        raise ValueError(f"{name} is {value!r}; it must be a string")


def _need_keys(row: Any, kind: type, name: str, also: Set[str] = frozenset()) -> set[str]:
    """The field names of `kind`, after checking that `row` has those and `also`."""
    names = {field.name for field in fields(kind)}
    if not isinstance(row, dict):
        raise ValueError(f"{name} is {row!r}; it must be an object")
    if missing := sorted((names | also) - set(row)):
        raise ValueError(f"{name} lacks {missing}")
    if unknown := sorted(set(row) - names - also):
        raise ValueError(f"{name} has the unknown keys {unknown}")
    return names
