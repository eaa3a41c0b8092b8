"""Fewer logits and a loss in chunks, against torch's own loss of all logits, without packing."""

import pytest
import torch
from naive_network import MAX, V, build, rows
from torch import nn
from two_ways import (
    FAST_WAYS,
    PRECISIONS,
    assert_every_way_is_plain,
    assert_same,
    fast,
    in_precision,
    make_batch,
    plain,
)


def triangle(batch, length):
    return torch.ones(batch, length, length, dtype=torch.bool).tril()


def no_mask(x):
    return {}, torch.ones(*x.shape, x.shape[1], dtype=torch.bool)


def mask_of_ones(x):
    return {"attention_mask": torch.ones_like(x)}, no_mask(x)[1]


def causal(x):
    return {"attention_mask": triangle(*x.shape)}, triangle(*x.shape)


def causal_in_integers(x):
    return {"attention_mask": triangle(*x.shape).int()}, triangle(*x.shape)


def queries_without_a_key(x):
    """The second half of the queries sees nothing, which comes to all."""
    visible = triangle(*x.shape)
    visible[:, (x.shape[1] + 1) // 2 :] = False
    opened = visible.clone()
    opened[:, (x.shape[1] + 1) // 2 :] = True
    return {"attention_mask": visible}, opened


def no_query_has_a_key(x):
    return {"attention_mask": torch.zeros_like(triangle(*x.shape))}, no_mask(x)[1]


MASKS = [
    no_mask,
    mask_of_ones,
    causal,
    causal_in_integers,
    queries_without_a_key,
    no_query_has_a_key,
]


def make(mask, shape=(3, 7), asked="some", positions=None):
    x = rows(*shape)
    given, visible = mask(x)
    everywhere = torch.arange(x.numel())
    some = torch.cat((everywhere.flip(0)[::2], everywhere[:3]))
    at = {"all": everywhere, "none": everywhere[:0], "some": some}[asked]
    if positions is not None:
        given["positions"] = positions
    used = torch.arange(shape[1])[None] if positions is None else positions
    return make_batch(x, given, visible, used, at, V)


@pytest.mark.parametrize("asked", ["all", "some", "none"])
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("mask", MASKS)
def test_loss_and_gradients_are_those_of_all_logits(monkeypatch, mask, precision, asked):
    model, batch = in_precision(build(num_layers=2), precision), make(mask, asked=asked)
    expected = assert_every_way_is_plain(monkeypatch, model, batch, precision)
    if asked == "none":
        assert expected.loss == 0
        assert not any(gradient.any() for gradient in expected.gradients.values())


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (4, 1), (5, 2)])
@pytest.mark.parametrize("mask", [no_mask, causal, queries_without_a_key])
def test_batches_may_have_one_row_or_one_token(monkeypatch, mask, shape):
    assert_every_way_is_plain(monkeypatch, build(num_layers=2), make(mask, shape), "fp32")


@pytest.mark.parametrize("rows_of_positions", [1, 3])
@pytest.mark.parametrize("mask", [no_mask, causal])
def test_given_positions_turn_the_tokens_asked_for(monkeypatch, mask, rows_of_positions):
    positions = torch.randint(MAX, (rows_of_positions, 7))
    batch = make(mask, positions=positions)
    assert_every_way_is_plain(monkeypatch, build(num_layers=2), batch, "fp32")


@pytest.mark.parametrize(
    "options",
    [
        {"num_layers": 1},
        {"activation": "gelu"},
        {"final_layer_without_normalization": True},
        {"rotary_emb_dim": 8},
        {"dim_feedforward": 5},
    ],
    ids=lambda options: next(iter(options)),
)
def test_every_kind_of_network_has_the_fast_ways(monkeypatch, options):
    model = build(**{"num_layers": 2, **options})
    assert_every_way_is_plain(monkeypatch, model, make(causal), "fp32")


def test_without_weights_the_loss_is_the_mean(monkeypatch):
    model, batch = build(num_layers=2), make(no_mask)
    weights = torch.full_like(batch.weights, 1 / len(batch.at))
    expected = plain(monkeypatch, model, batch._replace(weights=weights), "fp32").loss
    for weight in (None, weights):
        loss = model(batch.x, logits_at=batch.at, targets=batch.targets, target_weights=weight)
        torch.testing.assert_close(loss, expected)
    nothing = batch.at[:0]
    assert model(batch.x, logits_at=nothing, targets=nothing) == 0


@pytest.mark.parametrize("mask", [no_mask, causal])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_attention_with_dropout_is_the_same_but_for_the_dropout(monkeypatch, mask, precision):
    """In training the CPU's attention is written out; here it drops nothing."""
    model, batch = in_precision(build(num_layers=2, dropout=0.5), precision), make(mask)
    expected = plain(monkeypatch, model, batch, precision)
    model.train()
    for layer in model.encoder:
        layer.dropout = 1e-12
    for packed in (False, True):
        for way in FAST_WAYS:
            actual = fast(monkeypatch, model, batch, precision, way, packed)
            assert_same(actual, expected, precision)


class Adapted(nn.Linear):
    """A projection that adds what its weight does not hold, as adapters do."""

    def forward(self, x):
        return super().forward(x) + 0.5 * torch.roll(super().forward(x), 1, dims=-1)


def adapt(module, name):
    old = getattr(module, name)
    new = Adapted(old.in_features, old.out_features, bias=False)
    new.load_state_dict(old.state_dict())
    setattr(module, name, new)


def add_bias(module, name):
    old = getattr(module, name)
    new = nn.Linear(old.in_features, old.out_features)
    new.load_state_dict(old.state_dict(), strict=False)
    setattr(module, name, new)


def hook_forward(module, name):
    getattr(module, name).register_forward_hook(lambda linear, args, out: 1.5 * out)


def hook_before(module, name):
    getattr(module, name).register_forward_pre_hook(lambda linear, args: (1.5 * args[0],))


def hook_gradient(module, name):
    linear = getattr(module, name)
    linear.register_full_backward_hook(lambda linear, into, out: (2 * into[0],))


def replace_forward(module, name):
    linear = getattr(module, name)
    linear.forward = lambda x: 1.5 * nn.functional.linear(x, linear.weight)


CHANGES = [adapt, add_bias, hook_forward, hook_before, hook_gradient, replace_forward]
HOOKS = [hook_forward, hook_before, hook_gradient]


@pytest.mark.parametrize(
    ("path", "name", "change"),
    [("encoder.0", "attn_qkv", change) for change in CHANGES]
    + [("output_layer", "linear", change) for change in CHANGES]
    + [("", "output_layer", change) for change in HOOKS],
)
def test_what_hangs_on_a_projection_takes_part(monkeypatch, path, name, change):
    model, batch = build(num_layers=1), make(causal)
    before = plain(monkeypatch, model, batch, "fp32").gradients["embed_tokens.weight"]
    change(model.get_submodule(path), name)
    after = assert_every_way_is_plain(monkeypatch, model, batch, "fp32").gradients
    assert not torch.allclose(after["embed_tokens.weight"], before)
