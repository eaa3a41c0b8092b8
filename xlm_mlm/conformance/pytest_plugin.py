"""The options of pytest, and the report. Loaded in every pytest run, and inert unless asked.

`pytest --pyargs xlm_mlm.conformance --xlm-plugin NAME`
"""

from datetime import datetime
from functools import cached_property
from typing import Any

import pytest

from xlm_mlm.conformance.report import Report, Result, report_format, write_report

PROPERTY = "xlm_conformance"
KIT = pytest.StashKey["Kit"]()


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
    """Join in if there is a plugin to test.

    Raises:
        pytest.UsageError: the options contradict each other or name nothing that is installed.
    """
    asked = {name: config.getoption(f"xlm_{name}") for name in ("plugin", "package")}
    report = config.getoption("xlm_report")
    if all(asked.values()):
        raise pytest.UsageError("--xlm-plugin and --xlm-package are two ways to say what to test")
    if report:
        try:
            report_format(report)
        except ValueError as error:
            raise pytest.UsageError(f"--xlm-report: {error}") from error
    if any(asked.values()):
        config.stash[KIT] = Kit(config)
        config.pluginmanager.register(config.stash[KIT], "xlm-conformance-kit")
    elif report or config.getoption("xlm_adapter") or _is_named(config):
        raise pytest.UsageError(_SAY_WHAT)


def _is_named(config: pytest.Config) -> bool:
    named = (str(arg).partition("::")[0] for arg in config.invocation_params.args)
    return bool(config.option.pyargs) and __package__ in named


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each rule and part."""
    if "xlm_check" not in metafunc.fixturenames:
        return
    kit = metafunc.config.stash.get(KIT, None)
    if kit is None:
        raise pytest.UsageError(_SAY_WHAT)
    checks = kit.survey.checks()
    metafunc.parametrize("xlm_check", checks, ids=list(map(str, checks)))


_COMMAND = "pytest --pyargs xlm_mlm.conformance --xlm-plugin NAME"
_SAY_WHAT = (
    "say what to test: --xlm-plugin NAME, or --xlm-package PKG; `xlm-mlm plugins` lists the names"
)


class Kit:
    """One run: the plugin under test and what was found.

    Attributes:
        subject: the plugin.
        results: one for each check that was made, in order.
        unwritten: why there is no report, if one was asked for and can't be written.

    Raises:
        pytest.UsageError: there is no such plugin, or its adapter can't be used.
    """

    def __init__(self, config: pytest.Config) -> None:
        from xlm_mlm.conformance.subject import find_package, find_plugin

        self.config = config
        self.results: list[Result] = []
        self.unwritten = ""
        plugin, package = (config.getoption(f"xlm_{name}") for name in ("plugin", "package"))
        try:
            find = find_plugin if plugin else find_package
            self.subject = find(plugin or package, config.getoption("xlm_adapter"))
        except (LookupError, ValueError) as error:
            raise pytest.UsageError(str(error)) from error
        # Whatever the project in whose folder this runs calls its own tests.
        config.addinivalue_line("python_files", "test_conformance.py")
        config.addinivalue_line("python_functions", "test_conforms")
        # Those of torch and of the host say nothing about the plugin.
        config.addinivalue_line("filterwarnings", "ignore::DeprecationWarning")

    @cached_property
    def survey(self) -> Any:
        """What there is to check."""
        # These import torch and the host, so only when the tests are collected.
        from xlm_mlm.conformance import checks  # noqa: F401 - registers the rules
        from xlm_mlm.conformance.isolated import in_child
        from xlm_mlm.conformance.survey import survey

        def look() -> Any:
            found = survey(self.subject)
            found.warm()
            return found

        # Once in another process: a module that crashes or hangs must not take this one along.
        try:
            in_child(lambda: bool(look()))
        except Exception as error:
            raise pytest.UsageError(
                f"{self.subject} can't be looked into; importing what its configs name ended the "
                f"process: it {error}"
            ) from error
        return look()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the result of a check; it travels with the report, from other processes too."""
        if report.when == "call":
            for key, value in report.user_properties:
                if key == PROPERTY and isinstance(value, dict):
                    self.results.append(Result(**value))

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write the report, if one was asked for and there is something to report."""
        path = self.config.getoption("xlm_report")
        if path and self.results and not hasattr(self.config, "workerinput"):
            try:
                write_report(self.report(), path)
            except OSError as error:
                self.unwritten = f"the report could not be written to {path}: {error}"
                session.exitstatus = pytest.ExitCode.INTERNAL_ERROR

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Say in one line what came out, and where the report is."""
        if not self.results:
            if not self.config.option.collectonly:
                terminalreporter.line(f"no check of {self.subject} was made; see {_COMMAND}")
            return
        terminalreporter.section("conformance")
        terminalreporter.line(f"{self.subject}: {self.report().verdict()}")
        if self.unwritten:
            terminalreporter.line(self.unwritten, red=True)
        elif self.config.getoption("xlm_report"):
            terminalreporter.line(f"report: {self.config.getoption('xlm_report')}")

    def report(self) -> Report:
        """What was found so far."""
        from xlm_mlm.conformance.versions import installed_versions

        return Report(
            subject=self.subject.describe(),
            versions=installed_versions(),
            date=datetime.now().astimezone().isoformat(timespec="seconds"),
            absent=dict(self.survey.absent),
            results=tuple(self.results),
        )
