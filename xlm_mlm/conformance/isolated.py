"""The plugin's code in a process of its own: it may crash or hang, and the rest goes on."""

import multiprocessing
import pickle
import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from xlm_mlm.conformance.report import Result
from xlm_mlm.conformance.rules import Check

SECONDS = 180.0

T = TypeVar("T")


class Died(Exception):
    """A process ended without a result, or was ended; the message says how."""


def in_child(action: Callable[[], T], seconds: float = SECONDS) -> T:
    """Call a function in a fork of this process; here, where forking is not safe (not on Linux).

    Args:
        action: the function; what it returns is pickled.
        seconds: how long it may take.

    Raises:
        Died: it took longer, or the process ended, or it raised what can't be pickled.
        Exception: what it raised.
    """
    if sys.platform != "linux":
        return action()
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_run, args=(action, sender))
    child.start()
    sender.close()
    try:
        if not receiver.poll(seconds):
            raise Died(f"was not done after {seconds:.0f} s and was ended")
        raised, value = receiver.recv()
    except EOFError:
        child.join()
        raise Died(_end(child.exitcode)) from None
    finally:
        child.kill()
        child.join()
        receiver.close()
    if raised:
        raise value
    return value


def run_isolated(check: Check, seconds: float = SECONDS) -> Result:
    """Make a check in a process of its own; one that starts the command itself is made here."""
    if check.rule.part == "process":
        return check.run()
    try:
        return in_child(check.run, seconds)
    except Died as end:
        return check.result("broken", f"{check.label}: the process {end} during this check", 0.0)


def _run(action: Callable[[], Any], sender: Connection) -> None:
    import torch

    # The threads of a pool do not survive a fork, and whoever asks them to work waits for ever.
    torch.set_num_threads(1)
    try:
        answer = False, action()
    except KeyboardInterrupt:
        # Raised by the plugin: an interrupt by the user reaches the parent by itself.
        answer = True, Died("was interrupted")
    except BaseException as error:
        answer = True, error
    try:
        sender.send(answer)
    except (pickle.PicklingError, TypeError, AttributeError):
        sender.send((True, Died(f"gave what can't be sent: {answer[1]!r:.200}")))


def _end(code: int | None) -> str:
    if code is not None and code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"ended with code {code}"
