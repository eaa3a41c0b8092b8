"""The first layer of repeated tokens, worked out once, against every token by itself."""

import pytest
import torch
from naive_network import build

from xlm_mlm.modeling import context

# Ids; how many of them the embedding is asked for.
BATCHES = {
    "all masks": (torch.full((3, 7), 2), 1),
    "half masks": (torch.tensor([[2, 2, 5, 2], [2, 6, 5, 2], [2, 2, 2, 5]]), 3),
    "as many as it may be": (torch.tensor([[2, 5, 6, 2], [5, 6, 2, 9]]), 4),
    "one too many": (torch.tensor([[2, 5, 6, 8], [5, 6, 2, 9]]), 8),
    "none": (torch.tensor([[5, 6, 7, 8, 9]]), 5),
}


def outcome(model, x, valid, at):
    model.zero_grad()
    asked = []
    forward = torch.nn.functional.embedding

    def counting(ids, weight, *rest, **options):
        if weight is model.embed_tokens.weight:
            asked.append(ids.numel())
        return forward(ids, weight, *rest, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.functional, "embedding", counting)
        logits = model(x, valid, logits_at=at)
    logits.square().sum().backward()
    return logits.detach(), {n: p.grad.clone() for n, p in model.named_parameters()}, asked


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("name", BATCHES)
def test_equal_tokens_share_their_first_projection(monkeypatch, name, padded):
    x, expected = BATCHES[name]
    valid = torch.ones_like(x, dtype=torch.bool)
    if padded:
        valid[0, -1:] = False
    monkeypatch.setattr(context, "pays", lambda *_: False)
    model, at = build(), torch.arange(0, x.numel(), 2)
    fast = outcome(model, x, valid, at)
    monkeypatch.setattr(context.Line, "distinct", lambda line: (line.tokens, None))
    plain = outcome(model, x, valid, at)
    assert (fast[2], plain[2]) == ([expected], [x.numel()])
    torch.testing.assert_close(fast[0], plain[0], atol=1e-6, rtol=1e-5)
    for parameter, gradient in plain[1].items():
        torch.testing.assert_close(fast[1][parameter], gradient, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("path", ["embed_tokens", "encoder.0", "encoder.0.norm1"])
def test_whoever_listens_sees_every_token(path):
    model, x = build(), BATCHES["all masks"][0]
    seen = []
    hook = lambda module, args, out: seen.append(out.shape[0])  # noqa: E731
    model.get_submodule(path).register_forward_hook(hook)
    model(x)
    assert seen == [x.numel()]


def test_a_single_layer_has_no_first_one_to_share():
    model, x = build(num_layers=1), BATCHES["all masks"][0]
    assert outcome(model, x, None, torch.tensor([0, 5]))[2] == [x.numel()]


@pytest.mark.parametrize("how", ["weights", "autocast"])
def test_in_half_precision_every_token_is_worked_out(how):
    """The gradients of thousands of masks, added up in bf16, would stop growing."""
    model, x = build(), BATCHES["all masks"][0]
    if how == "weights":
        model = model.bfloat16()
    with torch.autocast("cpu", torch.bfloat16, enabled=how == "autocast"):
        assert outcome(model, x, None, torch.tensor([0, 5]))[2] == [x.numel()]
