"""A check in a process of its own: the plugin's code may crash or hang, and the others go on."""

import multiprocessing
import signal
import sys
from multiprocessing.connection import Connection

from xlm_mlm.conformance.report import Result
from xlm_mlm.conformance.rules import Check

SECONDS = 180.0


def run_isolated(check: Check, seconds: float = SECONDS) -> Result:
    """Make a check in a fork of this process.

    A check that starts processes itself is made here, and so is every check where forking is not
    safe (anywhere but on Linux).

    Args:
        check: the check.
        seconds: how long it may take; one that takes longer is ended, and its rule is broken.
    """
    if check.rule.part == "process" or sys.platform != "linux":
        return check.run()
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_run, args=(check, sender), daemon=True)
    child.start()
    sender.close()
    try:
        if not receiver.poll(seconds):
            what = f"not done after {seconds:.0f} s, so it was ended"
            return check.result("broken", f"{check.label}: {what}", seconds)
        return receiver.recv()
    except EOFError:
        child.join()
        what = f"the process {_end(child.exitcode)}"
        return check.result("broken", f"{check.label}: {what} during this check", 0.0)
    finally:
        child.kill()
        child.join()
        receiver.close()


def _run(check: Check, sender: Connection) -> None:
    import torch

    # The threads of a pool do not survive a fork, and whoever asks them to work waits for ever.
    torch.set_num_threads(1)
    sender.send(check.run())


def _end(code: int | None) -> str:
    if code is not None and code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"ended with code {code}"
