"""The entry points of all installed packages, read without importing any of them."""

import logging
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from importlib.metadata import EntryPoint, distributions
from typing import Any, TypeVar

logger = logging.getLogger("xlm_mlm.plugin")

T = TypeVar("T")

_OURS = "xlm-mlm"


@dataclass(frozen=True)
class Entry:
    """One line of a package's entry points.

    Attributes:
        group: the entry-point group, `xlm.losses` for example.
        name: the short name.
        value: where the object is, as `module` or `module:attribute`.
        distribution: the package that brings it.
        version: that package's version.
    """

    group: str
    name: str
    value: str
    distribution: str
    version: str

    @property
    def origin(self) -> str:
        """The distribution and its version, for messages."""
        return f"{self.distribution} {self.version}"

    @property
    def ours(self) -> bool:
        """Whether this package brings it: ours come first where names or folders compete."""
        return _canonical(self.distribution) == _OURS

    def load(self) -> Any:
        """Import the object. Whatever its module raises comes through."""
        return EntryPoint(self.name, self.value, self.group).load()


def read_entries(groups: Collection[str]) -> list[Entry]:
    """All entries of some groups, in an order that does not depend on the file system.

    By group, then by name; of those that share a name, ours comes first, then by distribution.
    A package whose metadata can't be read costs a warning.
    """
    by_distribution: dict[str, list[Entry]] = {}
    for distribution in distributions():
        found, problem = attempt(partial(_entries_of, distribution, groups))
        if problem:
            where = getattr(distribution, "_path", "an installed package")
            logger.warning("ignoring the entry points of %s: %s", where, problem)
        elif found:
            # The first on sys.path is the one that gets imported.
            by_distribution.setdefault(_canonical(found[0].distribution), found)
    return sorted((entry for found in by_distribution.values() for entry in found), key=_rank)


def _entries_of(distribution: Any, groups: Collection[str]) -> list[Entry]:
    points = [point for point in distribution.entry_points if point.group in groups]
    if not points:
        return []  # name and version cost parsing another file
    name, version = distribution.metadata["Name"], distribution.version
    if not name or not version:
        raise ValueError("its metadata has no name or no version")
    return [Entry(point.group, point.name, point.value, name, version) for point in points]


def _rank(entry: Entry) -> tuple[Any, ...]:
    distribution = _canonical(entry.distribution)
    return entry.group, entry.name, not entry.ours, distribution, entry.version, entry.value


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def attempt(action: Callable[[], T]) -> tuple[T | None, str | None]:
    """Run somebody else's code; return its result, or what went wrong in one line.

    Even SystemExit is caught: importing a package must not end the command. Only an interrupt
    by the user comes through.
    """
    try:
        return action(), None
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return None, describe(error)


def describe(error: BaseException) -> str:
    """An exception in one line: its type and its message."""
    text = message_of(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def message_of(error: BaseException) -> str:
    """The message of an exception in one line."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    # str() of a KeyError is the repr of its message.
    bare = isinstance(error, KeyError) and len(error.args) == 1
    try:
        text = str(error.args[0] if bare else error)
    except Exception:
        text = "its message can't be read"
    return " ".join(text.split())
