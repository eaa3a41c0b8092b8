"""Ctrl-C and SIGTERM during training: noted, and acted on between two steps."""

import os
import signal
import sys
import threading
from types import FrameType
from typing import Any

HANDLED = (signal.SIGINT, signal.SIGTERM)


class Stopped(SystemExit):
    """Training was stopped by a signal.

    The exit code is that of a process which the signal ended: 130 for Ctrl-C, 143 for SIGTERM.

    Args:
        number: of the signal.

    Attributes:
        name: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.name = signal.Signals(number).name


class Signals:
    """Notes the first Ctrl-C or SIGTERM of this process; a second one ends it at once."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, Any] = {}
        self._process = 0

    def listen(self) -> None:
        """Take over both signals, where this is the main thread, which alone may."""
        if threading.current_thread() is not threading.main_thread():
            return
        self.received, self._process = None, os.getpid()
        for number in HANDLED:
            # One that is ignored stays so, as for a command that a script runs in the background.
            if signal.getsignal(number) not in (self._note, signal.SIG_IGN):
                self._before[number] = signal.signal(number, self._note)

    def leave(self) -> None:
        """Put back what handled them before."""
        for number, handler in self._before.items():
            # Lightning puts handlers back as well: only ours is replaced.
            if signal.getsignal(number) == self._note and handler is not None:
                signal.signal(number, handler)
        self._before = {}

    def check(self) -> None:
        """Stop if one came.

        Raises:
            Stopped: one did.
        """
        if self.received is not None:
            raise Stopped(self.received)

    def _note(self, number: int, frame: FrameType | None) -> None:
        # A forked worker that has not put its own handlers in place yet; and the second signal.
        if os.getpid() != self._process or self.received is not None:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        self.received = number
        name = signal.Signals(number).name
        # The descriptor, since the interrupted code may be inside a write to the stream.
        message = f"\n{name}: stopping after this step; once more stops at once\n"
        os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, message.encode())


def leave_signals_to_the_trainer(worker_id: int) -> None:
    """For worker processes of a loader: they go on until the trainer ends them.

    A terminal sends Ctrl-C to all of them. A worker that dies of it fails the step that was to be
    finished; and one that inherited the trainer's handlers could not be ended by the trainer.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
