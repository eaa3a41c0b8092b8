"""The first signal is noted, the second ends the process; a worker leaves them to the trainer."""

import os
import signal
import subprocess
import sys

import pytest

from xlm_mlm.callbacks.signals import Signals, Stopped, leave_signals_to_the_trainer

NUMBERS = (signal.SIGINT, signal.SIGTERM)


@pytest.fixture(autouse=True)
def _handlers():
    before = {number: signal.getsignal(number) for number in NUMBERS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_first_is_noted_and_stops_where_it_is_asked_for(number, code, capfd):
    signals = Signals()
    signals.listen()
    signals.check()
    os.kill(os.getpid(), number)
    with pytest.raises(Stopped) as stopped:
        signals.check()
    assert stopped.value.code == code
    assert stopped.value.name == signal.Signals(number).name
    assert capfd.readouterr().err.count("once more stops at once") == 1


TWICE = """
import os, signal
from xlm_mlm.callbacks.signals import Signals
signals = Signals()
signals.listen()
os.kill(os.getpid(), {first})
print("still here", flush=True)
os.kill(os.getpid(), {second})
print("never", flush=True)
"""


@pytest.mark.parametrize(("first", "second"), [(2, 2), (15, 2)])
def test_the_second_ends_the_process_at_once(first, second):
    code = TWICE.format(first=first, second=second)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == -second
    assert done.stdout == "still here\n"
    assert "Traceback" not in done.stderr


def test_what_was_there_before_is_put_back():
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    before = [signal.getsignal(number) for number in NUMBERS]
    signals = Signals()
    for _ in range(2):
        signals.listen()
        signals.listen()
        assert signal.getsignal(signal.SIGTERM) != signal.SIG_DFL
        signals.leave()
        assert [signal.getsignal(number) for number in NUMBERS] == before


def test_handlers_of_others_stay():
    signals = Signals()
    signals.listen()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signals.leave()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN


def test_one_that_is_ignored_stays_ignored():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Signals().listen()
    assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN


def test_listening_anew_forgets():
    signals = Signals()
    signals.listen()
    os.kill(os.getpid(), signal.SIGTERM)
    signals.listen()
    signals.check()


def test_a_worker_neither_dies_of_ctrl_c_nor_survives_being_ended():
    Signals().listen()
    leave_signals_to_the_trainer(0)
    assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
