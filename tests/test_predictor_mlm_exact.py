"""One token a pass, with exact conditionals, draws from the joint distribution itself.

Whatever position comes next, and even where the choice depends on the model's confidence, the
product of exact conditionals is the joint distribution: every rule claims it.
"""

import pytest
import torch
from oracle import FIRST, MASK, Oracle, chi_square_p

from xlm_mlm import MLMPredictor

N = 20_000
RULES = {
    "uniform": {},
    "top_prob, perturbed": {"confidence": "top_prob"},
    "top_prob, greedy": {"confidence": "top_prob", "confidence_temperature": 0.0},
    "prob_diff": {"confidence": "prob_diff"},
    "entropy": {"confidence": "entropy", "confidence_temperature": 0.3},
    "budget of 0": {"confidence": "entropy", "threshold": 0.0},
    "threshold of 1": {"strategy": {"name": "probability_threshold", "tau": 1.0}},
    "factor of 0": {"strategy": {"name": "probability_factor", "factor": 0.0}},
    "klass": {"strategy": {"name": "klass", "tau": 1.0}},
    "blocks of 1": {"block_length": 1},
    "blocks of 2": {"block_length": 2, "confidence": "top_prob"},
    "numbers of one's own": {"seed": 11},
}


def joint(seed=0, zeros=False):
    made = torch.rand(3, 3, 3, generator=torch.Generator().manual_seed(seed)).double() ** 3
    if zeros:
        # Some tokens are certain once others are known: rules may then take two in a pass.
        made[0, 1:] = made[1, :, 2] = made[2, 0, :2] = 0
    return made / made.sum()


def draw(tokenizer, model, **options):
    one = MLMPredictor(3, tokenizer=tokenizer, model=model, **options)
    return one.predict({"input_ids": torch.full((N, 3), MASK)})["ids"] - FIRST


@pytest.mark.parametrize("zeros", [False, True], ids=["positive", "zeros"])
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
def test_samples_have_the_joint_distribution(tokenizer, rule, zeros):
    samples = draw(tokenizer, Oracle(joint(zeros=zeros)), **rule)
    assert chi_square_p(samples, joint(zeros=zeros)) > 0.001


def test_the_test_can_fail(tokenizer):
    """Two tokens a pass draw from products of marginals, and the test sees it."""
    one = MLMPredictor(2, tokenizer=tokenizer, model=Oracle(joint()))
    samples = one.predict({"input_ids": torch.full((N, 3), MASK)})["ids"] - FIRST
    assert chi_square_p(samples, joint()) < 1e-6


def test_given_tokens_condition(tokenizer):
    x = torch.full((N, 3), MASK)
    x[:, 1] = FIRST + 2
    one = MLMPredictor(2, tokenizer=tokenizer, model=Oracle(joint()))
    samples = one.predict({"input_ids": x})["ids"] - FIRST
    left = joint()[:, 2]
    assert chi_square_p(samples[:, [0, 2]], left / left.sum()) > 0.001


def test_suppressed_and_disallowed_tokens_leave_the_rest_as_it_was(tokenizer):
    """At the last position only its own conditional matters: the rest is renormalised."""
    x = torch.full((N, 3), MASK)
    x[:, 0], x[:, 1] = FIRST, FIRST + 1
    p = joint()[0, 1].clone()
    p[1] = 0
    for options in ({"suppress_tokens": [FIRST + 1]}, {"allowed_tokens": {2: ["0", "2"]}}):
        one = MLMPredictor(1, tokenizer=tokenizer, model=Oracle(joint()), **options)
        last = one.predict({"input_ids": x})["ids"][:, 2:] - FIRST
        assert chi_square_p(last, p / p.sum()) > 0.001


def test_revisions_come_closer_the_more_passes_they_have(tokenizer):
    """Taken-back tokens mend what was drawn in parallel: ReMDM promises it in the limit."""

    def distance(passes, **options):
        one = MLMPredictor(passes, tokenizer=tokenizer, model=Oracle(joint(1)), **options)
        samples = one.predict({"input_ids": torch.full((N, 3), MASK)})["ids"] - FIRST
        codes = (samples * torch.tensor([9, 3, 1])).sum(dim=1)
        found = torch.bincount(codes, minlength=27).double() / N
        return float((found - joint(1).flatten()).abs().sum() / 2)

    exact = distance(3)
    few, many = (distance(n, revision={"name": "remdm", "eta": 0.05}) for n in (2, 24))
    # The distance of 20,000 exact samples is about 0.01.
    assert exact < 0.02
    assert few > 0.1
    assert many < 0.02
