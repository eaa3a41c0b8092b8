"""What is tested: a registered plugin, or a package in the host's older layout."""

import importlib.util
from dataclasses import dataclass, field
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

from xlm_mlm.conformance.adapter import load_adapter, setting
from xlm_mlm.entries import Entry, attempt, read_entries
from xlm_mlm.plugin.registry import GROUPS, PLUGINS, read_plugin

HYDRA_PLUGINS = "hydra.plugins"


@dataclass(frozen=True)
class Subject:
    """The plugin under test.

    Attributes:
        name: as it was asked for.
        kind: `plugin` (registered through entry points) or `package` (the older layout).
        distribution: the installed distribution, empty if there is none.
        version: its version.
        packages: the packages and modules that are its own, below those it shares with others.
        config_dirs: its folders of Hydra configs.
        entries: its entry points, in the host's groups and in Hydra's.
        adapter: what it says about itself.
        absent: capability -> reason, of the adapter and of the layout.
        problems: what went wrong when its hooks were called.
    """

    name: str
    kind: str
    distribution: str
    version: str
    packages: tuple[str, ...]
    config_dirs: tuple[Path, ...]
    entries: tuple[Entry, ...] = ()
    adapter: Any = None
    adapter_name: str | None = None
    absent: dict[str, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"

    def describe(self) -> dict[str, str]:
        """What a report says of it."""
        return {
            "name": self.name,
            "kind": self.kind,
            "distribution": self.distribution,
            "version": self.version,
            "packages": ", ".join(self.packages),
            "configs": ", ".join(map(str, self.config_dirs)),
            "adapter": self.adapter_name or "none",
        }

    def owns(self, dotted: str) -> bool:
        """Whether a dotted name or `module:name` is in one of its packages."""
        name = dotted.replace(":", ".")
        return any(name == own or name.startswith(f"{own}.") for own in self.packages)

    def configs(self) -> list[tuple[Path, Path]]:
        """Its YAML files, each with the folder that it is searched in."""
        return [
            (folder, file)
            for folder in self.config_dirs
            for file in sorted(folder.rglob("*.y*ml"))
            if file.suffix in (".yaml", ".yml") and _is_read(file)
        ]

    def experiments(self) -> list[str]:
        """The names of its experiments; folders below `experiment/` hold parts of them."""
        found = [
            path.stem
            for folder in self.config_dirs
            for path in sorted((folder / "experiment").glob("*.yaml"))
            if _is_read(path)
        ]
        return list(dict.fromkeys(found))


def find_plugin(name: str, adapter: str | None = None) -> Subject:
    """The plugin registered as `name` in `xlm.plugins`.

    Raises:
        LookupError: there is none; the message lists those that there are.
        ValueError: its adapter can't be used.
    """
    entries = read_entries([*GROUPS, HYDRA_PLUGINS])
    registered = [entry for entry in entries if entry.group == PLUGINS]
    found = [entry for entry in registered if entry.name == name]
    if not found:
        known = ", ".join(sorted({entry.name for entry in registered})) or "none"
        raise LookupError(
            f"no plugin is registered as {name!r} in {PLUGINS}; registered: {known}. A package "
            "without entry points is tested with --xlm-package"
        )
    own = [entry for entry in entries if entry.origin == found[0].origin]
    contribution = read_plugin(found[0])
    adapter_name = adapter or contribution.adapter
    loaded = load_adapter(adapter_name)
    subject = Subject(
        name=name,
        kind="plugin",
        distribution=found[0].distribution,
        version=found[0].version,
        packages=_packages(found[0].distribution, own, contribution.config_dirs),
        config_dirs=tuple(contribution.config_dirs),
        entries=tuple(own),
        adapter=loaded,
        adapter_name=adapter_name,
        absent=dict(setting(loaded, "absent")),
        problems=tuple(contribution.problems),
    )
    _check_experiments(subject)
    return subject


def find_package(name: str, adapter: str | None = None) -> Subject:
    """A package in the layout that the host looks for: a folder with `configs/`.

    Raises:
        LookupError: there is no such package.
        ValueError: its adapter can't be used.
    """
    # Looking for a package imports those that it is in.
    spec, _ = attempt(lambda: importlib.util.find_spec(name))
    if spec is None or not spec.submodule_search_locations:
        raise LookupError(f"there is no package {name!r} to import; is it installed?")
    folder = Path(next(iter(spec.submodule_search_locations)))
    distribution, its_version = _distribution(name.split(".")[0])
    loaded = load_adapter(adapter)
    layout = {"entry_points": "a package in the older layout, which registers nothing"}
    subject = Subject(
        name=name,
        kind="package",
        distribution=distribution,
        version=its_version,
        packages=(name,),
        config_dirs=(folder / "configs",) if (folder / "configs").is_dir() else (),
        adapter=loaded,
        adapter_name=adapter,
        absent=layout | dict(setting(loaded, "absent")),
    )
    _check_experiments(subject)
    return subject


def _is_read(file: Path) -> bool:
    """Whether Hydra would read a file; editors leave others, whose names begin with a dot."""
    return file.is_file() and not file.name.startswith(".")


def _packages(distribution: str, entries: list[Entry], config_dirs: list[Path]) -> tuple[str, ...]:
    """The packages of a distribution: those it is known to install, names and configs lead to."""
    files = metadata.distribution(distribution).files or []
    installed = {file.parts[0].removesuffix(".py") for file in files if file.suffix == ".py"}
    named = [entry.value.partition(":")[0] for entry in entries]
    beside = [folder.parent.name for folder in config_dirs]
    found = {_below_shared(name) for name in (*installed, *named, *beside)}
    return tuple(sorted(name for name in found if name and name != "hydra_plugins"))


def _below_shared(name: str) -> str:
    """The first part of a dotted name that is no namespace package, which others share."""
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        prefix = ".".join(parts[:end])
        spec, _ = attempt(partial(importlib.util.find_spec, prefix))
        if spec is None:
            return ""
        if spec.origin is not None:
            # A module in a folder without `__init__.py`: what stands beside it is its own as well.
            return (
                prefix
                if spec.submodule_search_locations or end == 1
                else ".".join(parts[: end - 1])
            )
    return ""


def _check_experiments(subject: Subject) -> None:
    """Refuse an adapter that speaks of experiments that there are not."""
    told = {name.partition("@")[0] for name in setting(subject.adapter, "experiments")}
    if unknown := sorted(told - set(subject.experiments())):
        raise ValueError(
            f"`experiments` of {subject.adapter_name} names {', '.join(unknown)}; the experiments "
            f"are {', '.join(subject.experiments()) or 'none'}"
        )


def _distribution(package: str) -> tuple[str, str]:
    found = metadata.packages_distributions().get(package)
    if not found:
        return "", ""
    try:
        return found[0], metadata.version(found[0])
    except metadata.PackageNotFoundError:
        return found[0], ""
