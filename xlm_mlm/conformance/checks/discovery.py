"""What the host and Hydra ask of a plugin while they look for it."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from importlib.metadata import PackageNotFoundError, files
from importlib.util import find_spec
from inspect import isabstract, isclass
from pathlib import Path
from typing import Any

import yaml
from hydra.plugins.plugin import Plugin

from xlm_mlm.conformance.rules import Broken, CannotRun, rule
from xlm_mlm.conformance.subject import HYDRA_PLUGINS, Subject
from xlm_mlm.conformance.survey import Part
from xlm_mlm.entries import Entry, attempt, read_entries
from xlm_mlm.plugin.interfaces import INTERFACES
from xlm_mlm.plugin.registry import GROUPS, PLUGINS, JobType, read_plugin

NAMESPACE = "hydra_plugins"
# A scan that takes longer than this hangs: even importing torch takes a few seconds only.
SCAN_SECONDS = 60
_SCAN = (
    "import json, sys; sys.path[:] = json.loads(sys.argv.pop(1)); "
    "from xlm_mlm.conformance import scan; scan.main()"
)


@rule(
    "discovery-entry-points",
    part="plugin",
    needs=("entry_points",),
    says="Every entry point loads and fills the interface of its group, and every hook answers.",
    host="xlm/harness.py, Harness, calls the methods of LossFunction and Predictor, and "
    "xlm/datamodule.py those of Collator. Hydra 1.3, Plugins._scan_all_plugins: whatever but "
    "ImportError is raised there ends every Hydra command of the environment",
)
def entry_points(part: Part) -> None:
    """Load each, and call the hooks."""
    failing = [
        (entry, f"{entry.name} = {entry.value} in {entry.group}: {problem}")
        for entry in part.subject.entries
        for problem in _problems(entry)
    ]
    if failing:
        raise Broken("\n".join(line for _, line in failing), failing[0][0].value)


def _problems(entry: Entry) -> Iterator[str]:
    if entry.group == PLUGINS:
        contribution = read_plugin(entry)
        yield from contribution.problems
        actions = [partial(_find_job, job_type) for job_type in contribution.job_types]
    else:
        actions = [partial(_load, entry)]
    for action in actions:
        _, problem = attempt(action)
        if problem:
            yield problem


def _load(entry: Entry) -> None:
    found = entry.load()
    if entry.group in INTERFACES:
        INTERFACES[entry.group].check(found)
    elif not (isclass(found) and issubclass(found, Plugin)) or isabstract(found):
        raise ValueError(
            f"{found!r} is no plugin of Hydra; it must be a class that derives from one of those "
            "in hydra.plugins and leaves nothing abstract"
        )


def _find_job(job_type: JobType) -> None:
    module, _, name = job_type.target.partition(":")
    _, problem = attempt(Entry(PLUGINS, job_type.name, f"{module}:{name}", "", "").load)
    if problem:
        raise ValueError(f"xlm_commands() gives {job_type.name}: {job_type.target!r}: {problem}")


@rule(
    "discovery-unique-names",
    part="plugin",
    needs=("entry_points",),
    says="No two entry points have the same group and name.",
    host="Python's importlib.metadata lists both in an order that nobody chose, so the class "
    "that a short name stands for depends on what else is installed; of two plugins of one name "
    "--xlm-plugin could test only one",
)
def unique_names(part: Part) -> None:
    """Compare with everything that is installed."""
    own = part.subject.entries
    # Hydra uses the names of its own group for its warnings only.
    taken = [*own, *(entry for entry in read_entries(GROUPS) if entry not in own)]
    doubles = []
    for place, entry in enumerate(taken):
        for other in taken[place + 1 :]:
            if (entry.group, entry.name) == (other.group, other.name) and entry in own:
                doubles.append(
                    f"{entry.name!r} in {entry.group} is {entry.value} of {entry.origin} and "
                    f"{other.value} of {other.origin}; rename the one that is yours"
                )
    if doubles:
        raise Broken("\n".join(doubles))


@rule(
    "discovery-config-folder",
    part="plugin",
    needs=("experiment",),
    says="There is a folder of configs, with YAML files in it.",
    host="xlm/commands/lightning_main.py, ExternalModelsSearchPathPlugin, adds the folder "
    "`configs` of a package to Hydra's search path, if there is one; those of a plugin are added "
    "in the same way",
)
def config_folder(part: Part) -> None:
    """Look for files."""
    subject = part.subject
    if not subject.config_dirs:
        how = (
            "the package must have a folder `configs`"
            if subject.kind == "package"
            else "the hook xlm_config_dirs must return a list of existing folders"
        )
        raise Broken(f"there is no folder of configs; {how}{_problems_so_far(subject)}")
    empty = [str(folder) for folder in subject.config_dirs if not any(folder.rglob("*.yaml"))]
    if empty:
        raise Broken(
            f"no YAML file is in {', '.join(empty)}; if there are some in the sources, they must "
            "be package data, so that an installation has them"
        )


def _problems_so_far(subject: Subject) -> str:
    return "".join(f"\n{problem}" for problem in subject.problems)


@rule(
    "discovery-light-scan",
    part="plugin",
    says="Finding the plugin imports neither torch nor lightning nor transformers.",
    host="Hydra, Plugins._initialize, imports its plugins in every Hydra command of the "
    "environment, and the hooks of xlm.plugins are called before `xlm --help` shows anything; "
    "xlm/external_models.py, discover_external_models, looks for packages with find_spec",
)
def light_scan(part: Part) -> None:
    """Do it in a fresh process."""
    subject = part.subject
    asked = {
        "modules": [] if subject.kind == "package" else _hydra_modules(subject),
        "entries": [
            asdict(entry) for entry in subject.entries if entry.group in (HYDRA_PLUGINS, PLUGINS)
        ],
        "package": subject.name if subject.kind == "package" else "",
    }
    result = _scanned(asked)
    if result["before"]:
        raise CannotRun(
            f"Python itself imports {', '.join(result['before'])} when it starts here, before "
            "anybody looks for a plugin; look for a .pth file or a sitecustomize that does it"
        )
    if result["found"]:
        lines = [
            f"{step} imports {name}{' by way of ' * bool(way)}{way}"
            for name, step, way in result["found"]
        ]
        advice = "import it where it is used, in a module that the hooks don't import"
        raise Broken("\n".join([*lines, advice]))


def _scanned(asked: dict[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        path = json.dumps([entry for entry in sys.path if isinstance(entry, str)])
        command = [sys.executable, "-c", _SCAN, path, json.dumps(asked), str(answer)]
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=SCAN_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise Broken(
                f"it took more than {SCAN_SECONDS} seconds, which every command would wait; an "
                "import or a hook hangs"
            ) from None
        if not answer.exists():
            said = done.stdout.decode(errors="replace").strip()[-500:]
            raise Broken(
                f"an import or a hook ends the process, with code {done.returncode}, which said: "
                f"{said or 'nothing'}"
            )
        return json.loads(answer.read_text())


@rule(
    "discovery-no-commands-yaml",
    part="plugin",
    says="No package ships `configs/commands.yaml`; a plugin names its job types in a hook.",
    host="xlm/external_models.py, discover_external_models, lists an installed package twice, and "
    "get_external_commands raises ExternalModelConflictError on the second reading of the file, "
    "whenever the package is named in XLM_MODELS_PACKAGES",
)
def no_commands_yaml(part: Part) -> None:
    """Look for the file where the host does."""
    subject = part.subject
    folders = {folder for folder in subject.config_dirs if folder.name == "configs"}
    for package in subject.packages:
        folders.update(folder / "configs" for folder in _folders_of(package))
    found = [folder / "commands.yaml" for folder in sorted(folders)]
    traps = [file for file in found if file.is_file() and _names_commands(file)]
    if traps:
        raise Broken(
            f"{', '.join(map(str, traps))} makes every `xlm` command fail when the package is in "
            "XLM_MODELS_PACKAGES; let the hook xlm_commands name the job types instead",
            traps[0],
        )


def _names_commands(file: Path) -> bool:
    """Whether the host finds anything in it; one of comments alone does no harm."""
    content, problem = attempt(lambda: yaml.safe_load(file.read_text(encoding="utf-8")))
    return problem is not None or bool(content)


@rule(
    "discovery-no-namespace-init",
    part="plugin",
    needs=("entry_points",),
    says="The distribution ships no `hydra_plugins/__init__.py`.",
    host="Hydra, Plugins._initialize, imports `hydra_plugins` and walks its folders: with an "
    "__init__.py in one of them it is no namespace any more, and Hydra sees that folder alone",
)
def no_namespace_init(part: Part) -> None:
    """Look among what is shipped."""
    found = _hydra_files(part.subject).get(Path(NAMESPACE, "__init__.py"))
    if found is not None:
        raise Broken(
            f"{found} hides the Hydra plugins of all other packages; delete it, and let the build "
            "pack `hydra_plugins` as a namespace",
            found,
        )


def _hydra_modules(subject: Subject) -> list[str]:
    """The modules of a distribution that Hydra 1.3 imports while it scans."""
    names = set()
    for file in _hydra_files(subject):
        parts = file.with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        if not parts[-1].startswith("_"):
            names.add(".".join(parts))
    return sorted(names - {NAMESPACE})


def _hydra_files(subject: Subject) -> dict[Path, Path]:
    """The Python files that a distribution ships in `hydra_plugins`: from there, and from root.

    An editable installation does not list them; they lie beside the package then.
    """
    try:
        listed = files(subject.distribution) or []
    except PackageNotFoundError:
        listed = []
    tops = {file.parts[0].removesuffix(".py") for file in listed}
    if tops & {*subject.packages, NAMESPACE}:
        own = {Path(file): Path(str(file.locate())) for file in listed}
    else:
        own = {
            file.relative_to(root): file
            for root in _roots(subject)
            for file in (root / NAMESPACE).rglob("*.py")
        }
    return {
        name: file
        for name, file in sorted(own.items())
        if name.parts[0] == NAMESPACE and name.suffix == ".py"
    }


def _roots(subject: Subject) -> set[Path]:
    """The folders that the modules of the entry points are imported from."""
    roots = set()
    for module in {entry.value.partition(":")[0] for entry in subject.entries}:
        spec, _ = attempt(partial(find_spec, module))
        if spec is not None and spec.origin:
            depth = module.count(".") + bool(spec.submodule_search_locations)
            roots.add(Path(spec.origin).parents[depth])
    return roots


def _folders_of(package: str) -> list[Path]:
    spec, _ = attempt(partial(find_spec, package))
    locations = spec.submodule_search_locations if spec is not None else None
    return [Path(folder) for folder in locations or ()]
