"""Whether the host imports, finds our configs and job types, and in which order it searches."""

import os
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import xlm_mlm
from xlm_mlm.commands.diagnosis.child import Answer, Answers
from xlm_mlm.commands.diagnosis.findings import REINSTALL, Finding
from xlm_mlm.plugin.entries import attempt

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
        yield Finding("host", "problem", text, "rename it, or take its folder out of PYTHONPATH")


def _remedy(answer: Answer) -> str:
    error = answer.error or ""
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
    at = f" in {answer.files[-1]}" if answer.files else ""
    return (
        f"mend broken pins first, if any is listed; the error arose{at}; all of it: "
        '`python -P -c "import xlm.commands.lightning_main"`'
    )


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
        yield Finding("discovery", "problem", text, _why_hidden(result), order)
        return
    yield Finding(
        "discovery", "ok", "the host searches for configs, first match wins, in", None, order
    )
    yield from _winners(folders)
    if result["error"]:
        text = f"experiment=quickstart_mlm does not compose: {result['error']}"
        yield Finding(
            "discovery",
            "problem",
            text,
            "`xlm --cfg job experiment=quickstart_mlm job_type=name job_name=x` shows all of it",
        )
    elif not str(result["loss"]).startswith("xlm_mlm."):
        text = f"experiment=quickstart_mlm composes with {result['loss']}, which is not ours"
        yield Finding("discovery", "problem", text, "remove or rename what wins over our configs")
    else:
        yield Finding("discovery", "ok", "experiment=quickstart_mlm composes")
    yield from _jobs(result["jobs"])


def _folders(path: list[Any], host: str) -> list[tuple[str, str]]:
    """Who brings a folder, and which; each once, where it is searched first."""
    found: dict[str, str] = {}
    for provider, url in path:
        if not url or provider == "schema":
            continue
        place = url.removeprefix("file://")
        label = provider
        if place.startswith(f"{host}{os.sep}"):
            label = "xlm-core"
        elif provider == "file":
            label = f"package {Path(place).parent.name}"  # the host says no more
        found.setdefault(os.path.realpath(place) if os.path.isabs(place) else place, label)
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
        which = f"{len(shared)} configs of ours ({some}{', ...' if len(shared) > 3 else ''})"
        if place > at:
            text = f"ours win: {label} has {which} too, which are not used"
            yield Finding("discovery", "note", text)
        elif label.startswith("package "):
            text = f"{label} wins over {which}"
            fix = "`pip uninstall xlm-models`, or `pip install --force-reinstall xlm-mlm`"
            yield Finding("discovery", "problem", text, fix)
        else:
            text = f"{label} ({folder}) wins over {which}"
            yield Finding("discovery", "note", text, "rename yours if that is not what you want")


def _why_hidden(result: dict[str, Any]) -> str:
    if result["hydra_plugins"]:
        return f"remove {result['hydra_plugins']}: it hides the other plugins of Hydra from it"
    return "`pip install --force-reinstall --no-deps xlm-mlm`; from a clone `pip install -e .`"


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
        text = f"the plugins can't be listed: {count.error}"
        yield Finding("plugins", "problem", text, "`pip install --upgrade pluggy xlm-mlm`")
        return
    broken: dict[str, list[str]] = {}
    for name, each in steps.items():
        if error := each.error or each.result:
            broken.setdefault(error, []).append(name.partition(": ")[2])
    for error, names in broken.items():
        several = f"{len(names)} components do" if len(names) > 1 else f"{names[0]} does"
        origin = names[0].rpartition(", of ")[2]
        fix = f"update or uninstall {origin.rpartition(' ')[0]}"
        if answers.get("host").error and origin.startswith("xlm-mlm "):
            fix = "see to the host first"
        details = tuple(names) if len(names) > 1 else ()
        yield Finding("plugins", "problem", f"{several} not load: {error}", fix, details)
    good = sum(not (each.error or each.result) for each in steps.values())
    yield Finding("plugins", "ok", f"{good} components load; `xlm-mlm plugins` lists them")
    missing = count.result - len(steps)
    if missing:
        text = f"{missing} components were not reached in the time allowed"
        yield Finding("plugins", "problem", text, "see to what hangs or crashes, then ask again")
