"""A process that imports torch and what is built on it once, and runs programs in forks of itself.

`warm_process` starts it. It takes one request a line, as JSON, and ends with its input. Lightning,
Hydra, the host and this package are not imported here: each program does that itself, with its own
environment and path, so that what a test is about begins as it does for users.
"""

import json
import os
import runpy
import signal
import sys
from contextlib import suppress

# Five of the six seconds that `xlm` takes to start; by their parts, where parts are imported late.
import datasets  # noqa: F401
import matplotlib.axes  # noqa: F401
import pandas  # noqa: F401
import torch._dynamo
import torch._inductor.compile_fx
import torch.distributed.tensor
import torchmetrics  # noqa: F401
import transformers.modeling_utils
import transformers.models.auto.modeling_auto  # noqa: F401

FRESH = {"lightning", "hydra", "hydra_plugins", "omegaconf", "xlm", "xlm_mlm"}


def requested() -> dict | None:
    """Wait for requests, and start a process for each; the request in that, None at the end."""
    for line in sys.stdin:
        if os.fork() == 0:
            return accompanied(json.loads(line))
        forget_the_ended()
    forget_the_ended()
    return None


def forget_the_ended() -> None:
    """Let go of the processes that have ended since the last time."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def accompanied(request: dict) -> dict:
    """Start one more process and return in that; this one writes its number and its exit code."""
    child = os.fork()
    if child == 0:
        return request
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with open(request["status"], "w", buffering=1) as status:
        print(child, file=status)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), file=status)
    os._exit(0)


def become(request: dict) -> None:
    """Be the program that is asked for; what ends it ends this process, as Python would."""
    for number, (file, flags) in enumerate(
        ((os.devnull, os.O_RDONLY), *[(request["output"], os.O_WRONLY | os.O_APPEND)] * 2)
    ):
        os.dup2(os.open(file, flags), number)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    is_file = os.path.isabs(request["program"])
    path = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    sys.path[:1] = [os.path.dirname(request["program"]) if is_file else os.getcwd(), *path]
    sys.argv = [request["program"], *request["arguments"]]
    if is_file:
        runpy.run_path(request["program"], run_name="__main__")
    else:
        runpy.run_module(request["program"], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    too_early = FRESH & set(sys.modules)
    assert not too_early, f"each program must import {sorted(too_early)} itself"
    request = requested()
    if request is not None:
        become(request)
