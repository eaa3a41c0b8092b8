"""Run real programs in processes that need not import torch first, as those of `xlm_process` do.

For tests of what a job does. What a fresh start does has tests of its own: the search path and the
plugins in `plugin/test_processes.py`, a whole training run in `test_quickstart.py`.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

from xlm_process import XLM, Run, clean_environment

SERVER = Path(__file__).with_name("warm_server.py")


@cache
def _server() -> subprocess.Popen:
    """One for this process; it ends when its input does, with this process at the latest."""
    return subprocess.Popen(
        [sys.executable, str(SERVER)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        env=clean_environment(OMP_NUM_THREADS="1"),
        text=True,
    )


class WarmProcess:
    """A program in a process of its own.

    Args:
        program: the path of a script, or the name of a module.
        arguments: what follows it on the command line.
        cwd: the folder to run it in.
        env: all its environment variables.

    Attributes:
        pid: the number of the process.
    """

    def __init__(
        self, program: str, arguments: Sequence[str], cwd: Path, env: Mapping[str, str]
    ) -> None:
        files = Path(tempfile.mkdtemp(prefix="warm-"))
        weakref.finalize(self, shutil.rmtree, files, ignore_errors=True)
        self._status = files / "status"
        self._output = files / "output"
        self._status.touch()
        self._output.touch()
        request = {
            "program": program,
            "arguments": list(arguments),
            "cwd": str(cwd),
            "env": dict(env),
            "status": str(self._status),
            "output": str(self._output),
        }
        server = _server()
        print(json.dumps(request), file=server.stdin, flush=True)
        while not self._numbers():
            assert server.poll() is None, "the server of warm processes has ended"
            time.sleep(0.02)
        self.pid = self._numbers()[0]

    def _numbers(self) -> list[int]:
        *lines, _ = self._status.read_text().split("\n")
        return [int(line) for line in lines]

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return dict(enumerate(self._numbers())).get(1)

    def wait(self, timeout: float) -> int:
        """The exit code.

        Raises:
            subprocess.TimeoutExpired: it takes longer; it still runs.
        """
        deadline = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(self._status, timeout)
            time.sleep(0.02)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)

    def finish(self, timeout: float) -> Run:
        """Wait for the end; past the time limit it is killed and the error raised."""
        try:
            return Run(self.wait(timeout), self.output())
        finally:
            self.kill()

    def output(self) -> str:
        """What it has written so far, to stdout and stderr."""
        return self._output.read_text(encoding="utf-8", errors="replace")


def start_xlm(folder: Path, *overrides: str, **extra: str) -> WarmProcess:
    """Start `xlm` in `folder` with these overrides, without a network or helpful variables.

    Args:
        extra: further environment variables.
    """
    return WarmProcess(str(XLM), overrides, folder, clean_environment(**extra))


def xlm(folder: Path, *overrides: str, timeout: float = 600) -> Run:
    """Run `xlm` to its end, on one thread, as `xlm_process.xlm` does from nothing."""
    return start_xlm(folder, *overrides, OMP_NUM_THREADS="1").finish(timeout)
