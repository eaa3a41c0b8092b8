"""Loss and gradients of one batch by the plain path and by the fast ones."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

PRECISIONS = ["fp32", "bf16", "autocast"]
FAST_WAYS = ["all logits", "some logits", "loss"]

# Error allowed relative to the norm, of the whole gradient and of that of one parameter.
# In fp32 a tenth of what the package promises, 1e-4. bf16 rounds by up to 2**-9 each time; some
# 30 roundings on the way through the layers and back, independent, come to sqrt(30) * 2**-9 =
# 1 %, and both sides err. What sums over tokens that cancel, as the weight of a norm does, is off
# by more: by up to 7 % in the plain path itself, measured against fp32.
TOLERANCES = {"fp32": (1e-5, 1e-5), "bf16": (0.03, 0.1), "autocast": (0.03, 0.1)}


class Batch(NamedTuple):
    """A batch, the positions of its loss, and what the plain path needs in place of `given`."""

    x: Tensor
    given: dict
    visible: Tensor
    positions: Tensor
    at: Tensor
    targets: Tensor
    weights: Tensor


class Outcome(NamedTuple):
    loss: Tensor
    gradients: dict


def assert_every_way_is_plain(monkeypatch, model, batch, precision):
    """The fast ways, packed and not, give the loss and the gradients of the plain one."""
    expected = plain(monkeypatch, model, batch, precision)
    for packed in (False, True):
        for way in FAST_WAYS:
            actual = fast(monkeypatch, model, batch, precision, way, packed)
            assert_same(actual, expected, precision)
    return expected


def make_batch(x, given, visible, positions, at, vocabulary):
    targets = torch.randint(vocabulary, (len(at),))
    return Batch(x, given, visible, positions, at, targets, torch.rand(len(at)))


def force_packing(monkeypatch, always):
    """Pack wherever it can be done, however small the gain, or nowhere."""
    monkeypatch.setattr("xlm_mlm.modeling.context.pays", lambda *args: always)


def force_chunks(monkeypatch):
    """Let the vocabulary projection take two positions at a time."""
    monkeypatch.setattr("xlm_mlm.modeling.head._CHUNK", 1)
    monkeypatch.setattr("xlm_mlm.modeling.head._ROWS", 2)


def in_precision(model, precision):
    return model.bfloat16() if precision == "bf16" else model


def plain(monkeypatch, model, batch, precision):
    """All logits of a padded batch, with a mask of all pairs, then torch's cross-entropy."""
    force_packing(monkeypatch, False)
    given = {"attention_mask": batch.visible, "positions": batch.positions}
    return _outcome(model, precision, lambda: _loss(model, batch, given, "all logits"))


def fast(monkeypatch, model, batch, precision, way, packed):
    """What the caller gave, by one of `FAST_WAYS`, packed or not."""
    force_packing(monkeypatch, packed)
    force_chunks(monkeypatch)
    return _outcome(model, precision, lambda: _loss(model, batch, batch.given, way))


def _loss(model, batch, given, way):
    if way == "loss":
        asked = {"targets": batch.targets, "target_weights": batch.weights}
        return model(batch.x, **given, logits_at=batch.at, **asked)
    if way == "some logits":
        logits = model(batch.x, **given, logits_at=batch.at)
    else:
        logits = model(batch.x, **given).flatten(0, 1)[batch.at]
    terms = F.cross_entropy(logits.float(), batch.targets, reduction="none")
    return (terms * batch.weights).sum()


def _outcome(model, precision, compute):
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "autocast"):
        loss = compute()
    loss.backward()
    return Outcome(loss.detach(), {n: p.grad.clone() for n, p in model.named_parameters()})


def assert_same(actual, expected, precision):
    """Loss, gradient, and each parameter's part of it."""
    of_all, of_one = TOLERANCES[precision]
    assert actual.loss.dtype == torch.float32
    torch.testing.assert_close(actual.loss, expected.loss, atol=1e-6, rtol=of_all)
    for name, gradient in expected.gradients.items():
        assert_near(actual.gradients[name], gradient, of_one, name)
    assert_near(*(_flat(outcome) for outcome in (actual, expected)), of_all, "all")


def _flat(outcome):
    return torch.cat([gradient.flatten() for gradient in outcome.gradients.values()])


def assert_near(actual, expected, bound, name=""):
    error, norm = (actual.float() - expected.float()).norm(), expected.float().norm()
    assert error <= bound * norm + 1e-7, f"{name}: {error:.2e} of {norm:.2e}"
