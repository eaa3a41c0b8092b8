"""The options of pytest, and the report. Loaded in every pytest run, and inert unless asked.

`pytest --pyargs xlm_mlm.conformance --xlm-plugin NAME`
"""

from datetime import datetime
from typing import Any

import pytest

from xlm_mlm.conformance.report import Report, Result, write_report

RESULTS = pytest.StashKey[list[Result]]()
SURVEY = pytest.StashKey[Any]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("xlm", "conformance of an XLM model plugin")
    group.addoption(
        "--xlm-plugin", metavar="NAME", help="test the plugin registered as NAME in xlm.plugins"
    )
    group.addoption(
        "--xlm-package", metavar="PKG", help="test a package with a configs/ folder, unregistered"
    )
    group.addoption(
        "--xlm-adapter",
        metavar="MODULE:OBJECT",
        help="what the configs don't say; instead of that of the plugin's hook",
    )
    group.addoption(
        "--xlm-report", metavar="FILE", help="write a report; FILE ends in .html or .json"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Refuse options that contradict each other."""
    plugin, package = (config.getoption(f"--xlm-{name}") for name in ("plugin", "package"))
    if plugin and package:
        raise pytest.UsageError("--xlm-plugin and --xlm-package are two ways to say what to test")
    report = config.getoption("--xlm-report")
    if report and not report.lower().endswith((".html", ".json")):
        raise pytest.UsageError(f"--xlm-report is {report!r}; it must end in .html or .json")
    config.stash[RESULTS] = []


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each rule and part."""
    if "xlm_check" not in metafunc.fixturenames:
        return
    survey = _survey(metafunc.config)
    checks = survey.checks()
    metafunc.parametrize("xlm_check", checks, ids=[_id(check) for check in checks])


def _id(check: Any) -> str:
    return f"{check.rule.name}: {check.label}" if check.parts else check.rule.name


def _survey(config: pytest.Config) -> Any:
    if SURVEY not in config.stash:
        # These import torch and the host, so only when there is something to test.
        from xlm_mlm.conformance import checks  # noqa: F401 - registers the rules
        from xlm_mlm.conformance.subject import find_package, find_plugin
        from xlm_mlm.conformance.survey import survey

        plugin, package = (config.getoption(f"--xlm-{name}") for name in ("plugin", "package"))
        find = find_plugin if plugin else find_package
        if not (plugin or package):
            raise pytest.UsageError(
                "say what to test: --xlm-plugin NAME, or --xlm-package PKG; `xlm-mlm plugins` "
                "lists the names"
            )
        try:
            subject = find(plugin or package, config.getoption("--xlm-adapter"))
        except (LookupError, ValueError) as error:
            raise pytest.UsageError(str(error)) from error
        config.stash[SURVEY] = survey(subject)
    return config.stash[SURVEY]


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the report, if one was asked for and there is something to report."""
    path = session.config.getoption("--xlm-report")
    results = session.config.stash.get(RESULTS, [])
    if path and results:
        write_report(_report(session.config, results), path)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Say in one line what came out, and where the report is."""
    results = config.stash.get(RESULTS, [])
    if not results:
        return
    report = _report(config, results)
    counts = ", ".join(f"{count} {outcome}" for outcome, count in report.counts().items())
    terminalreporter.section("conformance")
    terminalreporter.line(f"{config.stash[SURVEY].subject}: {counts}")
    if config.getoption("--xlm-report"):
        terminalreporter.line(f"report: {config.getoption('--xlm-report')}")


def _report(config: pytest.Config, results: list[Result]) -> Report:
    from xlm_mlm.conformance.versions import installed_versions

    survey = config.stash[SURVEY]
    subject = survey.subject
    return Report(
        subject={
            "name": subject.name,
            "kind": subject.kind,
            "distribution": subject.distribution,
            "version": subject.version,
            "packages": ", ".join(subject.packages),
            "configs": ", ".join(map(str, subject.config_dirs)),
            "adapter": subject.adapter_name or "none",
        },
        versions=installed_versions(),
        date=datetime.now().astimezone().isoformat(timespec="seconds"),
        absent=dict(survey.absent),
        results=tuple(results),
    )


@pytest.fixture
def xlm_results(request: pytest.FixtureRequest) -> list[Result]:
    """The results so far; a test adds its own."""
    return request.config.stash[RESULTS]
