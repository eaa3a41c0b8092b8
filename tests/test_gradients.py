"""Gradients in double precision against differences, of the loss and of every fast path.

Paths that are for single precision alone are opened to double here, or compared with the plain one.
"""

import contextlib
from unittest import mock

import pytest
import torch
from torch.autograd import gradcheck
from two_ways import force_chunks, force_packing

from xlm_mlm import MLMLoss, RotaryTransformerMLMModel
from xlm_mlm.modeling import attention, layer
from xlm_mlm.modeling.attention import AttentionContext, attend, attend_from, lay_out_queries
from xlm_mlm.modeling.dropout import dropout
from xlm_mlm.modeling.head import plain_cross_entropy, project, weighted_cross_entropy
from xlm_mlm.modeling.masks import open_empty_rows, segment_block_mask
from xlm_mlm.modeling.packing import Group
from xlm_mlm.modeling.rotary import gather_tables, rotate

MASK, V, D = 2, 7, 8


def network(**overrides):
    torch.manual_seed(5)
    options = {"num_layers": 2, "nhead": 2, "mask_idx": MASK, "dim_feedforward": 6}
    options |= {"rotary_emb_dim": 2, "max_length": 8, "dropout": 0.0, "activation": "gelu"}
    return RotaryTransformerMLMModel(V, D, **{**options, **overrides}).double()


def batches():
    """Padded rows, and packed ones; masks repeat, so that the first layer may be shared."""
    inputs = torch.tensor([[MASK, 3, MASK, 4, 3], [3, MASK, MASK, 0, 0], [4, MASK, 3, MASK, 0]])
    targets = torch.tensor([[5, 3, 6, 4, 3], [3, 4, 5, -100, -100], [4, 6, 3, 5, -100]])
    padded = {"input_ids": inputs, "target_ids": targets, "attention_mask": targets != -100}
    segments = torch.tensor([[0, 0, 1, 1, 1], [0, 0, 0, 0, 0], [0, 1, 1, 2, 2]])
    pairs = torch.ones(3, 5, 5, dtype=torch.bool).tril()
    return {
        "whole": {"input_ids": inputs, "target_ids": targets},
        "padded": padded,
        "packed": {**padded, "block_mask": segment_block_mask(segments)},
        "pairs": {**padded, "attention_mask": pairs},
    }


WEIGHTS = {
    "mean": {},
    "visible": {"loss_on_visible_tokens": True},
    "factor": {"use_num_masked_factor": True},
    "visible and factor": {"loss_on_visible_tokens": True, "use_num_masked_factor": True},
    "elbo": {"loss_weighting": "elbo"},
}


def check(model, compute):
    """The gradient of a scalar for all parameters together, along random directions.

    The embedding of padding, whose gradient is cut off by design, is left as it is.
    """
    names, values = zip(*model.named_parameters(), strict=True)

    padding = torch.arange(V)[:, None] == model.padding_idx
    fixed = model.embed_tokens.weight.detach().clone()

    def of_parameters(*tensors):
        given = dict(zip(names, tensors, strict=True))
        embedding = given["embed_tokens.weight"]
        given["embed_tokens.weight"] = torch.where(padding, fixed, embedding)
        # Whatever is drawn, for dropout, is drawn alike every time.
        torch.manual_seed(9)
        with torch.nn.utils.stateless._reparametrize_module(model, given):
            return compute()

    inputs = [value.detach().clone().requires_grad_() for value in values]
    assert gradcheck(of_parameters, inputs, fast_mode=True, atol=1e-6)


def counting(target, name):
    """A spy: tells whether the path was taken at all."""
    return mock.patch.object(target, name, wraps=getattr(target, name))


# What is whole, or has a mask of pairs, is never packed.
WAYS = [("whole", False), ("pairs", False), ("padded", False), ("packed", False), ("packed", True)]


@pytest.mark.parametrize(
    ("name", "packs", "options"),
    [(*way, "mean") for way in WAYS] + [("padded", True, options) for options in WEIGHTS],
)
def test_the_loss(monkeypatch, name, packs, options):
    """Through queries of some tokens, packing, masks, and the vocabulary in chunks."""
    force_packing(monkeypatch, packs)
    force_chunks(monkeypatch)
    model, batch = network(), batches()[name]
    loss = MLMLoss(model=model, **WEIGHTS[options])
    loss.mask_token_id_tensor = torch.tensor(MASK)
    with counting(layer, "attend_from") as some, counting(attention, "_within") as groups:
        assert loss(batch)["loss"].dtype == torch.float64
    assert some.called
    # One rectangle a layer where nothing is packed.
    assert (groups.call_count > 2) == (packs and name in ("padded", "packed"))
    check(model, lambda: loss(batch)["loss"])


@pytest.mark.parametrize("options", WEIGHTS.values(), ids=WEIGHTS.keys())
def test_the_loss_of_any_models_logits(options):
    logits = torch.randn(3, 5, V, dtype=torch.float64, requires_grad=True)
    batch = batches()["whole"]

    def of_logits(given):
        class Given(torch.nn.Module):
            def forward(self, x_t, attention_mask=None, positions=None, block_mask=None):
                return given

        loss = MLMLoss(model=Given(), **options)
        loss.mask_token_id_tensor = torch.tensor(MASK)
        return loss(batch)["loss"]

    assert gradcheck(of_logits, logits)


@pytest.mark.parametrize("shares", [True, False])
def test_a_first_layer_that_is_given_each_token_once(shares):
    model, batch = network(), batches()["whole"]
    shared = mock.patch.object(
        RotaryTransformerMLMModel, "_may_share_first_layer", return_value=shares
    )
    at = torch.tensor([0, 2, 8])
    with shared, counting(layer, "attend") as attends:
        check(model, lambda: model(batch["input_ids"], logits_at=at).square().sum())
    given_once = [len(call.args) == 4 and call.args[3] is not None for call in attends.mock_calls]
    assert any(given_once) == shares


@pytest.mark.parametrize("name", ["padded", "packed", "pairs"])
def test_all_logits(monkeypatch, name):
    force_packing(monkeypatch, True)
    model, batch = (
        network(final_layer_without_normalization=True, activation="relu"),
        batches()[name],
    )
    valid = batch["target_ids"] != -100
    given = {"attention_mask": batch["attention_mask"], "block_mask": batch.get("block_mask")}
    check(model, lambda: model(batch["input_ids"], **given)[valid].sin().sum())


@pytest.mark.parametrize("name", ["whole", "padded", "packed", "pairs"])
def test_dropout_that_drops_alike_every_time(monkeypatch, name):
    """In attention, which writes it out for single precision alone, and on the residual ways."""
    force_packing(monkeypatch, True)
    model, batch = network(dropout=0.4).train(), batches()[name]
    loss = MLMLoss(model=model)
    loss.mask_token_id_tensor = torch.tensor(MASK)
    written_out = opened_to_double()
    with written_out as spy:
        check(model, lambda: loss(batch)["loss"])
    assert spy.called


@contextlib.contextmanager
def opened_to_double():
    """Attention whose dropout is written out in double precision too."""

    def within(layer_, q, k, v, mask, context):
        mask = None if mask is None else mask.transpose(0, 1)
        return spy(q, k, v, mask, layer_.dropout)

    with (
        counting(attention, "_with_dropout") as spy,
        mock.patch.object(attention, "_within", within),
    ):
        yield spy


def doubles(*shape):
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("p", [0.0, 0.3, 0.9])
def test_dropout(p):
    x = doubles(3, 5)

    def dropped(x):
        torch.manual_seed(1)
        return dropout(x, p, True)

    assert gradcheck(dropped, x)
    kept = dropped(x.detach()) != 0
    assert torch.equal(dropped(x)[kept], (x * (1 / (1 - p)))[kept])


@pytest.mark.parametrize("p", [0.0, 0.5])
@pytest.mark.parametrize("masked", [True, False])
def test_attention_with_dropout(p, masked):
    q, k, v = doubles(2, 2, 3, 4), doubles(2, 2, 5, 4), doubles(2, 2, 5, 4)
    mask = open_empty_rows(torch.rand(2, 1, 3, 5) < 0.5) if masked else None

    def attended(q, k, v):
        torch.manual_seed(1)
        return attention._with_dropout(q, k, v, mask, p)

    assert gradcheck(attended, (q, k, v))
    if p == 0:
        plain = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        torch.testing.assert_close(attended(q, k, v), plain)


GROUPS = (Group(2, 1), Group(1, 3))


def context():
    return AttentionContext(gather_tables(*tables(), 8, torch.tensor([0, 0, 0, 1, 2])), GROUPS)


def tables():
    angles = torch.arange(8, dtype=torch.float64)[:, None]
    return angles.cos(), angles.sin()


@pytest.mark.parametrize("way", ["all", "repeated", "some"])
def test_attention_by_group(way):
    """Projections of queries, keys and values in one product, of repeated states, or apart."""
    encoder = network().encoder[0]
    states = doubles(2 if way == "repeated" else 5, D)
    weight = encoder.attn_qkv.weight.detach().clone().requires_grad_()
    at, repeats = torch.tensor([4, 0, 2]), torch.tensor([0, 1, 1, 0, 1])

    def attended(states, weight):
        with torch.nn.utils.stateless._reparametrize_module(encoder, {"attn_qkv.weight": weight}):
            if way == "some":
                return attend_from(encoder, states, lay_out_queries(at, GROUPS), context())
            return attend(encoder, states, context(), repeats if way == "repeated" else None)

    assert gradcheck(attended, (states, weight))
    if way == "some":
        torch.testing.assert_close(attended(states, weight), attend(encoder, states, context())[at])


def test_rotation():
    x, places = doubles(2, 4, 4), torch.tensor([0, 3, 7, 3])
    assert gradcheck(lambda x: rotate(x, gather_tables(*tables(), 8, places)), x)


@pytest.mark.parametrize("rows", [1, 2, 7])
def test_the_loss_in_chunks(monkeypatch, rows):
    """The one `autograd.Function` of the package; with one chunk or less it is not needed."""
    force_chunks(monkeypatch)
    targets, weights = torch.arange(rows) % V, torch.rand(rows, dtype=torch.float64) - 0.3
    weights[rows // 2] = 0
    given = doubles(rows, D), doubles(V, D)
    assert gradcheck(lambda h, w: weighted_cross_entropy(h, w, targets, weights), given)

    def plain(h, w):
        return plain_cross_entropy(project(h, w), targets, weights)

    assert gradcheck(plain, given)
    torch.testing.assert_close(weighted_cross_entropy(*given, targets, weights), plain(*given))


def test_every_function_with_a_backward_of_its_own_is_checked_here():
    found = {
        kind.__name__
        for kind in torch.autograd.Function.__subclasses__()
        if kind.__module__.startswith("xlm_mlm")
    }
    assert found == {"_ChunkedCrossEntropy"}
