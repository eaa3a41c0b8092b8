"""What is tested: a registered plugin, or a package in the host's older layout."""

import importlib.util
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path
from typing import Any

from xlm_mlm.conformance.adapter import load_adapter, setting
from xlm_mlm.plugin.entries import Entry, read_entries
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
        packages: the top-level packages that are its own.
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
        """Whether a dotted name or `module:name` is of one of its packages."""
        return dotted.replace(":", ".").partition(".")[0] in self.packages

    def configs(self) -> list[tuple[Path, Path]]:
        """Its YAML files, each with the folder that it is searched in."""
        return [
            (folder, file)
            for folder in self.config_dirs
            for file in sorted(folder.rglob("*.y*ml"))
            if file.suffix in (".yaml", ".yml")
        ]

    def experiments(self) -> list[str]:
        """The names of its experiments; folders below `experiment/` hold parts of them."""
        found = [
            path.stem
            for folder in self.config_dirs
            for path in sorted((folder / "experiment").glob("*.yaml"))
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
    return Subject(
        name=name,
        kind="plugin",
        distribution=found[0].distribution,
        version=found[0].version,
        packages=tuple(sorted({entry.value.partition(":")[0].split(".")[0] for entry in own})),
        config_dirs=tuple(contribution.config_dirs),
        entries=tuple(own),
        adapter=loaded,
        adapter_name=adapter_name,
        absent=dict(setting(loaded, "absent")),
        problems=tuple(contribution.problems),
    )


def find_package(name: str, adapter: str | None = None) -> Subject:
    """A package in the layout that the host looks for: a folder with `configs/`.

    Raises:
        LookupError: there is no such package.
        ValueError: its adapter can't be used.
    """
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise LookupError(f"there is no package {name!r} to import; is it installed?")
    folder = Path(next(iter(spec.submodule_search_locations)))
    distribution, its_version = _distribution(name.split(".")[0])
    loaded = load_adapter(adapter)
    layout = {"entry_points": "a package in the older layout, which registers nothing"}
    return Subject(
        name=name,
        kind="package",
        distribution=distribution,
        version=its_version,
        packages=(name.split(".")[0],),
        config_dirs=(folder / "configs",) if (folder / "configs").is_dir() else (),
        adapter=loaded,
        adapter_name=adapter,
        absent=layout | dict(setting(loaded, "absent")),
    )


def _distribution(package: str) -> tuple[str, str]:
    found = packages_distributions().get(package)
    if not found:
        return "", ""
    try:
        return found[0], version(found[0])
    except PackageNotFoundError:
        return found[0], ""
