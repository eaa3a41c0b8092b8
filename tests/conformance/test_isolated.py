"""A check that crashes or hangs is a finding, and not the end."""

import multiprocessing
import os
import signal
import time

import pytest
import torch

from xlm_mlm.conformance.isolated import Died, in_child, run_isolated
from xlm_mlm.conformance.rules import Broken, Check, Rule


def check(action, part="model"):
    rule = Rule("area-name", part, "It holds.", "host.py", (), False, action)
    return Check(rule, ("a",), {})


def wrong(part):
    raise Broken("3 where 4 is right")


def test_results_come_back():
    assert run_isolated(check(lambda part: None)).outcome == "passed"
    result = run_isolated(check(wrong))
    assert (result.outcome, result.message) == ("broken", "a: 3 where 4 is right")


@pytest.mark.parametrize(
    ("end", "said"),
    [
        (lambda part: os.kill(os.getpid(), signal.SIGKILL), "ended by SIGKILL"),
        (lambda part: os._exit(0), "ended with code 0"),
    ],
)
def test_a_process_that_dies_breaks_the_rule(end, said):
    result = run_isolated(check(end))
    assert result.outcome == "broken"
    assert said in result.message


def test_a_check_that_hangs_is_ended():
    result = run_isolated(check(lambda part: time.sleep(60)), seconds=0.5)
    assert result.outcome == "broken"
    assert "was not done after 0 s and was ended" in result.message


def test_what_is_raised_comes_back():
    with pytest.raises(Broken, match="3 where 4"):
        in_child(lambda: wrong("a"))
    with pytest.raises(SystemExit):
        in_child(lambda: exec("raise SystemExit(3)"))


def test_an_interrupt_by_the_plugin_is_a_finding():
    result = run_isolated(check(lambda part: exec("raise KeyboardInterrupt")))
    assert (result.outcome, "was interrupted" in result.message) == ("broken", True)


def test_what_can_t_be_sent_is_said():
    with pytest.raises(Died, match="can't be sent: <function"):
        in_child(lambda: lambda: 1)


def test_a_child_may_have_children():
    def ask():
        with multiprocessing.get_context("fork").Pool(1) as pool:
            return pool.apply(len, ("abc",))

    assert in_child(ask, seconds=60) == 3


def test_the_state_of_this_process_is_safe():
    state, mode = torch.get_rng_state(), torch.is_grad_enabled()

    def spoil(part):
        torch.manual_seed(5)
        torch.set_grad_enabled(False)

    assert run_isolated(check(spoil)).outcome == "passed"
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.is_grad_enabled() is mode


def test_training_and_threads_work_in_there():
    torch.randn(300, 300) @ torch.randn(300, 300)  # starts the threads of this process

    def train(part):
        weight = torch.randn(300, 300, requires_grad=True)
        (weight @ weight).sum().backward()

    assert run_isolated(check(train), seconds=60).outcome == "passed"


def test_what_starts_processes_itself_stays_here():
    seen = []
    run_isolated(check(lambda part: seen.append(os.getpid()), part="process"))
    assert seen == [os.getpid()]
