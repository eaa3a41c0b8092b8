"""Which versions are installed, and whether they are those that work together."""

import platform
import sys
from collections.abc import Iterator
from functools import partial
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import xlm_mlm
from xlm_mlm.commands.diagnosis.findings import Finding, Level
from xlm_mlm.entries import attempt

OURS, HOST = "xlm-mlm", "xlm-core"
_LISTED = (
    *(OURS, HOST, "torch", "transformers", "hydra-core", "omegaconf", "lightning", "pluggy"),
    *("jaxtyping", "datasets", "tokenizers", "safetensors", "numpy", "pyarrow", "typer"),
    "xlm-models",
)


def versions() -> dict[str, str | None]:
    """The installed version of each package that matters; None for one that is not there."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    return found | {name: _version(name) for name in _LISTED}


def version_findings() -> Iterator[Finding]:
    """The versions in one line, and metadata that can't be right."""
    found = versions()
    present = [f"{name} {version}" for name, version in found.items() if version]
    yield Finding("versions", "ok", ", ".join(present), details=(f"Python: {sys.executable}",))
    for name in _LISTED:
        dist, _ = attempt(partial(distribution, name))
        if dist is not None and found[name] is None:
            text = f"the metadata of {name} has no version ({getattr(dist, '_path', '?')})"
            yield Finding("versions", "problem", text, f"`pip install --force-reinstall {name}`")
    told, real = found[OURS], xlm_mlm.__version__
    if told and told != real:
        text = f"xlm-mlm is {real}, but was {told} when it was installed: its entry points are old"
        yield Finding("versions", "problem", text, f"`{_install_ours()}`")


def pin_findings() -> Iterator[Finding]:
    """Each requirement of ours that the installed packages do not meet, then each of the host's."""
    broken = 0
    owners: dict[str, Level] = {OURS: "problem", HOST: "note"}
    for owner, level in owners.items():
        dist, _ = attempt(partial(distribution, owner))
        if dist is None:
            if owner == OURS:
                text = "xlm-mlm can be imported, but is not installed: nothing can find its plugin"
                yield Finding("pins", "problem", text, f"`{_install_ours()}`")
                broken += 1
            continue
        for finding in _broken(dist, owner, level):
            broken += 1
            yield finding
    if not broken:
        yield Finding("pins", "ok", "every requirement of xlm-mlm and xlm-core is met")
    if _version("safe-mol") is None:
        text = "the host's extra for chemistry is not installed; only safe_mlm needs it"
        yield Finding("pins", "note", text, '`pip install "xlm-core[safe]"`')


def _broken(dist: Distribution, owner: str, level: Level) -> Iterator[Finding]:
    from packaging.requirements import Requirement

    for line in dist.requires or ():
        need = Requirement(line)
        if need.marker and not need.marker.evaluate({"extra": ""}):
            continue
        version = _version(need.name)
        if version is None:
            # The host's import, examined elsewhere, shows whether it can do without.
            text = f"{need.name} is not installed; {owner} needs {_range(need) or 'it'}"
        elif not need.specifier.contains(version, prereleases=True):
            text = f"{need.name} {version} is installed; {owner} needs {_range(need)}"
        else:
            continue
        yield Finding("pins", level, text, f"`pip install {_quoted(need)}`")


def _quoted(need: Any) -> str:
    span = _range(need)
    return f'"{need.name}{span}"' if span else need.name


def _range(need: Any) -> str:
    """A specifier in the order in which people write it: from, then below."""
    return ",".join(sorted(map(str, need.specifier), key=lambda part: (part[0] != ">", part)))


def _version(name: str) -> str | None:
    def read() -> str | None:
        try:
            return distribution(name).version
        except PackageNotFoundError:
            return None

    return attempt(read)[0]


def _install_ours() -> str:
    root = Path(xlm_mlm.__file__).parents[1]
    return (
        f"pip install -e {root}" if (root / "pyproject.toml").is_file() else "pip install xlm-mlm"
    )
