"""The network against a plain re-computation of the same arithmetic."""

import pytest
import torch
from naive_network import V, build, naive_logits, rows
from two_ways import force_packing

from xlm_mlm.model_mlm import logits_at_positions, takes
from xlm_mlm.modeling.masks import segment_block_mask


@pytest.mark.parametrize("bare", [False, True])
def test_matches_the_naive_network(bare):
    model, x = build(final_layer_without_normalization=bare), rows()
    everyone = [[True] * 7] * 7
    for row, logits in zip(x, model(x), strict=True):
        torch.testing.assert_close(
            logits.double(), naive_logits(model, row, everyone, range(7)), atol=1e-4, rtol=1e-4
        )


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("side", ["left", "right", "hole"])
def test_padding_changes_nothing_at_valid_positions(monkeypatch, side, packed):
    force_packing(monkeypatch, packed)
    model, x = build(), rows(1, 7)
    valid = torch.tensor([[True] * 7])
    valid[0, {"left": slice(0, 2), "right": slice(5, 7), "hole": slice(2, 4)}[side]] = False
    kept = x[0][valid[0]]
    alone = naive_logits(model, kept, [[True] * 5] * 5, range(5))
    for mask in (valid, valid.long()):
        out = model(x, mask)
        assert out.isfinite().all()
        torch.testing.assert_close(out[0][valid[0]].double(), alone, atol=1e-4, rtol=1e-4)
        some = model(x, mask, logits_at=valid.flatten().nonzero().squeeze(1).flip(0))
        torch.testing.assert_close(some.double(), alone.flip(0), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("packed", [False, True])
def test_padding_rows_do_not_depend_on_the_batch_beside_them(monkeypatch, packed):
    force_packing(monkeypatch, packed)
    model = build()
    short, x = rows(1, 4), rows(2, 7)
    x[0, :4], x[0, 4:] = short[0], 0
    valid = torch.ones(2, 7, dtype=torch.bool)
    valid[0, 4:] = False
    torch.testing.assert_close(model(x, valid)[0, :4], model(short)[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("packed", [False, True])
def test_a_row_of_padding_only_is_finite_with_finite_gradients(monkeypatch, packed):
    force_packing(monkeypatch, packed)
    model, x = build().train(), rows()
    valid = torch.ones(3, 7, dtype=torch.bool)
    valid[1] = False
    out = model(x, valid)
    out.sum().backward()
    assert out.isfinite().all()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_a_mask_for_each_query_is_honoured():
    model, x = build(), rows(2)
    visible = torch.ones(2, 7, 7, dtype=torch.bool).tril()
    out = model(x, visible)
    for b in range(2):
        expected = naive_logits(model, x[b], visible[b].tolist(), range(7))
        torch.testing.assert_close(out[b].double(), expected, atol=1e-4, rtol=1e-4)


def test_explicit_positions_are_used():
    model, x = build(), rows(1)
    positions = torch.tensor([[0, 1, 2, 0, 1, 2, 3]])
    expected = naive_logits(model, x[0], [[True] * 7] * 7, positions[0].tolist())
    torch.testing.assert_close(
        model(x, positions=positions)[0].double(), expected, atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("flex", [False, True])
def test_a_block_mask_separates_segments_and_trains(monkeypatch, flex, packed):
    force_packing(monkeypatch, packed)
    model, x = build(use_flex_attn=flex), rows(2)
    segments = torch.tensor([[0, 0, 0, 1, 1, 1, 1], [0, 1, 1, 2, 2, 2, 2]])
    positions = torch.tensor([[0, 1, 2, 0, 1, 2, 3], [0, 0, 1, 0, 1, 2, 3]])
    out = model(x, None, positions, segment_block_mask(segments))
    for b in range(2):
        for s in segments[b].unique():
            inside = segments[b] == s
            n = int(inside.sum())
            expected = naive_logits(model, x[b][inside], [[True] * n] * n, range(n))
            torch.testing.assert_close(out[b][inside].double(), expected, atol=1e-4, rtol=1e-4)
    dense = segments[:, :, None] == segments[:, None, :]
    torch.testing.assert_close(out, model(x, dense, positions), atol=1e-5, rtol=0)
    out.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("packed", [False, True])
def test_a_block_mask_makes_the_attention_mask_irrelevant(monkeypatch, packed):
    force_packing(monkeypatch, packed)
    model, x = build(), rows(2)
    block = segment_block_mask(torch.zeros(2, 7, dtype=torch.long))
    hidden = torch.ones(2, 7, dtype=torch.bool)
    hidden[:, :3] = False
    torch.testing.assert_close(model(x, hidden, None, block), model(x))


SELECTIONS = {
    "few": [0, 3, 8, 20],
    "unsorted": [20, 3, 8, 0, 9],
    "one": [13],
    "again and again": [6, 1, 6, 6, 19],
    "all": list(range(21)),
    "none": [],
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("chosen", SELECTIONS.values(), ids=SELECTIONS.keys())
@pytest.mark.parametrize("kind", ["full", "padded", "queries", "blocks"])
def test_logits_at_some_positions_equal_all_logits_there(monkeypatch, kind, chosen, packed):
    force_packing(monkeypatch, False)
    model, x = build(), rows()
    flat = torch.tensor(chosen, dtype=torch.long)
    mask = block = None
    if kind == "padded":
        mask = torch.ones(3, 7, dtype=torch.bool)
        mask[0, 5:] = mask[2, :3] = False
    elif kind == "queries":
        mask = torch.ones(3, 7, 7, dtype=torch.bool).tril()
    elif kind == "blocks":
        block = segment_block_mask(torch.tensor([[0, 0, 1, 1, 1, 2, 2]] * 3))
    whole = model(x, mask, None, block).reshape(-1, V)[flat]
    model.zero_grad()
    (whole**2).sum().backward()
    reference = {n: p.grad.clone() for n, p in model.named_parameters()}
    model.zero_grad()
    force_packing(monkeypatch, packed)
    some = model(x, mask, None, block, logits_at=flat)
    assert some.shape == (len(chosen), V)
    torch.testing.assert_close(some, whole, atol=1e-5, rtol=1e-5)
    (some**2).sum().backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(
            parameter.grad, reference[name], atol=2e-4, rtol=1e-3, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_any_model_of_the_protocol_gives_logits_at_positions():
    class Fixed(torch.nn.Module):
        def forward(self, x_t, attention_mask=None, positions=None, block_mask=None):
            return torch.arange(x_t.numel() * 5.0).view(*x_t.shape, 5)

    assert takes(build(), "logits_at")
    assert not takes(Fixed(), "logits_at")
    out = logits_at_positions(Fixed(), torch.zeros(2, 3, dtype=torch.long), torch.tensor([4]))
    assert out.tolist() == [[20.0, 21.0, 22.0, 23.0, 24.0]]


def test_a_mask_that_hides_nothing_changes_nothing():
    model, x = build(), rows()
    torch.testing.assert_close(model(x, torch.ones(3, 7, dtype=torch.long)), model(x))


def test_layers_start_from_different_weights_and_share_no_buffer():
    model = build()
    first, second = model.encoder[0], model.encoder[1]
    assert not torch.equal(first.attn_qkv.weight, second.attn_qkv.weight)
    assert first.rotary_emb.inv_freq.data_ptr() != second.rotary_emb.inv_freq.data_ptr()


def test_weight_decay_groups_are_disjoint_and_exhaustive():
    model = build()
    decayed = dict(model.get_named_params_for_weight_decay())
    undecayed = dict(model.get_named_params_for_no_weight_decay())
    assert not decayed.keys() & undecayed.keys()
    assert decayed.keys() | undecayed.keys() == dict(model.named_parameters()).keys()
    assert all("norm" in n or n.endswith(".bias") for n in undecayed)
    assert all(p.ndim == 2 for p in decayed.values())


def test_bf16_autocast_is_close_to_fp32():
    model, x = build(), rows()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = model(x)
    # bf16 keeps 8 bits: three layers of sums of unit-sized values stay within a few percent.
    torch.testing.assert_close(low.float(), model(x), atol=0.1, rtol=0.1)


def test_attention_and_branches_drop_in_training_only(monkeypatch):
    model, x = build(dropout=0.5), rows()
    assert torch.equal(model(x), model(x))
    model.train()
    assert not torch.equal(model(x), model(x))
    # With the branches' dropout off, attention's own is what is left.
    monkeypatch.setattr("xlm_mlm.modeling.layer.dropout", lambda x, p, training: x)
    assert not torch.equal(model(x), model(x))
    assert torch.equal(model.eval()(x), model(x))


@pytest.mark.parametrize("packed", [False, True])
def test_the_seed_decides_what_drops(monkeypatch, packed):
    force_packing(monkeypatch, packed)
    model, x = build(dropout=0.5).train(), rows()
    valid = torch.ones(3, 7, dtype=torch.bool)
    valid[0, 2:] = valid[1, :1] = False
    first, second = model(x, valid), model(x, valid)
    assert not torch.equal(first, second)
    torch.manual_seed(4)
    again = model(x, valid)
    torch.manual_seed(4)
    assert torch.equal(model(x, valid), again)


def test_epsilon_reaches_every_norm():
    model = build(layer_norm_eps=0.25)
    norms = [m for m in model.modules() if isinstance(m, torch.nn.LayerNorm)]
    assert len(norms) == 7
    assert {m.eps for m in norms} == {0.25}


def test_positions_of_one_row_serve_all():
    model, x = build(), rows()
    positions = torch.tensor([[0, 1, 2, 0, 1, 2, 3]])
    torch.testing.assert_close(
        model(x, positions=positions), model(x, positions=positions.expand(3, 7))
    )
    flat = torch.tensor([4, 9, 20])
    torch.testing.assert_close(
        model(x, positions=positions, logits_at=flat),
        model(x, positions=positions).reshape(-1, V)[flat],
        atol=1e-5,
        rtol=1e-5,
    )


def test_wrapped_models_are_still_asked_for_some_positions_only():
    for keyword in ("logits_at", "targets", "target_weights"):
        assert takes(torch.compile(build()), keyword)
        assert takes(torch.nn.DataParallel(build()), keyword)
    assert not takes(build(), "labels")


def test_an_output_layer_of_another_class_is_called():
    """Wrappers that shard weights gather them when they are called, and at no other time."""

    class Wrapper(torch.nn.Module):
        def __init__(self, wrapped):
            super().__init__()
            self.wrapped = wrapped
            self.calls = 0

        def __getattr__(self, name):
            try:
                return super().__getattr__(name)
            except AttributeError:
                return getattr(self.wrapped, name)

        def forward(self, x):
            self.calls += 1
            return self.wrapped(x)

    model, x = build(), rows()
    at, targets = torch.tensor([0, 8, 20]), torch.tensor([4, 5, 6])
    expected = model(x, logits_at=at), model(x, logits_at=at, targets=targets)
    model.output_layer = Wrapper(model.output_layer)
    torch.testing.assert_close(model(x, logits_at=at), expected[0])
    torch.testing.assert_close(model(x, logits_at=at, targets=targets), expected[1])
    assert model.output_layer.calls == 2
