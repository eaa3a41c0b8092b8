"""Options that go together, and those that do not."""

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
        ({"suppress_tokens": [1.5]}, r"suppress_tokens is \[1.5\]"),
        ({"suppress_tokens": 5}, "suppress_tokens is 5"),
        ({"allowed_tokens": "12"}, "allowed_tokens is '12'"),
    ],
)
def test_contradictions_and_nonsense_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        rules(**options)
