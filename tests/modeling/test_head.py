"""Projection and cross-entropy in chunks, against a loop in double precision and torch's own."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from xlm_mlm.modeling import head
from xlm_mlm.modeling.head import plain_cross_entropy, project, rows_at_once, weighted_cross_entropy

V, D, ROWS = 11, 6, 4


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(head, "_CHUNK", ROWS * V)
    monkeypatch.setattr(head, "_ROWS", 2)
    monkeypatch.setattr(head, "_BLOCK", 4)


def terms(n, dtype=torch.float32, scale=1.0):
    hidden = torch.randn(n, D, dtype=dtype) * scale
    weight = torch.randn(V, D, dtype=dtype)
    return hidden.requires_grad_(), weight.requires_grad_(), torch.randint(V, (n,)), torch.rand(n)


def naive_loss(hidden, weight, targets, weights):
    total = 0.0
    for state, target, factor in zip(hidden.tolist(), targets, weights.tolist(), strict=True):
        logits = [math.fsum(a * b for a, b in zip(state, w, strict=True)) for w in weight.tolist()]
        top = max(logits)
        log_sum = top + math.log(math.fsum(math.exp(value - top) for value in logits))
        total += factor * (log_sum - logits[target])
    return total


def reference(hidden, weight, targets, weights, factor=1.0):
    """Torch's own cross-entropy in double precision, with its gradients."""
    wide = [t.detach().double().requires_grad_() for t in (hidden, weight)]
    logits = F.linear(*wide)
    loss = (F.cross_entropy(logits, targets, reduction="none") * weights.double()).sum() * factor
    return loss, *torch.autograd.grad(loss, wide)


def assert_off_by_at_most(bound, actual, expected):
    error = (actual.double() - expected).norm()
    assert error <= bound * expected.norm(), f"{error / expected.norm():.1e}"


@pytest.mark.parametrize("n", [5, 8, 9, 15])
def test_loss_and_gradients_equal_those_of_all_logits(n):
    given = terms(n)
    assert n > rows_at_once(given[1]) == ROWS
    loss = weighted_cross_entropy(*given)
    loss.backward()
    assert loss.item() == pytest.approx(naive_loss(*given), rel=1e-6)
    for tensor, expected in zip(given, reference(*given)[1:], strict=False):
        torch.testing.assert_close(tensor.grad.double(), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("n", [0, 1, ROWS])
def test_few_positions_are_not_worth_a_chunk(monkeypatch, n):
    monkeypatch.setattr(head, "_sum_up", lambda *args: pytest.fail("chunked"))
    given = terms(n)
    loss = weighted_cross_entropy(*given)
    loss.backward()
    assert loss.item() == pytest.approx(naive_loss(*given), rel=1e-6)
    assert all(tensor.grad is not None for tensor in given[:2])


def test_gradients_are_right_to_the_last_digit():
    hidden, weight, targets, weights = terms(9, torch.float64)
    weights = weights.double()
    assert torch.autograd.gradcheck(
        lambda h, w: weighted_cross_entropy(h, w, targets, weights), (hidden, weight)
    )


@pytest.mark.parametrize("which", [[0, 3, 8], list(range(9))], ids=["some", "all"])
def test_terms_without_weight_do_not_count(which):
    hidden, weight, targets, weights = terms(9)
    weights[which] = 0
    loss = weighted_cross_entropy(hidden, weight, targets, weights)
    loss.backward()
    assert loss.item() == pytest.approx(naive_loss(hidden, weight, targets, weights), rel=1e-6)
    assert not hidden.grad[which].any()
    assert weight.grad.isfinite().all()
    assert bool(weight.grad.any()) == (len(which) < 9)


@pytest.mark.parametrize("sign", [1, -1])
def test_logits_of_ten_thousand_are_no_danger(sign):
    """By far the best token's loss is 0, another's the distance between the logits."""
    hidden, weight = torch.zeros(6, D), torch.zeros(V, D)
    hidden[:, 0], weight[3, 0] = 100.0, sign * 100.0
    hidden.requires_grad_()
    weight.requires_grad_()
    targets, weights = torch.tensor([3, 0, 3, 7, 3, 3]), torch.tensor([1, 2, 3, 4, 5, 6.0])
    loss = weighted_cross_entropy(hidden, weight, targets, weights)
    loss.backward()
    others = math.log(V - 1)
    expected = 6 * 1e4 if sign > 0 else 15 * (1e4 + others) + 6 * others
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    for tensor, gradient in zip(
        (hidden, weight), reference(hidden, weight, targets, weights)[1:], strict=True
    ):
        torch.testing.assert_close(tensor.grad.double(), gradient, atol=1e-4, rtol=1e-5)


def test_all_tokens_alike_score_the_log_of_the_vocabulary():
    hidden, _, targets, weights = terms(9)
    loss = weighted_cross_entropy(hidden, torch.ones(V, D), targets, weights / weights.sum())
    assert loss.item() == pytest.approx(math.log(V), rel=1e-6)


# A logit is a sum of D products, of rounded factors and rounded itself: in units of the last
# place, 2**-8 and 2**-11, about one. Gradients add two products more, each rounded.
HALVES = {torch.bfloat16: 2**-8, torch.float16: 2**-11}


@pytest.mark.parametrize("kind", HALVES)
@pytest.mark.parametrize("autocast", [False, True])
def test_half_precision_is_as_close_as_it_can_be(kind, autocast):
    given = terms(31, torch.float32 if autocast else kind)
    with torch.autocast("cpu", kind, enabled=autocast):
        loss = weighted_cross_entropy(*given)
    loss.backward()
    assert loss.dtype == torch.float32
    expected = reference(*given)
    assert loss.item() == pytest.approx(expected[0].item(), rel=HALVES[kind])
    for tensor, gradient in zip(given[:2], expected[1:], strict=True):
        assert tensor.grad.dtype == tensor.dtype
        assert_off_by_at_most(3 * HALVES[kind], tensor.grad, gradient)


@pytest.mark.parametrize("kind", HALVES)
def test_small_weights_lose_nothing_in_half_precision(kind):
    """1e-9 is nothing in fp16, but the weights of a mean over many positions may be as small."""
    hidden, weight, targets, weights = terms(31)
    weights = weights * 1e-9
    with torch.autocast("cpu", kind):
        loss = weighted_cross_entropy(hidden, weight, targets, weights)
    loss.backward()
    expected = reference(hidden, weight, targets, weights)
    assert loss.item() == pytest.approx(expected[0].item(), rel=HALVES[kind])
    assert_off_by_at_most(3 * HALVES[kind], hidden.grad, expected[1])
    assert_off_by_at_most(3 * HALVES[kind], weight.grad, expected[2])


@pytest.mark.parametrize("n", [ROWS, 31])
@pytest.mark.parametrize("kind", HALVES)
@pytest.mark.parametrize("autocast", [False, True])
def test_the_loss_is_summed_in_full_precision(kind, autocast, n):
    """Small whole numbers and their products are exact in any precision; their logarithms not."""
    hidden, weight = torch.randint(-2, 3, (n, D)), torch.randint(-2, 3, (V, D))
    given = [tensor.to(torch.float32 if autocast else kind) for tensor in (hidden, weight)]
    given += [torch.randint(V, (n,)), torch.rand(n) * 1e-3]
    with torch.autocast("cpu", kind, enabled=autocast):
        loss = weighted_cross_entropy(*given)
    assert loss.item() == pytest.approx(naive_loss(*given), rel=1e-6)


@pytest.mark.parametrize("factor", [3.0, -0.5, 0.0])
def test_gradients_scale_with_what_becomes_of_the_loss(factor):
    given = terms(9)
    (weighted_cross_entropy(*given) * factor).backward()
    for tensor, expected in zip(given[:2], reference(*given, factor)[1:], strict=True):
        torch.testing.assert_close(tensor.grad.double(), expected, atol=1e-6, rtol=1e-5)


def test_a_retained_graph_gives_the_same_gradients_again():
    given = terms(9)
    expected = reference(*given)[1:]
    loss = weighted_cross_entropy(*given) ** 1
    for factor in (1.0, 2.0, 1.0):
        gradients = torch.autograd.grad(loss, given[:2], torch.tensor(factor), retain_graph=True)
        for gradient, once in zip(gradients, expected, strict=True):
            torch.testing.assert_close(gradient.double(), factor * once, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("kind", HALVES)
def test_under_autocast_too_although_the_backward_pass_is_outside(kind):
    given = terms(9)
    with torch.autocast("cpu", kind):
        loss = weighted_cross_entropy(*given)
    first = torch.autograd.grad(loss, given[:2], retain_graph=True)
    for once, again in zip(first, torch.autograd.grad(loss, given[:2]), strict=True):
        assert torch.equal(once, again)


@pytest.mark.parametrize("frozen", [0, 1])
def test_what_is_frozen_gets_no_gradient(frozen):
    given = terms(9)
    given[frozen].requires_grad_(False)
    weighted_cross_entropy(*given).backward()
    assert given[frozen].grad is None
    other = 1 - frozen
    expected = reference(*given)[1 + other]
    torch.testing.assert_close(given[other].grad.double(), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("off", [torch.no_grad, torch.inference_mode])
def test_without_gradients_none_are_made(monkeypatch, off):
    given, made, sum_up = terms(9), [], head._sum_up

    def spy(*args):
        made.append(args[-1])
        return sum_up(*args)

    monkeypatch.setattr(head, "_sum_up", spy)
    with off():
        loss = weighted_cross_entropy(*given)
    assert loss.item() == pytest.approx(naive_loss(*given), rel=1e-6)
    weighted_cross_entropy(*(tensor.detach() for tensor in given))
    weighted_cross_entropy(*given)
    assert made == [False, False, True]


def test_a_second_derivative_is_refused():
    given = terms(9)
    loss = weighted_cross_entropy(*given)
    with pytest.raises(RuntimeError, match="no second derivative.*from them"):
        torch.autograd.grad(loss, given[0], create_graph=True)
    # Its own error leaves the graph as it was.
    loss.backward()
    assert given[0].grad is not None


def test_inputs_are_left_as_they_were():
    given = terms(9)
    before = [tensor.detach().clone() for tensor in given]
    weighted_cross_entropy(*given).backward()
    assert all(torch.equal(a, b) for a, b in zip(given, before, strict=True))


def test_while_a_compiler_traces_there_are_no_chunks(monkeypatch):
    monkeypatch.setattr("torch.compiler.is_compiling", lambda: True)
    monkeypatch.setattr(head, "_sum_up", lambda *args: pytest.fail("chunked"))
    given = terms(9)
    loss = weighted_cross_entropy(*given)
    assert loss.item() == pytest.approx(naive_loss(*given), rel=1e-6)


class Largest(TorchDispatchMode):
    """Notes the elements of the largest tensor that any operation makes."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return out


def test_the_logits_of_all_positions_are_never_held():
    given = terms(200)
    with Largest() as seen:
        weighted_cross_entropy(*given).backward()
    assert seen.elements == 200 * D < 200 * V
    with Largest() as seen:
        plain_cross_entropy(F.linear(*given[:2]), *given[2:]).backward()
    assert seen.elements == 200 * V


@pytest.mark.parametrize(
    ("vocabulary", "rows"), [(100, 83_840), (30_522, 256), (65_537, 128), (10**6, 128), (1, 2**23)]
)
def test_a_chunk_has_whole_hundreds_of_rows(monkeypatch, vocabulary, rows):
    monkeypatch.undo()
    assert rows_at_once(torch.empty(vocabulary, 1)) == rows


def test_the_plain_loss_is_fp32_and_zero_of_nothing():
    logits = torch.randn(3, V, dtype=torch.bfloat16)
    weights = torch.rand(3)
    loss = plain_cross_entropy(logits, torch.tensor([0, 5, 10]), weights)
    expected = -(logits.double().log_softmax(1)[[0, 1, 2], [0, 5, 10]] * weights).sum()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    nothing = torch.zeros(0, V, requires_grad=True)
    loss = plain_cross_entropy(nothing, torch.zeros(0, dtype=torch.long), torch.zeros(0))
    loss.backward()
    assert loss == 0
    assert nothing.grad.shape == (0, V)


@pytest.mark.parametrize("n", [0, 1, 7])
@pytest.mark.parametrize("vocabulary", [1, 4, 5, 11, 12])
def test_projection_by_blocks_is_a_projection(n, vocabulary):
    hidden, weight = torch.randn(n, D), torch.randn(vocabulary, D)
    for off in (torch.no_grad, torch.inference_mode):
        with off():
            logits = project(hidden, weight)
        assert logits.is_contiguous()
        torch.testing.assert_close(logits, hidden @ weight.T)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_projection_keeps_the_dtype(dtype):
    hidden, weight = torch.randn(7, D, dtype=dtype), torch.randn(V, D, dtype=dtype)
    with torch.no_grad():
        assert torch.equal(project(hidden, weight), F.linear(hidden, weight))
        with torch.autocast("cpu", torch.bfloat16):
            assert project(hidden.float(), weight.float()).dtype == torch.bfloat16


def test_projection_has_gradients():
    hidden, weight, *_ = terms(7)
    project(hidden, weight).pow(2).sum().backward()
    logits = (hidden @ weight.T).detach()
    torch.testing.assert_close(hidden.grad, 2 * logits @ weight.detach())
    torch.testing.assert_close(weight.grad, 2 * logits.T @ hidden.detach())
