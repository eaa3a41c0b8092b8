"""What becomes of a check: passed, broken, could not run, absent; nothing gets out of it."""

import pytest
import torch

from xlm_mlm.conformance import rules
from xlm_mlm.conformance.rules import (
    Broken,
    CannotRun,
    Check,
    NothingHere,
    Rule,
    asking,
    preparing,
    where,
)


def run(check, *parts, absent=None, needs=(), somewhere=False):
    rule = Rule("area-name", "thing", "It holds.", "host.py", needs, somewhere, check)
    return Check(rule, parts, absent or {}, "there is none").run()


def test_what_passes_says_nothing():
    result = run(lambda part: None, "a")
    assert (result.outcome, result.message, result.part) == ("passed", "", "a")
    assert (result.rule, result.area, result.says) == ("area-name", "area", "It holds.")


def test_a_broken_rule_says_where_to_look():
    def check(part):
        raise Broken("3 where 4 is right", look_at=Check.run)

    result = run(check, "a")
    assert result.outcome == "broken"
    first, second = result.message.splitlines()
    assert first == "a: 3 where 4 is right"
    assert second.startswith("look at: xlm_mlm.conformance.rules.Check.run (")


@pytest.mark.parametrize("error", [ValueError("odd"), SystemExit(3), AssertionError()])
def test_whatever_is_raised_in_between_could_not_run(error):
    def check(part):
        raise error

    result = run(check, "a")
    assert result.outcome == "could not run"
    assert type(error).__name__ in result.message


def test_an_interrupt_comes_through():
    def check(part):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(check, "a")


@pytest.mark.parametrize(("context", "outcome"), [(asking, "broken"), (preparing, "could not run")])
@pytest.mark.parametrize("error", [IndexError("7"), SystemExit("gone")])
def test_their_code_breaks_the_rule_and_preparation_does_not(context, outcome, error):
    def check(part):
        with context("calling it"):
            raise error

    result = run(check, "a")
    assert result.outcome == outcome
    assert f"calling it raises {type(error).__name__}: {error}, at {__file__}:" in result.message


@pytest.mark.parametrize("inner", [Broken("b"), CannotRun("c"), NothingHere("n")])
def test_verdicts_pass_through_both(inner):
    for context in (asking, preparing):
        with pytest.raises(type(inner)), context("x"):
            raise inner


def test_what_is_declared_absent_is_left_out():
    def check(part):
        raise Broken("never")

    result = run(check, "a", needs=("prompt",), absent={"prompt": "it has none"})
    assert (result.outcome, result.message) == ("absent", "prompt: it has none")
    assert run(check, "a", needs=("prompt",), absent={"other": "x"}).outcome == "broken"


def test_a_kind_of_part_may_be_absent():
    assert run(None, absent={"thing": "of others"}).outcome == "absent"


def test_no_part_is_a_failure():
    result = run(None)
    assert (result.outcome, result.message) == ("could not run", "there is none")


def nothing_in_b(part):
    if part == "b":
        raise NothingHere("nothing")


def test_one_part_is_enough_for_a_rule_that_holds_somewhere():
    result = run(nothing_in_b, "b", "a", somewhere=True)
    assert (result.outcome, result.part) == ("passed", "b; a")


def test_nothing_anywhere_is_a_failure():
    result = run(nothing_in_b, "b", "b", somewhere=True, needs=("prompt",))
    assert result.outcome == "could not run"
    assert "no prompt, let its adapter say so" in result.message


def test_what_is_broken_comes_before_what_could_not_run():
    def check(part):
        raise {"a": CannotRun("unbuilt"), "b": Broken("wrong"), "c": NothingHere("none")}[part]

    result = run(check, "a", "b", "c", somewhere=True)
    assert (result.outcome, result.message) == ("broken", "b: wrong")
    result = run(check, "c", "a", somewhere=True)
    assert (result.outcome, result.message) == ("could not run", "a: unbuilt")


@pytest.mark.parametrize("compiles", [False, True])
def test_only_a_rule_about_compilation_compiles(compiles):
    traced = []

    def backend(graph, inputs):
        traced.append(graph)
        return graph.forward

    def check(part):
        torch._dynamo.reset()
        assert torch.compile(lambda x: x + 1, backend=backend)(torch.ones(2)).tolist() == [2, 2]

    rule = Rule("a-b", "thing", "x.", "y", (), False, check, compiles=compiles)
    assert Check(rule, ("a",), {}).run().outcome == "passed"
    assert bool(traced) is compiles


def test_two_rules_with_one_name(monkeypatch):
    monkeypatch.setattr(rules, "RULES", {})
    add = rules.rule("a-b", part="model", says="x", host="y")
    add(lambda part: None)
    with pytest.raises(ValueError, match="two rules named a-b"):
        add(lambda part: None)


def test_where_things_stand(tmp_path):
    assert where(Rule).startswith("xlm_mlm.conformance.rules.Rule (")
    assert where(Broken("x")).startswith("xlm_mlm.conformance.rules.Broken (")
    assert where(tmp_path) == str(tmp_path)
    assert where(len) == "builtins.len"


def test_every_rule_says_what_and_why():
    import xlm_mlm.conformance.checks  # noqa: F401

    for rule in rules.RULES.values():
        assert rule.says.endswith("."), rule.name
        assert len(rule.host) > 20, rule.name
        assert rule.check.__doc__, rule.name
