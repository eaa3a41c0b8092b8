"""Whether the host imports, finds our configs and job types, and in which order it searches."""

import os
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import xlm_mlm
from xlm_mlm.commands.diagnosis.child import Answer, Answers
from xlm_mlm.commands.diagnosis.findings import REINSTALL, Finding
from xlm_mlm.commands.diagnosis.packages import OURS, pin_findings
from xlm_mlm.entries import attempt

CONFIGS = Path(xlm_mlm.__file__).resolve().parent / "configs"
_TRANSFORMERS = '`pip install "transformers>=4.55,<5"`'


def host_findings(answers: Answers) -> Iterator[Finding]:
    """Whether `xlm` can start, and is the installed one."""
    answer = answers.get("host")
    if answer.error:
        text = f"the host does not start: {answer.error}"
        yield Finding("host", "problem", text, _remedy(answer))
        return
    folder = Path(answer.result["folder"])
    yield Finding("host", "ok", f"xlm imports, from {folder}")
    installed, _ = attempt(lambda: Path(str(distribution("xlm-core").locate_file("xlm"))))
    if installed and installed.is_dir() and installed.resolve() != folder.resolve():
        text = f"{folder} hides the installed {installed}"
        yield Finding("host", "problem", text, f"rename {folder}, or mend PYTHONPATH")
    if hiding := _hiding_us(answers):
        text = f"{hiding} hides the installed xlm_mlm once the host has started"
        yield Finding("host", "problem", text, f"rename {hiding}")


def _hiding_us(answers: Answers) -> str | None:
    """The file that the host's process takes for this package, if it is another."""
    found = (answers.get("host").result or {}).get("ours")
    return found if found and Path(found).resolve().parent != CONFIGS.parent else None


def _remedy(answer: Answer) -> str:
    error = answer.error or ""
    pins, _ = attempt(lambda: [each.fix for each in pin_findings() if each.level == "problem"])
    if pins:
        return f"mend the pins first: {', '.join(filter(None, pins))}"
    if "no_init_weights" in error:
        return _TRANSFORMERS
    if "No module named 'xlm'" in error:
        return REINSTALL
    if "ExternalModelConflictError" in error:
        return "rename the model in xlm_models.json, or `unset XLM_MODELS_PACKAGES`"
    if error.startswith("ModuleNotFoundError"):
        return f"{REINSTALL} brings what it depends on"
    here, _ = attempt(Path.cwd)
    local = [file for file in answer.files if here and Path(file).parent == here]
    if local:
        return f"rename {local[-1]}"
    at = f" in {answer.files[-1]}" if answer.files else " elsewhere"
    return f'see all of it: `python -P -c "import xlm.commands.lightning_main"`; it arose{at}'


def discovery_findings(answers: Answers) -> Iterator[Finding]:
    """The search path in order, who provides what, and which package wins."""
    if answers.get("host").error:
        text = "not examined, since the host does not start"
        yield Finding("discovery", "note", text, "see to the host first")
        return
    answer = answers.get("discovery")
    if answer.error:
        text = f"Hydra can't build the host's search path: {answer.error}"
        yield Finding("discovery", "problem", text, _remedy(answer))
        return
    result = answer.result
    folders = _folders(result["path"], answers.get("host").result["folder"])
    order = tuple(f"{n}. {label}: {path}" for n, (label, path) in enumerate(folders, 1))
    paths = [path for _, path in folders]
    if str(CONFIGS) not in paths:
        text = f"{CONFIGS} is not in the search path: no config of ours can be found"
        yield Finding("discovery", "problem", text, _why_absent(answers), order)
        return
    yield Finding(
        "discovery", "ok", "the host searches for configs, first match wins, in", None, order
    )
    yield from _winners(folders)
    if result["error"]:
        text = f"experiment=quickstart_mlm does not compose: {result['error']}"
        # With hydra-core 1.4 ours is found all the same, but not those that bring hydra/ configs.
        shows = "`xlm --cfg job experiment=quickstart_mlm job_type=name job_name=x` shows all of it"
        yield Finding("discovery", "problem", text, _hidden_plugins(result) or shows)
    elif not str(result["loss"]).startswith("xlm_mlm."):
        text = f"experiment=quickstart_mlm composes with {result['loss']}, which is not ours"
        yield Finding("discovery", "problem", text, "remove or rename what wins over our configs")
    else:
        yield Finding("discovery", "ok", "experiment=quickstart_mlm composes")
    yield from _jobs(result["jobs"])


def _folders(path: list[Any], host: str) -> list[tuple[str, str]]:
    """Who brings a folder, and which; each once, where it is searched first."""
    found: dict[str, str] = {}
    inside = os.path.join(os.path.realpath(host), "")
    for provider, url in path:
        if not url or provider == "schema":
            continue
        place = url.removeprefix("file://")
        # A folder of the user's is relative to the current one.
        place = place if "://" in place else os.path.realpath(place)
        label = provider
        if place.startswith(inside):
            label = "xlm-core"
        elif provider == "file":
            label = f"package {Path(place).parent.name}"  # the host says no more
        found.setdefault(place, label)
    return [(label, place) for place, label in found.items()]


def _winners(folders: list[tuple[str, str]]) -> Iterator[Finding]:
    """Names that several folders have, and whose is used."""
    names = sorted(str(file.relative_to(CONFIGS)) for file in CONFIGS.rglob("*.yaml"))
    at = [path for _, path in folders].index(str(CONFIGS))
    for place, (label, folder) in enumerate(folders):
        if place == at or not os.path.isabs(folder):
            continue
        shared = tuple(name for name in names if os.path.isfile(os.path.join(folder, name)))
        if not shared:
            continue
        some = ", ".join(name.removesuffix(".yaml") for name in shared[:3])
        which = f"{len(shared)} config{'s' if len(shared) > 1 else ''} of ours"
        which += f" ({some}{', ...' if len(shared) > 3 else ''})"
        if place > at:
            text = f"ours win over {label}, which has {which} as well"
            yield Finding("discovery", "note", text)
        elif label.startswith("package "):
            text = f"{label} wins over {which}"
            fix = "`pip uninstall xlm-models`, or `pip install --force-reinstall xlm-mlm`"
            yield Finding("discovery", "problem", text, fix)
        else:
            text = f"{label} ({folder}) wins over {which}"
            yield Finding("discovery", "note", text, "rename them there if you want ours")


def _why_absent(answers: Answers) -> str:
    if hiding := _hiding_us(answers):
        return f"rename {hiding}"
    again = "`pip install --force-reinstall --no-deps xlm-mlm`; from a clone `pip install -e .`"
    return _hidden_plugins(answers.get("discovery").result) or again


def _hidden_plugins(discovery: dict[str, Any]) -> str | None:
    hiding = discovery["hydra_plugins"]
    return hiding and f"remove {hiding}: it hides the plugins of Hydra that are elsewhere"


def _jobs(jobs: dict[str, Any]) -> Iterator[Finding]:
    known = [f"{name} ({job['origin']})" for name, job in sorted(jobs.items())]
    text = f"job types beside the host's own: {', '.join(known) or 'none'}"
    yield Finding("discovery", "ok", text)
    for name, job in sorted(jobs.items()):
        if job["error"]:
            text = f"job_type={name} of {job['origin']} can't be imported: {job['error']}"
            yield Finding("discovery", "problem", text, f"update or uninstall {job['origin']}")


def plugin_findings(answers: Answers) -> Iterator[Finding]:
    """The components of all packages: those that do not load."""
    steps = {name: each for name, each in answers.steps.items() if name.startswith("component ")}
    count = answers.get("plugins")
    if count.error:
        hiding = _hiding_us(answers)
        at = f"; it arose in {count.files[-1]}" if count.files else ""
        again = f"`pip install --force-reinstall pluggy xlm-mlm`{at}"
        fix = f"rename {hiding}" if hiding else again
        text = f"the plugins can't be listed: {count.error}"
        yield Finding("plugins", "problem", text, fix)
        return
    broken: dict[tuple[str, str], list[str]] = {}
    for name, each in steps.items():
        if error := each.error or each.result:
            component, _, origin = name.partition(": ")[2].rpartition(", of ")
            broken.setdefault((error, origin), []).append(component)
    for (error, origin), components in broken.items():
        yield _broken(error, origin, components, host_starts=not answers.get("host").error)
    good = sum(not (each.error or each.result) for each in steps.values())
    yield Finding(
        "plugins", "ok", f"{good} of {count.result} components load; `xlm-mlm plugins` lists them"
    )
    missing = count.result - len(steps)
    if missing:
        text = f"{missing} components were not reached in the time allowed"
        yield Finding("plugins", "problem", text, "see to what hangs or crashes, then ask again")


def _broken(error: str, origin: str, components: list[str], *, host_starts: bool) -> Finding:
    """What does not load for the same reason, which may be that the host does not start."""
    names = ", ".join(component.partition(" ")[0] for component in components)
    what = f"{components[0]} of {origin} does"
    if len(components) > 1:
        what = f"{len(components)} components of {origin} ({names}) do"
    package = origin.rpartition(" ")[0]
    if package == OURS and not host_starts:
        return Finding("plugins", "note", f"{what} not load: {error}", "see to the host first")
    fix = f"update or uninstall {package}"
    if package == OURS:
        fix = "`pip install --force-reinstall --no-deps xlm-mlm`; from a clone, mend it"
    return Finding("plugins", "problem", f"{what} not load: {error}", fix)
