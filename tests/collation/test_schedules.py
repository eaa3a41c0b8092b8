"""Which noise schedules decide mask rates, and the rates and weights that follow."""

import math
import warnings

import numpy as np
import pytest
import torch
from xlm.noise import DummyNoiseSchedule

from xlm_mlm.collation.schedules import is_real, mask_rates


class Schedule:
    """A schedule of given times, rates and totals."""

    def __init__(self, times=(0.5,), rate=(2.0,), total=(1.0,)):
        self.times, self.rate, self.total = times, rate, total

    def sample_t(self, batch_size):
        torch.rand(3)
        return torch.tensor(self.times)

    def __call__(self, t):
        return torch.as_tensor(self.rate), torch.as_tensor(self.total)


class NoTimes(Schedule):
    def __call__(self, t):
        raise NotImplementedError("no rates either")


class Broken(Schedule):
    def sample_t(self, batch_size):
        raise RuntimeError("no table of times")


class OneNumber(Schedule):
    def __call__(self, t):
        return t


def test_a_schedule_is_one_that_draws_times():
    assert not is_real(None)
    assert not is_real(DummyNoiseSchedule())
    assert not is_real(object())
    assert is_real(Schedule())


def test_asking_leaves_torchs_random_state():
    for schedule in (Schedule(), Broken(), DummyNoiseSchedule()):
        state = torch.get_rng_state()
        try:
            is_real(schedule)
        except ValueError:
            assert isinstance(schedule, Broken)
        assert torch.equal(torch.get_rng_state(), state)


def test_rates_and_weights_as_a_loop_would():
    rate, total = [0.0, 3.0, 1.0, 5.0, 1e-3], [0.0, 0.7, 2.5, 900.0, math.inf]
    rates, weights = mask_rates(Schedule([0.0, 0.1, 0.2, 0.9, 1.0], rate, total), 5)
    assert rates == pytest.approx([1 - math.exp(-s) for s in total])
    expected = [
        r / (math.exp(s) - 1) if 0 < s < 700 else 0 for r, s in zip(rate, total, strict=True)
    ]
    assert weights == pytest.approx(expected, rel=1e-5)
    assert (rates.dtype, weights.dtype) == ("float64", "float32")


@pytest.mark.parametrize(("rate", "total"), [(1.0, 800.0), (1.0, 0.0), (0.0, 0.0), (3.0, 1e-310)])
def test_extreme_noise_is_no_occasion_for_a_warning(rate, total):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        schedule = Schedule([0.5], torch.tensor([rate]), torch.tensor([total]).double())
        rates, weights = mask_rates(schedule, 1)
    assert rates[0] == pytest.approx(1 - math.exp(-total))
    assert 0 <= weights[0] <= np.finfo(np.float32).max


def test_the_weight_is_the_rate_at_which_tokens_are_masked_over_the_masked():
    """-a' / (1 - a) with a' by finite differences, for a schedule that is not log-linear."""

    class Cosine(Schedule):
        def __call__(self, t):
            angle = torch.pi / 2 * (1 - t)
            return torch.pi / 2 * torch.cos(angle) / torch.sin(angle), -torch.log(torch.sin(angle))

    times = [0.1, 0.5, 0.8]
    _, weights = mask_rates(Cosine(times), 3)
    for t, weight in zip(times, weights, strict=True):
        shown = [math.sin(math.pi / 2 * (1 - x)) for x in (t - 1e-4, t, t + 1e-4)]
        assert weight == pytest.approx((shown[0] - shown[2]) / 2e-4 / (1 - shown[1]), rel=1e-4)


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        (Broken(), r"Broken.sample_t\(1\): RuntimeError: no table of times.*None leaves the rates"),
        (NoTimes(), r"NoTimes\(t\): NotImplementedError: no rates either"),
        (OneNumber(), r"OneNumber\(t\): ValueError"),
        (Schedule(times=[math.nan]), "Schedule gives t nan"),
        (Schedule(times=[math.inf]), "Schedule gives t inf .* finite number"),
        (Schedule(times=[0.1, 0.2]), r"Schedule.sample_t\(1\) is of shape \(2,\).*\(1,\)"),
        (Schedule(times=0.5), r"of shape \(\); it must be a tensor of shape \(1,\)"),
        (Schedule(rate=[-1.0]), "Schedule gives the rate -1 at t = 0.5"),
        (Schedule(rate=[math.inf]), "the rate inf"),
        (Schedule(total=[-0.1]), "the total noise -0.1 .* is a probability"),
        (Schedule(total=[math.nan]), "the total noise nan"),
        (Schedule(total=[[1.0]]), r"the total noise of Schedule is of shape \(1, 1\)"),
    ],
)
def test_a_schedule_that_does_not_work_is_named(schedule, words):
    with pytest.raises(ValueError, match=words):
        is_real(schedule)


def test_times_that_are_no_tensor_are_refused():
    schedule = Schedule()
    schedule.sample_t = lambda batch_size: [0.5]
    with pytest.raises(ValueError, match=r"is \[0.5\]; it must be a tensor"):
        is_real(schedule)
