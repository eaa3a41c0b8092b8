"""Broken plugins: the minimal plugin of the examples, with a line or two replaced."""

import itertools
import json
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fake_packages import Site
from omegaconf import DictConfig, OmegaConf

import xlm_mlm.conformance.checks  # noqa: F401 - registers the rules
from xlm_mlm.conformance.report import Result
from xlm_mlm.conformance.rules import RULES
from xlm_mlm.conformance.subject import Subject, find_plugin
from xlm_mlm.conformance.survey import survey
from xlm_mlm.conformance.wiring import compose

MINIMAL = Path(__file__).parents[1] / "examples" / "minimal_plugin"
_numbers = itertools.count()


@dataclass(frozen=True)
class Mutant:
    """One broken plugin.

    Attributes:
        rule: the rule that it breaks.
        edits: (file below the plugin's package, text that stands there once, its replacement);
            an empty text puts the replacement into a file of its own, or at the end of one.
        says: a part of the message, as a regular expression.
        outcome: what must come out.
        slow: whether checking it takes a process of its own.
        entry_points: further lines of entry points: group -> {name: value}, `PACKAGE` standing
            for the package's name.
    """

    rule: str
    edits: tuple[tuple[str, str, str], ...]
    says: str
    outcome: str = "broken"
    slow: bool = False
    entry_points: tuple[tuple[str, str, str], ...] = ()

    def __str__(self) -> str:
        return f"{self.rule}: {self.edits[0][2].strip()[:50] if self.edits else self.says}"


def edit(file: str, old: str, new: str) -> tuple[str, str, str]:
    return file, old, new


def install(folder: Path, mutant: Mutant | None = None) -> Subject:
    """Put the minimal plugin, broken or not, under a new name into `folder`.

    `folder` must be on `sys.path`.
    """
    number = next(_numbers)
    package, name = f"xlm_minimal_{number}", f"minimal_{number}"
    for source in sorted((MINIMAL / "xlm_minimal").rglob("*")):
        if source.suffix not in (".py", ".yaml"):
            continue
        target = folder / package / source.relative_to(MINIMAL / "xlm_minimal")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(_renamed(source.read_text(), package))
    for file, old, new in mutant.edits if mutant else ():
        _edit(folder / package / file, _renamed(old, package), _renamed(new, package))
    groups = tomllib.loads((MINIMAL / "pyproject.toml").read_text())["project"]["entry-points"]
    points = {
        group: {f"{key}_{number}": _renamed(value, package) for key, value in entries.items()}
        for group, entries in groups.items()
    }
    for group, key, value in mutant.entry_points if mutant else ():
        points.setdefault(group, {})[key] = _renamed(value, package)
    Site(folder).register(f"xlm-minimal-{number}", "1.0", **points)
    return find_plugin(name)


def _renamed(text: str, package: str) -> str:
    return re.sub(r"\bxlm_minimal\b|\bPACKAGE\b", package, text)


def _edit(file: Path, old: str, new: str) -> None:
    if not old:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text((file.read_text() if file.exists() else "") + new)
        return
    text = file.read_text()
    assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {file.name}"
    file.write_text(text.replace(old, new))


_composed: dict[tuple[str, ...], str] = {}


def compose_once(subject: Subject, experiment: str, overrides: Sequence[str] = ()) -> DictConfig:
    """Compose an experiment, once for all mutants with the same configs: it takes a quarter of a
    second, and hundreds of mutants differ in their code alone.
    """
    package = subject.packages[0]
    texts = [file.read_text() for _, file in subject.configs()]
    key = tuple(text.replace(package, "PACKAGE") for text in (experiment, *overrides, *texts))
    if key not in _composed:
        plain = OmegaConf.to_container(compose(subject, experiment, overrides), resolve=False)
        _composed[key] = json.dumps(plain).replace(package, "PACKAGE")
    cfg = OmegaConf.create(json.loads(_composed[key].replace("PACKAGE", package)))
    OmegaConf.set_struct(cfg, True)  # as Hydra does
    return cfg


def results(subject: Subject, *rules: str) -> list[Result]:
    """What comes out of some rules; of all those that need no process, if none is named."""
    chosen = [RULES[name] for name in rules] or [
        rule for rule in RULES.values() if rule.part != "process"
    ]
    return [check.run() for check in survey(subject).checks(chosen)]
