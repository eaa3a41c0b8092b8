"""Runs the probes in another process, and outlives whatever happens to it."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xlm_mlm.entries import attempt

_PROBES = Path(__file__).with_name("probes.py")


@dataclass(frozen=True)
class Answer:
    """What one step came to.

    Attributes:
        result: what the step returns.
        error: why it has no result, in one line.
        files: the files that an exception went through, the one that raised it last.
    """

    result: Any = None
    error: str | None = None
    files: tuple[str, ...] = ()


@dataclass
class Answers:
    """The steps that were begun, by name, and whether the last was reached."""

    steps: dict[str, Answer] = field(default_factory=dict)
    complete: bool = False

    def get(self, name: str) -> Answer:
        """The answer of a step; one that was never begun has an error, that of the start if any."""
        never = Answer(error="it was not reached in the time allowed")
        return self.steps.get(name, self.steps.get("start", never))


def ask(limit: float) -> Answers:
    """Take all steps; one that crashes or hangs is noted, and the rest is taken without it.

    Args:
        limit: seconds for everything together.
    """
    answers, deadline = Answers(), time.monotonic() + limit
    while not answers.complete and (left := deadline - time.monotonic()) > 0:
        before = len(answers.steps)
        # Not all of what is left, so that a step that hangs leaves time for the rest.
        _run(answers, left * 2 / 3)
        if len(answers.steps) == before:
            break
    return answers


def _run(answers: Answers, limit: float) -> None:
    left_out = list(answers.steps)
    if "host" in left_out and answers.get("host").error:
        left_out.append("discovery")
    here, _ = attempt(os.getcwd)
    process = subprocess.Popen(
        # -P: as with the program `xlm`, the current folder is not searched for modules.
        [sys.executable, "-P", str(_PROBES), json.dumps(left_out)],
        cwd=here or os.sep,  # Python does not start in a folder that is gone
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    )
    hung = False
    try:
        out, err = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        hung = True
        _kill(process)
        out, err = process.communicate()
    finally:
        _kill(process)
    _read(answers, out)
    for name, answer in answers.steps.items():
        if answer == _BEGUN:
            answers.steps[name] = Answer(error=_end(process.returncode, hung, limit))
    if not answers.steps and not answers.complete:
        last = next((line for line in reversed(err.splitlines()) if line.strip()), "")
        error = f"{_end(process.returncode, hung, limit)}: {last.strip()}".rstrip(": ")
        answers.steps["start"] = Answer(error=error)


_BEGUN = Answer(error="begun")


def _read(answers: Answers, out: str) -> None:
    for line in out.splitlines():
        try:
            said = json.loads(line)
            name = said["step"]
        except (ValueError, TypeError, KeyError):
            continue  # cut off, or written by somebody else
        if name == "end":
            answers.complete = True
        elif "begun" in said:
            answers.steps[name] = _BEGUN
        else:
            files = tuple(said.get("files", ()))
            answers.steps[name] = Answer(said.get("result"), said.get("error"), files)


def _end(code: int, hung: bool, limit: float) -> str:
    """Why a step has no end."""
    if hung:
        return f"it did not end within {limit:.0f} s"
    if code < 0:
        return f"it ended Python with {signal.Signals(-code).name}"
    return f"it ended Python with exit code {code}"


def _kill(process: "subprocess.Popen[str]") -> None:
    """End the process and those it started, so that none holds the pipes open."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return
