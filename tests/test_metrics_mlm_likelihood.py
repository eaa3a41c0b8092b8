"""Likelihood metrics against sums by hand."""

import math
import warnings

import pytest
import torch

from xlm_mlm.metrics_mlm import BitsPerToken, Perplexity, SequenceNLL, likelihood_update_fn

BATCHES = [([3.0, 0.0, 9.0], [2, 0, 5]), ([1.5], [1])]
CASES = {
    SequenceNLL: 13.5 / 3,
    BitsPerToken: 13.5 / 8 / math.log(2),
    Perplexity: math.exp(13.5 / 8),
}


def updated(metric, batches=BATCHES):
    for nll, tokens in batches:
        found = {"nll": torch.tensor(nll), "num_tokens": torch.tensor(tokens)}
        metric.update(**likelihood_update_fn({}, found))
    return metric


@pytest.mark.parametrize("kind", CASES)
def test_equals_the_sums(kind):
    metric = updated(kind())
    assert float(metric.compute()) == pytest.approx(CASES[kind], rel=1e-12)
    metric.reset()
    assert float(updated(metric).compute()) == pytest.approx(CASES[kind], rel=1e-12)


@pytest.mark.parametrize("kind", CASES)
def test_devices_are_summed(kind):
    shares = [updated(kind(), BATCHES[:1]), updated(kind(), BATCHES[1:])]
    merged = kind()
    for name, reduce in merged._reductions.items():
        states = torch.stack([getattr(share, name) for share in shares])
        setattr(merged, name, reduce(states))
    merged._update_count = 1
    assert float(merged.compute()) == pytest.approx(CASES[kind], rel=1e-12)


@pytest.mark.parametrize("kind", CASES)
def test_nothing_counted_is_nan_without_an_error(kind):
    metric = updated(kind(), [([0.0, 0.0], [0, 0])])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert math.isnan(metric.compute())


def test_many_small_terms_are_not_lost():
    metric = SequenceNLL()
    metric.nll += 2**25
    updated(metric, [([0.25], [1])] * 8)
    assert float(metric.nll) == 2**25 + 2
    # Within one batch, too.
    metric = updated(SequenceNLL(), [([2.0**24] + [1.0] * 5, [1] * 6)])
    assert float(metric.nll) == 2**24 + 5


@pytest.mark.parametrize(("mps", "dtype"), [(False, torch.float64), (True, torch.float32)])
def test_sums_are_in_the_widest_type_there_is(monkeypatch, mps, dtype):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert SequenceNLL().nll.dtype == dtype


def test_options_are_those_of_every_metric():
    assert not SequenceNLL(sync_on_compute=False).sync_on_compute


def test_the_graph_is_let_go():
    nll = torch.ones(2, requires_grad=True)
    found = likelihood_update_fn({}, {"nll": nll * 2, "num_tokens": torch.ones(2)})
    assert not found["nll"].requires_grad
    with pytest.raises(KeyError, match="no 'num_tokens'"):
        likelihood_update_fn({}, {"nll": nll})


def test_what_does_not_fit_is_refused():
    with pytest.raises(KeyError, match=r"no 'nll'.*num_mc_samples.*likelihood=mc_mlm"):
        likelihood_update_fn({}, {"loss": torch.tensor(1.0)})
    with pytest.raises(ValueError, match=r"\(2,\) and num_tokens \(1,\)"):
        Perplexity().update(torch.zeros(2), torch.zeros(1, dtype=torch.long))
    for name, given in (("nll", ([1.0], torch.ones(1))), ("num_tokens", (torch.ones(1), [1]))):
        with pytest.raises(
            ValueError, match=rf"^{name} is \[1.*\]; it must be a tensor, one a row"
        ):
            SequenceNLL().update(*given)
    with pytest.raises(ValueError, match="nll holds NaN"):
        SequenceNLL().update(torch.tensor([1.0, math.nan]), torch.ones(2))
