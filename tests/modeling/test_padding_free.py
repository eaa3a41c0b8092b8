"""Padded batches with the padding left out, against the same batches with every pair masked."""

import pytest
import torch
from naive_network import MAX, V, build, rows
from two_ways import (
    FAST_WAYS,
    PRECISIONS,
    assert_every_way_is_plain,
    assert_same,
    fast,
    force_chunks,
    force_packing,
    in_precision,
    make_batch,
    plain,
)

# 1: a valid token.
BATCHES = {
    "right": ["1111111", "1110000", "1111100"],
    "left": ["0011111", "1111111", "0000001"],
    "both sides": ["0111000", "0011111", "1111100"],
    "holes": ["1011101", "0100010", "1111111"],
    "equal lengths": ["1111000", "0001111", "1010101"],
    "rows without a token": ["0000000", "1111100", "0000000"],
    "no token at all": ["0000000", "0000000", "0000000"],
    "nothing hidden": ["1111111", "1111111", "1111111"],
    "one row": ["0011110"],
    "one token a row": ["0000001", "1000000", "0001000"],
    "one token": ["1"],
    "one hidden token": ["0"],
}


def validity(rows_of_digits):
    return torch.tensor([[digit == "1" for digit in row] for row in rows_of_digits])


def counted(valid):
    """The place of each token among the valid ones of its row."""
    return torch.tensor([[int(row[:t].sum()) for t in range(len(row))] for row in valid])


def asked_positions(valid, asked):
    """Valid positions: all of them, none, or some, unsorted and some of them twice."""
    at = valid.flatten().nonzero().squeeze(1)
    some = torch.cat((at.flip(0)[::2], at[::3], at[:1]))
    return {"all": at, "none": at[:0], "some": some}[asked]


def padded_batch(name, asked="some"):
    valid = validity(BATCHES[name])
    visible = valid[:, None].expand(-1, valid.shape[1], -1)
    at = asked_positions(valid, asked)
    x = torch.where(valid, rows(*valid.shape), 0)
    return make_batch(x, {"attention_mask": valid}, visible, counted(valid), at, V)


def tokens_of_passes(model):
    """How many tokens reach the last layer, pass by pass."""
    seen = []
    model.encoder[-1].register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    return seen


@pytest.mark.parametrize("asked", ["all", "some", "none"])
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", BATCHES)
def test_loss_and_gradients_are_those_of_the_padded_batch(monkeypatch, name, precision, asked):
    model, batch = in_precision(build(num_layers=2), precision), padded_batch(name, asked)
    expected = assert_every_way_is_plain(monkeypatch, model, batch, precision)
    if not len(batch.at):
        assert expected.loss == 0
        assert not any(gradient.any() for gradient in expected.gradients.values())


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("name", ["left", "holes", "rows without a token"])
def test_so_they_are_at_other_depths(monkeypatch, name, layers):
    model, batch = build(num_layers=layers), padded_batch(name)
    assert_every_way_is_plain(monkeypatch, model, batch, "fp32")


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", ["left", "holes", "one row"])
@pytest.mark.parametrize("shared", [False, True])
def test_given_positions_go_with_their_tokens(monkeypatch, name, precision, shared):
    batch = padded_batch(name)
    rows_of_positions = 1 if shared else len(batch.x)
    positions = torch.randint(MAX, (rows_of_positions, batch.x.shape[1]))
    given = {**batch.given, "positions": positions}
    batch = batch._replace(given=given, positions=positions)
    model = in_precision(build(num_layers=2), precision)
    assert_every_way_is_plain(monkeypatch, model, batch, precision)


@pytest.mark.parametrize("name", BATCHES)
def test_only_valid_tokens_go_through_the_layers(monkeypatch, name):
    model, batch = build(num_layers=2), padded_batch(name)
    seen, valid = tokens_of_passes(model), validity(BATCHES[name])
    for packed in (True, False):
        force_packing(monkeypatch, packed)
        model(batch.x, valid)
        model(batch.x, valid, logits_at=batch.at)
    everything = valid.numel()
    # Without any valid token there is no sequence to keep.
    kept = int(valid.sum()) or everything
    assert seen == [kept, kept, everything, everything]


@pytest.mark.parametrize("name", BATCHES)
def test_logits_stand_where_their_tokens_stood(monkeypatch, name):
    model, batch, valid = build(num_layers=2), padded_batch(name), validity(BATCHES[name])
    force_packing(monkeypatch, False)
    expected = model(batch.x, batch.visible, batch.positions)
    force_packing(monkeypatch, True)
    logits = model(batch.x, valid)
    assert logits.shape == expected.shape
    assert logits.isfinite().all()
    torch.testing.assert_close(logits[valid], expected[valid], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", ["left", "holes", "rows without a token"])
def test_who_asks_for_what_is_hidden_gets_the_padded_batch(monkeypatch, name, precision):
    model, batch = in_precision(build(num_layers=2), precision), padded_batch(name)
    hidden = (~validity(BATCHES[name])).flatten().nonzero().squeeze(1)
    at = torch.cat((batch.at, hidden.flip(0)))
    given = {**batch.given, "positions": batch.positions}
    batch = make_batch(batch.x, given, batch.visible, batch.positions, at, V)
    seen, expected = tokens_of_passes(model), plain(monkeypatch, model, batch, precision)
    for way in ("some logits", "loss"):
        assert_same(fast(monkeypatch, model, batch, precision, way, True), expected, precision)
    assert seen == [batch.x.numel()] * 3


def test_no_gradient_reaches_padding(monkeypatch):
    """Even where padding has a token's id, what is left out has no share in the loss."""
    model, valid = build(num_layers=2), validity(BATCHES["right"])
    force_packing(monkeypatch, True)
    x = torch.where(valid, rows(*valid.shape) % 10 + 3, V - 1)
    model(x, valid).sum().backward()
    gradient = model.embed_tokens.weight.grad
    assert not gradient[V - 1].any()
    assert gradient[x[valid].unique()].any(dim=1).all()


@pytest.mark.parametrize("name", ["left", "rows without a token", "no token at all"])
def test_without_gradients_the_same_loss(monkeypatch, name):
    model, batch = build(num_layers=2), padded_batch(name)
    expected = plain(monkeypatch, model, batch, "fp32").loss
    force_packing(monkeypatch, True)
    force_chunks(monkeypatch)
    for off in (torch.no_grad, torch.inference_mode):
        with off():
            asked = {"targets": batch.targets, "target_weights": batch.weights}
            loss = model(batch.x, **batch.given, logits_at=batch.at, **asked)
        torch.testing.assert_close(loss, expected, atol=1e-6, rtol=1e-5)


def test_while_a_compiler_traces_nothing_is_packed(monkeypatch):
    """How many tokens are left would be a size that changes at every step."""
    model, batch = build(num_layers=2), padded_batch("holes")
    expected = plain(monkeypatch, model, batch, "fp32")
    seen = tokens_of_passes(model)
    monkeypatch.setattr("torch.compiler.is_compiling", lambda: True)
    for way in FAST_WAYS:
        assert_same(fast(monkeypatch, model, batch, "fp32", way, True), expected, "fp32")
    assert seen == [batch.x.numel()] * 3
