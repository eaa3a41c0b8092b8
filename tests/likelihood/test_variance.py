"""The example's simulation: its conditionals, its estimators, and the package's among them."""

import importlib.util
import itertools
import math
from pathlib import Path

import pytest
import torch

from xlm_mlm.likelihood_mlm import mlm_nll

FILE = Path(__file__).parents[2] / "examples" / "likelihood" / "variance.py"


@pytest.fixture
def variance():
    spec = importlib.util.spec_from_file_location("variance_example", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_conditionals_are_those_of_the_chain(variance, monkeypatch):
    monkeypatch.setattr(variance, "TOKENS", 3)
    monkeypatch.setattr(variance, "LENGTH", 4)
    chain = variance.Chain(0)
    joint = {
        text: math.exp(-float(chain.nll(torch.tensor([text]))[0]))
        for text in itertools.product(range(3), repeat=4)
    }
    assert sum(joint.values()) == pytest.approx(1)
    text = (0, 2, 1, 1)
    for mask in itertools.product([False, True], repeat=4):
        naive = 0.0
        for place in (i for i in range(4) if mask[i]):
            fits = [
                other for other in joint if all(mask[i] or other[i] == text[i] for i in range(4))
            ]
            right = sum(joint[other] for other in fits if other[place] == text[place])
            naive -= math.log(right / sum(joint[other] for other in fits))
        found = chain.token_nll(torch.tensor([text]), torch.tensor([mask])).sum(1)
        assert float(found[0]) == pytest.approx(naive, abs=1e-9)


def test_the_estimators_stand_in_the_order_of_the_table(variance):
    generator = torch.Generator().manual_seed(0)
    chain = variance.Chain(1)
    x = chain.draw(1, generator).expand(1500, -1)
    true = float(chain.nll(x[:1])[0])
    found = {kind: variance.estimate(kind, chain, x, generator) for kind in variance.KINDS}
    deviation = {kind: float(each.std()) for kind, each in found.items()}
    biased = "mean over masked tokens, times N"
    for kind, each in found.items():
        error = deviation[kind] / math.sqrt(len(x))
        if kind == biased:
            assert each.mean() - true > 2
        else:
            assert abs(each.mean() - true) < 4 * error
    best, plain = "stratified exact count, N/n", "exact count, N/n"
    assert deviation[best] < 0.85 * deviation[plain]
    assert deviation[plain] < 0.85 * deviation["Bernoulli, 1/t"]


class Denoiser(torch.nn.Module):
    """The chain as a network whose mask is one more token."""

    def __init__(self, variance, chain):
        super().__init__()
        self.mask, self.chain = variance.TOKENS, chain

    def forward(self, x_t, attention_mask=None, positions=None, block_mask=None):
        masked = x_t == self.mask
        logits = torch.full((*x_t.shape, self.mask + 1), -torch.inf, dtype=torch.float64)
        for token in range(self.mask):
            logits[..., token] = -self.chain.token_nll(x_t.masked_fill(masked, token), masked)
        return logits


def test_the_package_estimates_as_the_last_unbiased_row_does(variance):
    generator = torch.Generator().manual_seed(0)
    chain = variance.Chain(1)
    x = chain.draw(1, generator).expand(1500, -1)
    maskable = torch.ones_like(x, dtype=torch.bool)
    ours = mlm_nll(Denoiser(variance, chain), x, maskable, variance.TOKENS, batch_size=3000)
    theirs = variance.estimate("stratified exact count, N/n", chain, x, generator)
    error = float(ours.std()) / math.sqrt(len(x))
    assert abs(ours.mean() - chain.nll(x[:1])) < 4 * error
    # A standard deviation from 1500 draws is known to 2 %; far tails to somewhat less.
    assert ours.std() == pytest.approx(float(theirs.std()), rel=0.12)
