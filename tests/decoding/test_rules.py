"""Options that go together, and those that do not."""

import numpy as np
import pytest

from xlm_mlm import MLMPredictor
from xlm_mlm.sampling.positions import FixedCount, Uniform
from xlm_mlm.sampling.revise import P2, ReMDM
from xlm_mlm.sampling.thresholds import Klass


def rules(**options):
    return MLMPredictor(4, **options).rules


def test_a_revision_brings_its_own_rule_unless_one_is_named():
    revised = rules(revision="remdm")
    assert isinstance(revised.revision, ReMDM)
    assert revised.strategy is revised.revision.selection
    assert isinstance(rules(revision="remdm", strategy="klass").strategy, Klass)
    assert isinstance(rules(revision="remdm", strategy=Uniform()).strategy, Uniform)
    assert isinstance(rules(revision="remdm", confidence="entropy").strategy, FixedCount)
    assert rules(revision=P2()).by_scores
    assert rules(revision={"name": "remdm", "rule": "conf"}).needs_p


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"revision": "p2", "confidence": "entropy"}, "'p2', which chooses the positions itself"),
        ({"revision": "p2", "strategy": "klass"}, "leave strategy, confidence and threshold"),
        ({"revision": "remdm", "block_length": 4}, "block_length is 4 and revision is 'remdm'"),
        ({"strategy": "klass", "threshold": 0.1, "confidence": "entropy"}, "one or the other"),
        ({"strategy": "p2"}, "is a rule for the option revision"),
        ({"block_length": 0}, "block_length is 0"),
        ({"cfg_scale": -0.5}, "cfg_scale is -0.5"),
        ({"cfg_scale": "strong"}, "cfg_scale is 'strong'"),
        ({"suppress_tokens": "[EOS]"}, r"suppress_tokens is '\[EOS\]'; it must be a list"),
        ({"suppress_tokens": [1.5]}, r"a token of suppress_tokens is 1.5"),
        ({"suppress_tokens": 5}, "suppress_tokens is 5"),
        ({"allowed_tokens": "12"}, "allowed_tokens is '12'"),
    ],
)
def test_contradictions_and_nonsense_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        rules(**options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"strategy": Klass}, "strategy is the class Klass; give an object"),
        ({"revision": P2}, "revision is the class P2; give an object"),
        ({"revision": {"name": "remdm", "loop": 5}}, "loop is 5; it must be three numbers"),
        ({"revision": {"name": "remdm", "loop": "abc"}}, "loop is 'abc'"),
        ({"cfg_scale": 1e300}, r"cfg_scale is 1e\+300; it must be from 0 \(off\) to a million"),
        ({"suppress_tokens": [True]}, "a token of suppress_tokens is True"),
        ({"suppress_tokens": [-1]}, "a token of suppress_tokens is -1"),
        ({"suppress_tokens": {"a": 1}}, "it must be a list of token ids or tokens"),
        ({"allowed_tokens": {}}, "an empty mapping"),
    ],
)
def test_what_used_to_fail_later_or_not_at_all(options, words):
    with pytest.raises(ValueError, match=words):
        rules(**options)


def test_options_can_be_set_later_and_are_checked_together():
    one = MLMPredictor(4, seed=3)
    one.strategy, one.temperature, one.block_length = "klass", 0.0, 2
    one.suppress_tokens, one.cfg_scale = [np.int64(4), "5"], 2
    assert isinstance(one.rules.strategy, Klass)
    assert one.rules.sampler.greedy
    assert one.rules.blocks.block_length == 2
    assert one.rules.suppress_tokens == [4, "5"]
    assert (one.temperature, one.strategy, one.seed) == (0.0, "klass", 3)
    before = one.rules
    with pytest.raises(ValueError, match="block_length is 2 and revision is 'remdm'"):
        one.revision = "remdm"
    assert one.rules is before
    assert one.revision is None
    one.seed = 5
    assert (one.seed, one.samples_seen) == (5, 0)
    with pytest.raises(AttributeError):
        _ = one.no_such_option


def test_a_block_may_be_longer_than_anything():
    assert rules(block_length=10**30).blocks.block_length >= 2**31
