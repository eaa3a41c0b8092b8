"""What torch can compute on."""

import os
import shutil
from collections.abc import Iterator

from xlm_mlm.commands.diagnosis.child import Answers
from xlm_mlm.commands.diagnosis.findings import Finding

_AUTO = (
    "add `trainer_strategy=auto_mlm` to experiments that ask for CUDA "
    "(those without `offline`, and the host's)"
)


def device_findings(answers: Answers) -> Iterator[Finding]:
    """The device that a run gets, and what to add where there is no GPU."""
    answer = answers.get("torch")
    if answer.error:
        text = f"torch does not import: {answer.error}"
        yield Finding("device", "problem", text, '`pip install --force-reinstall "torch>=2.6"`')
        return
    torch = answer.result
    build = f"built for CUDA {torch['built_for']}" if torch["built_for"] else "built without CUDA"
    about = f"torch {torch['version']}, {build}"
    if torch["cuda"] and torch["error"]:
        text = (
            f"{about}, sees {_names(torch['devices'])}, but can't compute there: {torch['error']}"
        )
        fix = f"install a build of torch for this GPU and driver; until then {_AUTO}"
        yield Finding("device", "problem", text, fix)
    elif torch["cuda"]:
        yield Finding("device", "ok", f"cuda: {_names(torch['devices'])} ({about})")
    elif torch["mps"]:
        yield Finding("device", "note", f"mps: Apple's GPU ({about})", _AUTO)
    else:
        yield from _without_gpu(torch["built_for"] is not None, about, torch["error"])


def _names(devices: list[str]) -> str:
    return ", ".join(f"{devices.count(name)} x {name}" for name in dict.fromkeys(devices))


def _without_gpu(built: bool, about: str, complaint: str | None) -> Iterator[Finding]:
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    driver = bool(shutil.which("nvidia-smi")) or os.path.exists("/dev/nvidia0")
    if built and hidden is not None and hidden.strip() in ("", "-1"):
        text = f"cpu: CUDA_VISIBLE_DEVICES={hidden!r} hides every GPU ({about})"
        yield Finding("device", "note", text, f"`unset CUDA_VISIBLE_DEVICES`, or {_AUTO}")
    elif built and driver:
        text = f"cpu: {about}, sees no GPU though a driver is installed"
        text += f": {complaint}" if complaint else ""
        fix = (
            f"`nvidia-smi` shows whether the driver works and suits that build; until then {_AUTO}"
        )
        yield Finding("device", "problem", text, fix)
    elif driver:
        text = f"cpu: a GPU driver is installed, but {about}"
        yield Finding(
            "device", "note", text, f"install a CUDA build of torch to use it, or {_AUTO}"
        )
    else:
        yield Finding("device", "note", f"cpu: no GPU ({about})", _AUTO)
