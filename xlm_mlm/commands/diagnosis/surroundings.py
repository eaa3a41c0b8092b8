"""What else decides how a run goes: the command on PATH, variables, files of the current folder."""

import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from xlm_mlm.commands.diagnosis.child import Answers
from xlm_mlm.commands.diagnosis.findings import Finding, Level
from xlm_mlm.commands.diagnosis.probes import VARIABLES
from xlm_mlm.entries import attempt

_REDIRECT = {
    "DATA_DIR": "data sets are kept there, not in ./data",
    "LOG_DIR": "logs and checkpoints go there, not to ./logs",
    "PROJECT_ROOT": "data and logs go below it, not below the current folder",
    "XLM_MODELS_PATH": "models listed there win over ours",
    "XLM_MODELS_PACKAGES": "xlm-mlm does not need it",
    "HF_HUB_OFFLINE": "experiments that fetch data will use only what is cached",
    "PYTHONPATH": "modules there come before installed ones",
}


def command_findings() -> Iterator[Finding]:
    """Which `xlm` a shell would run, and with which Python."""
    beside = Path(sys.executable).with_name("xlm")
    if not beside.exists():
        text = f"there is no command `{beside}`"
        fix = "`pip install --force-reinstall --no-deps xlm-core`"
        yield Finding("command", "problem", text, fix)
        return
    found = shutil.which("xlm")
    activate = beside.with_name("activate")
    enter = f"`. {activate}`" if activate.is_file() else f"put {beside.parent} first on PATH"
    if found is None:
        text = "no `xlm` on PATH"
        yield Finding("command", "note", text, f"{enter}, or call `{beside}`")
        return
    python = _python_of(Path(found))
    if Path(found).parent.resolve() == beside.parent.resolve() or _same(python, sys.executable):
        yield Finding("command", "ok", f"`xlm` is {found}, of this Python")
    else:
        text = f"`xlm` is {found}, of {python or 'another Python'}, not of {sys.executable}"
        yield Finding("command", "problem", text, f"{enter}, or call `{beside}`")


def _python_of(script: Path) -> str | None:
    """The interpreter that a script names in its first lines."""
    head, _ = attempt(lambda: script.read_bytes()[:1024].decode("utf-8", "replace"))
    # Long paths are written as an `exec` in the second line.
    found = re.search(r"(?m)^(?:#!|'''exec' \"?)(/[^\s\"]*python[^\s\"/]*)", head or "")
    return found[1] if found else None


def _same(python: str | None, other: str) -> bool:
    # The interpreter of a virtual environment is a link: compare the folders.
    return python is not None and Path(python).parent.resolve() == Path(other).parent.resolve()


def variable_findings(answers: Answers) -> Iterator[Finding]:
    """Variables that send a run elsewhere, set outside or by `.env`."""
    host = answers.get("host").result or {}
    from_file: dict[str, str] = host.get("variables", {})
    found = {name: os.environ[name] for name in (*VARIABLES, "PYTHONPATH") if name in os.environ}
    count = 0
    for name, value in {**found, **from_file}.items():
        if name not in _REDIRECT or (name, value) == ("PROJECT_ROOT", "."):
            continue  # "." is what the host takes anyway
        count += 1
        source = " (from .env)" if name in from_file else ""
        yield Finding("variables", "note", f"{name}={value}{source}: {_REDIRECT[name]}")
        if name in ("DATA_DIR", "LOG_DIR", "PROJECT_ROOT"):
            yield from _writable(name, Path(value))
        elif name == "XLM_MODELS_PACKAGES":
            yield from _packages(value)
        elif name == "XLM_MODELS_PATH":
            yield from _model_path(value)
    if not count:
        yield Finding("variables", "ok", "none that sends a run elsewhere")


def _writable(name: str, folder: Path) -> Iterator[Finding]:
    # The nearest folder that is there: the run makes the rest.
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        text = f"{name}={folder}: nothing can be written to {there}"
        yield Finding("variables", "problem", text, f"`unset {name}`, or name another folder")


def _packages(value: str) -> Iterator[Finding]:
    for name in filter(None, value.split(":")):
        spec, error = attempt(partial(find_spec, name))
        if "," in name:
            text = f"XLM_MODELS_PACKAGES={value}: the host separates names by colons"
            fix = f"`export XLM_MODELS_PACKAGES={value.replace(',', ':')}`"
            yield Finding("variables", "problem", text, fix)
        elif error or spec is None:
            text = f"XLM_MODELS_PACKAGES names {name!r}, which is not installed; the host skips it"
            yield Finding("variables", "note", text, f"`pip install {name}`, or leave it out")


def _model_path(value: str) -> Iterator[Finding]:
    for folder in filter(None, value.split(":")):
        if not (Path(folder) / "xlm_models.json").is_file():
            text = f"XLM_MODELS_PATH names {folder}, which has no xlm_models.json"
            yield Finding("variables", "note", text, "leave it out, or write that file")


def folder_findings() -> Iterator[Finding]:
    """Files of the current folder that stand in the way."""
    here, error = attempt(Path.cwd)
    if error is None and here is not None:
        _, error = attempt(lambda: os.listdir(here))
    if error or here is None:
        text = f"the current folder can't be read: {error}"
        yield Finding("folder", "problem", text, "`cd` to another")
        return
    found = [*_shadows(here), *_model_files(here), *_leftovers(here)]
    yield from found
    if not found:
        yield Finding("folder", "ok", f"nothing in {here} stands in the way")


def _shadows(here: Path) -> Iterator[Finding]:
    """Modules that `python -m xlm`, which looks here first, takes for installed ones."""
    for name in ("xlm", "xlm_mlm", "torch", "transformers", "lightning", "hydra", "datasets"):
        spec, _ = attempt(partial(find_spec, name))
        real = Path(spec.origin).resolve() if spec and spec.origin else None
        for file in (here / f"{name}.py", here / name / "__init__.py"):
            if not file.is_file() or file.resolve() == real:
                continue
            shown = file if file.name != "__init__.py" else file.parent
            text = f"{shown} hides the installed {name} from `python -m xlm`"
            level: Level = "problem" if name.startswith("xlm") else "note"
            yield Finding("folder", level, text, f"rename {shown}, or run the `xlm` command")
    hiding = here / "hydra_plugins" / "__init__.py"
    if hiding.is_file():
        text = f"{hiding} hides the plugins of Hydra from `python -m xlm`, ours too"
        yield Finding("folder", "problem", text, f"remove {hiding}")


def _model_files(here: Path) -> Iterator[Finding]:
    for file in (here / "xlm_models.json", here / "xlm-models" / "xlm_models.json"):
        if not file.exists():
            continue
        models, error = attempt(partial(_read_json, file))
        if error or not isinstance(models, dict):
            text = f"the host ignores {file}: {error or 'it holds no object'}"
            fix = 'write {"model": "folder"}, or remove it'
            yield Finding("folder", "problem", text, fix)
            continue
        yield Finding("folder", "note", f"{file}: configs of {', '.join(models)} win over ours")
        for name, folder in models.items():
            if not isinstance(folder, str) or not (file.parent / folder / "configs").is_dir():
                text = f"{file}: {name!r} is {folder!r}, which has no folder configs"
                yield Finding("folder", "problem", text, "correct the path, or remove the line")


def _read_json(file: Path) -> object:
    return json.loads(file.read_text())


def _leftovers(here: Path) -> Iterator[Finding]:
    """Traces of runs that were killed or repeated."""
    for folder in sorted(here.glob("data/xlm_mlm/*/.*-*"))[:5]:
        text = f"{folder} is left by a preparation that was killed; nothing reads it"
        yield Finding("folder", "note", text, f"`rm -r {folder}`")
    for file in sorted(here.glob("logs/*/checkpoints/best-v*.ckpt"))[:5]:
        text = f"{file} stands beside best.ckpt: the highest number is the newest"
        yield Finding("folder", "note", text)
    logs = sorted(here.glob("logs/*/runs/*/job.log"), key=os.path.getmtime)
    for log in logs[-20:]:
        with log.open("rb") as lines:
            lines.seek(max(0, log.stat().st_size - 100_000))
            end = lines.read().decode("utf-8", "replace")
        # The host's exit code is 0 all the same.
        if failed := re.search(r"Could not run test: (.*)", end):
            text = f"{log}: a run ended without its final test: {failed[1]}"
            yield Finding("folder", "note", text, "mend what it names, and run it again")
