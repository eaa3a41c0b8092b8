"""Runs in a process of its own, which may crash or hang: imports what might, and says what it saw.

Run as a file. Its argument is a JSON list of the steps to leave out. It writes a line of JSON
before each step and one after it.
"""

import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from typing import Any

Step = tuple[str, Callable[[], Any]]
# Those that decide where the host reads and writes. No other may be shown: `.env` holds secrets.
VARIABLES = (
    *("XLM_MODELS_PACKAGES", "XLM_MODELS_PATH", "DATA_DIR", "LOG_DIR", "PROJECT_ROOT"),
    *("CUDA_VISIBLE_DEVICES", "HF_HUB_OFFLINE", "HF_HOME"),
)


def steps() -> Iterator[Step]:
    """The steps, cheap ones first; later ones depend on what is installed."""
    yield "torch", torch_step
    yield "host", host_step
    yield "discovery", discovery_step
    yield "plugins", plugins_step
    try:
        from xlm_mlm.plugin import registry
    except Exception:
        return  # the step before this has said so
    for number, entry in enumerate(registry.read_entries(registry.GROUPS)):
        name = f"{entry.name} ({entry.value}) in {entry.group}, of {entry.origin}"
        yield f"component {number}: {name}", partial(registry.error_of, entry)


def torch_step() -> dict[str, Any]:
    """What torch was built for, and what it can use."""
    import torch

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        usable = torch.cuda.is_available()
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    error = None
    if usable:
        try:
            float(torch.ones(2, device="cuda").sum())
        except Exception as failure:
            error = _line(failure)
    return {
        "version": torch.__version__,
        "built_for": torch.version.cuda or getattr(torch.version, "hip", None),
        "cuda": usable,
        "devices": names if usable else [],
        "mps": torch.backends.mps.is_available(),
        "error": error or "; ".join(_line(each.message) for each in caught) or None,
    }


def host_step() -> dict[str, Any]:
    """Import the host's command; say where it and we come from, and which variables it set."""
    before = dict(os.environ)
    import xlm
    import xlm.commands.lightning_main

    changed = {
        name: os.environ[name]
        for name in VARIABLES
        if name in os.environ and os.environ[name] != before.get(name)
    }
    # The host puts folders of the user's first on the path: ours may be another one now.
    ours = find_spec("xlm_mlm")
    return {
        "folder": os.path.dirname(xlm.__file__ or ""),
        "ours": ours and ours.origin,
        "variables": changed,
    }


def discovery_step() -> dict[str, Any]:
    """Let Hydra build the host's search path, and compose an experiment of ours from it."""
    import xlm.commands.lightning_main as main
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    # The same folder and version as the command: our plugin joins no other application.
    with initialize_config_dir(
        config_dir=main._HYDRA_PARAMS["config_path"], version_base="1.3", job_name="doctor"
    ):
        found = GlobalHydra.instance().config_loader().get_search_path().get_path()
        loss = error = None
        try:
            overrides = ["job_type=name", "job_name=doctor", "experiment=quickstart_mlm"]
            loss = compose("config", overrides=overrides).loss._target_
        except Exception as failure:
            error = _line(failure)
    return {
        "path": [(element.provider, element.path) for element in found],
        "jobs": {name: _job(job) for name, job in main.external_commands.items()},
        "loss": loss,
        "error": error,
        # A namespace, which has no file, unless a package hides what the others bring.
        "hydra_plugins": getattr(find_spec("hydra_plugins"), "origin", None),
    }


def plugins_step() -> int:
    """Count the entry points of all plugins."""
    from xlm_mlm.plugin import registry

    return len(registry.read_entries(registry.GROUPS))


def _job(job: Any) -> dict[str, Any]:
    """Whose a job type is, and why it can't be imported, if so."""
    from pkgutil import resolve_name

    target = getattr(job, "target", None)
    if target is None:
        return {"origin": f"{job.__module__}.{job.__qualname__}", "error": None}
    try:
        resolve_name(target)
    except Exception as failure:
        return {"origin": job.origin, "error": f"{target}: {_line(failure)}"}
    return {"origin": job.origin, "error": None}


def _line(error: Any) -> str:
    # The same as in the package, which may be what is broken.
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _files(error: BaseException) -> list[str]:
    """The files that the error went through, the one that raised it last."""
    files, trace = [], error.__traceback__
    while trace is not None:
        files.append(trace.tb_frame.f_code.co_filename)
        trace = trace.tb_next
    return files


def main() -> None:
    """Take the steps one by one."""
    left_out = set(json.loads(sys.argv[1]))
    # What an imported package prints must not end up among the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(**answer: Any) -> None:
        print(json.dumps(answer), file=answers, flush=True)

    for name, action in steps():
        if name in left_out:
            continue
        say(step=name, begun=True)
        try:
            say(step=name, result=action())
        except BaseException as error:
            say(step=name, error=_line(error), files=_files(error))
            if name == "host":
                left_out.add("discovery")
    say(step="end", result=None)
    os._exit(0)  # no thread or exit handler of an imported package may hold us up


if __name__ == "__main__":
    main()
