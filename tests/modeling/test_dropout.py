"""Dropout: what it keeps, how often, and with which scale."""

import math

import pytest
import torch
import torch.nn.functional as F

from xlm_mlm.modeling.dropout import dropout

COUNT = 2**20


def kept(p, shape=(COUNT,)):
    return dropout(torch.ones(shape), p, True) != 0


def within(value, expected, deviation, sigmas=5):
    """At one seed; five standard deviations happen once in two million."""
    assert abs(value - expected) <= sigmas * deviation


@pytest.mark.parametrize("p", [0.01, 0.1, 0.25, 0.5, 0.9, 0.999])
def test_so_many_are_kept(p):
    within(kept(p).sum().item(), COUNT * (1 - p), math.sqrt(COUNT * p * (1 - p)))


@pytest.mark.parametrize("p", [0.1, 0.5])
@pytest.mark.parametrize("distance", [1, 2, 3, 64])
def test_whether_one_is_kept_says_nothing_of_another(p, distance):
    """Neighbours are halves of one number: 2k and 2k + 1 are, and 2k + 1 and 2k + 2 are not."""
    mask = kept(p).float() - (1 - p)
    for start in range(2):
        first, second = mask[start:-distance:2], mask[start + distance :: 2]
        covariance = (first * second).mean().item()
        within(covariance, 0, p * (1 - p) / math.sqrt(len(first)))


@pytest.mark.parametrize("half", [0, 1])
@pytest.mark.parametrize("p", [0.1, 0.5])
def test_both_halves_of_a_number_keep_as_often(half, p):
    mask = kept(p)[half::2]
    within(mask.sum().item(), len(mask) * (1 - p), math.sqrt(len(mask) * p * (1 - p)))


@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_what_is_kept_is_scaled_and_the_rest_is_zero(dtype, p):
    x = torch.randn(1001).to(dtype)
    out = dropout(x, p, True)
    assert out.dtype == dtype
    torch.testing.assert_close(out, torch.where(out != 0, x / (1 - p), 0))
    assert (out == 0).any()
    assert (out != 0).any()


def test_on_average_nothing_changes():
    x = torch.randn(50)
    out = dropout(x.expand(20_000, 50), 0.3, True)
    error = (out.mean(dim=0) - x).abs() / (x.abs() * math.sqrt(0.3 / 0.7 / 20_000))
    assert error.max() <= 5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_gradient_is_that_of_the_same_mask(dtype):
    x = torch.randn(7, 9).to(dtype).requires_grad_()
    out = dropout(x, 0.4, True)
    upstream = torch.randn(7, 9).to(dtype)
    out.backward(upstream)
    torch.testing.assert_close(x.grad, torch.where(out != 0, upstream / 0.6, 0))


def test_the_input_is_left_as_it_was():
    x = torch.randn(5, 5)
    before = x.clone()
    dropout(x, 0.5, True)
    assert torch.equal(x, before)


def test_the_seed_decides():
    torch.manual_seed(5)
    first, second = kept(0.5, (99,)), kept(0.5, (99,))
    torch.manual_seed(5)
    assert torch.equal(kept(0.5, (99,)), first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize(
    "shape", [(), (0,), (1,), (3,), (4, 0, 2), (2, 3, 5, 7)], ids=lambda shape: str(shape)
)
def test_any_shape_is_taken(shape):
    out = dropout(torch.ones(shape), 0.5, True)
    assert out.shape == shape
    assert ((out == 0) | (out == 2)).all()


def test_strided_inputs_are_taken():
    x = torch.randn(6, 8).T[::2]
    out = dropout(x, 0.5, True)
    torch.testing.assert_close(out, torch.where(out != 0, 2 * x, 0))


@pytest.mark.parametrize(("p", "training"), [(0.0, True), (0.5, False), (0, True)])
def test_where_nothing_drops_the_input_itself_comes_back(p, training):
    x, state = torch.randn(3), torch.get_rng_state()
    assert dropout(x, p, training) is x
    assert torch.equal(torch.get_rng_state(), state)


def test_probabilities_next_to_the_ends():
    """2**-32 is the smallest step: less is nothing, and so near to one all but 2**-32 drops."""
    assert kept(2.0**-40).all()
    assert not kept(1 - 2.0**-40).any()


def test_while_a_compiler_traces_torch_drops(monkeypatch):
    monkeypatch.setattr("torch.compiler.is_compiling", lambda: True)
    x = torch.randn(64)
    torch.manual_seed(3)
    ours = dropout(x, 0.5, True)
    torch.manual_seed(3)
    assert torch.equal(ours, F.dropout(x, 0.5))
