"""What is installed: components by short name, and what the `xlm.plugins` modules bring.

Nothing is imported before it is asked for, and nobody's broken package stops the rest.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from itertools import groupby
from pathlib import Path
from typing import Any

import pluggy

from xlm_mlm.entries import Entry, attempt, describe, logger, read_entries
from xlm_mlm.plugin import hookspecs
from xlm_mlm.plugin.interfaces import INTERFACES

PLUGINS = "xlm.plugins"
GROUPS = (PLUGINS, *INTERFACES)
_TARGET = re.compile(r"[^\W\d][\w.]*:[^\W\d][\w.]*")


@dataclass(frozen=True)
class Component:
    """One installed component.

    Attributes:
        entry: its entry point.
        shadowed_by: the distribution whose component of the same name is used instead.
        error: why it is of no use; None if it loads, or was not loaded.
    """

    entry: Entry
    shadowed_by: str | None = None
    error: str | None = None


@dataclass(frozen=True)
class JobType:
    """A job type of a plugin; its module is imported when the job runs.

    A plain object rather than a closure, so that launchers can send it to other processes.

    Attributes:
        name: the value of `job_type`.
        target: the function, as `module:function`.
        origin: the distribution that brings it, and its version.
    """

    name: str
    target: str
    origin: str

    def __call__(self, cfg: Any) -> Any:
        """Import the function and call it with the composed config.

        Raises:
            ImportError: there is no such function; the message says who promised it.
        """
        module, _, path = self.target.partition(":")
        try:
            function: Any = import_module(module)
            for attribute in path.split("."):
                function = getattr(function, attribute)
        except (ImportError, AttributeError) as error:
            raise ImportError(
                f"job_type={self.name} is {self.target} of {self.origin}, which can't be "
                f"imported: {describe(error)}"
            ) from error
        return function(cfg)


@dataclass
class Contribution:
    """What one `xlm.plugins` module brings to the host, and what is wrong with it."""

    entry: Entry
    config_dirs: list[Path] = field(default_factory=list)
    job_types: list[JobType] = field(default_factory=list)
    adapter: str | None = None
    problems: list[str] = field(default_factory=list)


def installed(*, load: bool = False) -> list[Component]:
    """Every component of every group, in a fixed order.

    Args:
        load: import each and check it against its interface, noting in `error` what is wrong.
            Otherwise nothing is imported.
    """
    components = []
    for namesakes in _by_name(read_entries(GROUPS)):
        first = namesakes[0]
        for entry in namesakes:
            shadow = None if entry is first or entry.group == PLUGINS else first.origin
            components.append(Component(entry, shadow, error_of(entry) if load else None))
    return components


def error_of(entry: Entry) -> str | None:
    """Import one component and check it; what is wrong with it, in one line."""
    if entry.group == PLUGINS:
        return "; ".join(read_plugin(entry).problems) or None
    return attempt(lambda: _load(entry))[1]


def resolve(group: str, name: str) -> type:
    """The class registered under a short name.

    Args:
        group: `xlm.models`, `xlm.losses`, `xlm.predictors`, `xlm.collators`, `xlm.history` or
            `xlm_mlm.samplers`; or the kind: `model`, `loss`, `predictor`, `collator`, `history`,
            `sampler`.
        name: the short name.

    Raises:
        ValueError: no such group, or the class does not fill the host's interface.
        Exception: whatever importing the class's module raises.
        KeyError: no such name; the message lists the known ones.
    """
    group = _group(group)
    entries = read_entries([group])
    namesakes = [entry for entry in entries if entry.name == name]
    if not namesakes:
        known = ", ".join(sorted({entry.name for entry in entries})) or "none"
        raise KeyError(f"{name!r} is not installed in {group}; known names: {known}")
    _warn_of_namesakes(namesakes, f"that of {namesakes[0].origin} is used")
    return _load(namesakes[0])


def contributions() -> list[Contribution]:
    """What the installed plugins bring to the host: ours first, then the others by name.

    Each plugin that has something wrong with it costs one warning and keeps what is right.
    """
    entries = read_entries([PLUGINS])
    for namesakes in _by_name(entries):
        # The name is a mere label here: nothing need be lost.
        _warn_of_namesakes(namesakes, "both are loaded")
    found = [read_plugin(entry) for entry in entries]
    found.sort(key=lambda contribution: not contribution.entry.ours)  # stable
    _drop_repeated_job_types(found)
    for contribution in found:
        if contribution.problems:
            logger.warning("%s", _complaint(contribution))
    return found


def read_plugin(entry: Entry) -> Contribution:
    """Import one plugin and call its hooks; whatever goes wrong is noted, not raised."""
    contribution = Contribution(entry)
    # A manager of its own for each: an exception in one hook would end the call for all.
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    plugin, problem = attempt(entry.load)
    if not problem:
        _, problem = attempt(lambda: manager.register(plugin))
    if problem:
        contribution.problems.append(problem)
        return contribution
    for hook, keep in _HOOKS.items():
        _, problem = attempt(partial(_call, getattr(manager.hook, hook), keep, contribution))
        if problem:
            contribution.problems.append(f"{hook}() failed: {problem}")
    return contribution


def _call(hook: Callable[[], list[Any]], keep: Any, contribution: Contribution) -> None:
    for result in hook():
        keep(contribution, result)


def _keep_folders(contribution: Contribution, folders: Any) -> None:
    if isinstance(folders, str) or not isinstance(folders, Sequence):
        raise ValueError(f"it returned {folders!r}; it must return a list of folders")
    for folder in map(Path, folders):
        if folder.is_dir():
            contribution.config_dirs.append(folder.absolute())
        else:
            contribution.problems.append(f"xlm_config_dirs() names {folder}, which is no folder")


def _keep_job_types(contribution: Contribution, commands: Any) -> None:
    if not isinstance(commands, Mapping):
        raise ValueError(f"it returned {commands!r}; it must return {{name: 'module:function'}}")
    for name, target in commands.items():
        if isinstance(name, str) and isinstance(target, str) and _TARGET.fullmatch(target):
            job_type = JobType(name, target, contribution.entry.origin)
            contribution.job_types.append(job_type)
        else:
            contribution.problems.append(
                f"xlm_commands() gives {name!r}: {target!r}, which is not name: 'module:function'"
            )


def _keep_adapter(contribution: Contribution, adapter: Any) -> None:
    if not isinstance(adapter, str) or not _TARGET.fullmatch(adapter):
        raise ValueError(f"it returned {adapter!r}; it must return 'module:object'")
    contribution.adapter = adapter


_HOOKS = {
    "xlm_config_dirs": _keep_folders,
    "xlm_commands": _keep_job_types,
    "xlm_conformance_adapter": _keep_adapter,
}


def _drop_repeated_job_types(found: list[Contribution]) -> None:
    taken: dict[str, JobType] = {}
    for contribution in found:
        kept = []
        for job_type in contribution.job_types:
            first = taken.setdefault(job_type.name, job_type)
            if first is job_type:
                kept.append(job_type)
            elif first.target != job_type.target:
                contribution.problems.append(
                    f"job_type={job_type.name} is already that of {first.origin}, which is kept"
                )
        contribution.job_types = kept


def _group(group: str) -> str:
    kinds = {interface.kind: name for name, interface in INTERFACES.items()}
    found = kinds.get(group, group)
    if found not in INTERFACES:
        known = ", ".join(f"{name} ({kind})" for kind, name in kinds.items())
        raise ValueError(f"{group!r} is no group of components; the groups: {known}")
    return found


def _load(entry: Entry) -> type:
    """The class of an entry, checked.

    Raises:
        ValueError: it does not fill the interface; the message names the distribution.
    """
    candidate = entry.load()
    try:
        return INTERFACES[entry.group].check(candidate)
    except ValueError as error:
        raise ValueError(f"{entry.name} in {entry.group}, of {entry.origin}: {error}") from None


def _complaint(contribution: Contribution) -> str:
    entry = contribution.entry
    problems = "; ".join(contribution.problems)
    return f"plugin {entry.name!r} ({entry.value}) of {entry.origin}: {problems}"


def _by_name(entries: list[Entry]) -> list[list[Entry]]:
    keyed = groupby(entries, key=lambda entry: (entry.group, entry.name))
    return [list(namesakes) for _, namesakes in keyed]


def _warn_of_namesakes(namesakes: list[Entry], outcome: str) -> None:
    first = namesakes[0]
    for other in namesakes[1:]:
        logger.warning(
            "%r of %s is installed twice, by %s and by %s; %s",
            *(first.name, first.group, first.origin, other.origin, outcome),
        )
