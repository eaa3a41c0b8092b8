"""Rules by name: ours, other packages', and what is said when a name or an option is wrong."""

import textwrap

import pytest
from omegaconf import OmegaConf

from xlm_mlm.plugin.registry import resolve
from xlm_mlm.sampling.named import make_rule
from xlm_mlm.sampling.positions import Budget, FixedCount, Uniform
from xlm_mlm.sampling.revise import P2, ReMDM
from xlm_mlm.sampling.thresholds import Klass, ProbabilityFactor, ProbabilityThreshold

pytestmark = pytest.mark.usefixtures("no_other_plugins")

OURS = [
    ("select", "uniform", Uniform),
    ("select", {"name": "fixed_count", "confidence": "entropy"}, FixedCount),
    ("select", {"name": "budget", "confidence": "entropy", "threshold": 0.1}, Budget),
    ("select", "probability_threshold", ProbabilityThreshold),
    ("select", {"name": "probability_factor", "factor": 1.0}, ProbabilityFactor),
    ("select", "klass", Klass),
    ("remask", "remdm", ReMDM),
    ("remask", "p2", P2),
]


@pytest.mark.parametrize(("method", "given", "kind"), OURS)
def test_a_name_gives_its_rule(method, given, kind):
    given = OmegaConf.create(given) if isinstance(given, dict) else given
    assert type(make_rule(given, method)) is kind
    name = given if isinstance(given, str) else given["name"]
    assert resolve("sampler", name) is kind


def test_options_reach_the_rule():
    given = {"name": "klass", "kappa": 0.5, "history": 3}
    rule = make_rule(given, "select")
    assert (rule.tau, rule.kappa, rule.history) == (0.9, 0.5, 3)
    assert given == {"name": "klass", "kappa": 0.5, "history": 3}


def test_nothing_and_objects_come_through():
    rule = Uniform()
    assert make_rule(rule, "select") is rule
    assert make_rule(None, "select") is None


@pytest.mark.parametrize(
    ("method", "given", "words"),
    [
        ("select", "klas", "strategy is 'klas'; the installed rules are 'budget', 'fixed_count'"),
        ("select", "remdm", "is a rule for the option revision"),
        ("remask", "klass", "is a rule for the option strategy"),
        ("select", {"tau": 0.9}, "must have the rule's name under `name`, which may be 'budget'"),
        ("remask", {"name": 3}, "which may be 'p2', 'remdm'"),
        ("select", {"name": "klass", "tua": 1}, "'tua'; its options: tau, kappa, history"),
        ("select", "probability_factor", "missing a required argument: 'factor'"),
        ("select", {"name": "klass", "tau": 7}, "tau is 7"),
        ("select", object(), "strategy is <object .*or one of 'budget'"),
        ("remask", object(), "revision is <object .*or one of 'p2', 'remdm'"),
    ],
)
def test_what_is_wrong_is_said(method, given, words):
    with pytest.raises(ValueError, match=words):
        make_rule(given, method)


STRANGER = textwrap.dedent(
    """
    class EveryOther:
        needs_logits = False

        def __init__(self, step=2):
            self.step = step

        def select(self, candidates):
            chosen = candidates.valid.clone()
            chosen[:, 1:] &= (candidates.columns[:, 1:] % self.step) == 0
            return chosen
    """
)


def test_a_strangers_rule_is_chosen_by_name(site):
    site.write(every_other=STRANGER)
    site.register("stranger", "1.2", xlm_mlm_samplers={"every_other": "every_other:EveryOther"})
    rule = make_rule({"name": "every_other", "step": 3}, "select")
    assert (type(rule).__name__, rule.step) == ("EveryOther", 3)
    assert resolve("sampler", "every_other") is type(rule)


def test_a_strangers_broken_rule_is_named_with_its_package(site):
    site.write(broken_rule="raise RuntimeError('on import')")
    site.register("stranger", "1.2", xlm_mlm_samplers={"bad": "broken_rule:Rule"})
    with pytest.raises(ValueError, match=r"'bad' of stranger 1.2.*RuntimeError: on import"):
        make_rule("bad", "select")
    # It does not stop the others from being listed.
    with pytest.raises(ValueError, match="'klass'"):
        make_rule(object(), "select")


def test_a_class_that_is_no_rule_is_refused(site):
    site.write(no_rule="class Rule: pass")
    site.register("stranger", "1.2", xlm_mlm_samplers={"none": "no_rule:Rule"})
    with pytest.raises(ValueError, match="defines select or remask"):
        resolve("sampler", "none")
