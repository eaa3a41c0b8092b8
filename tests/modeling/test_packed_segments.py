"""Packed batches taken apart into segments, against the same batches with every pair masked."""

import pytest
import torch
from naive_network import MAX, V, build, rows
from torch.nn.attention.flex_attention import and_masks, create_block_mask
from two_ways import (
    PRECISIONS,
    assert_every_way_is_plain,
    force_packing,
    in_precision,
    make_batch,
)

from xlm_mlm.modeling.masks import segment_block_mask

SEGMENTS = {
    "contiguous": [[0, 0, 0, 1, 1, 1, 1], [0, 1, 1, 2, 2, 2, 2]],
    "scattered": [[0, 1, 0, 2, 1, 0, 2], [3, 3, 0, 3, 0, 1, 1], [2, 0, 0, 1, 0, 2, 1]],
    "one a row": [[5] * 7, [0] * 7],
    "one a token": [list(range(7))] * 2,
    "far apart": [[-9, -9, 10**12, -9, 0, 0, 10**12], [10**12, 1, 1, 2, 2, -9, -9]],
    "one row": [[0, 0, 1, 1, 2, 2, 2]],
    "one token": [[4]],
}


def same_segment(segments):
    return segments[:, :, None] == segments[:, None, :]


def packed_batch(segments, positions="own", asked="some", rows_of_input=None):
    """A batch whose `positions` are of each row, shared by all rows, or not given."""
    batch, length = rows_of_input or len(segments), segments.shape[1]
    given = {"block_mask": segment_block_mask(segments)}
    used = torch.arange(length)[None]
    if positions != "none":
        used = torch.randint(MAX, (1 if positions == "shared" else batch, length))
        given["positions"] = used
    everywhere = torch.arange(batch * length)
    some = torch.cat((everywhere.flip(0)[::2], everywhere[:3]))
    at = {"all": everywhere, "none": everywhere[:0], "some": some}[asked]
    visible = same_segment(segments).expand(batch, -1, -1)
    return make_batch(rows(batch, length), given, visible, used, at, V)


@pytest.mark.parametrize("asked", ["all", "some", "none"])
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", SEGMENTS)
def test_loss_and_gradients_are_those_of_masked_pairs(monkeypatch, name, precision, asked):
    model = in_precision(build(num_layers=2), precision)
    batch = packed_batch(torch.tensor(SEGMENTS[name]), asked=asked)
    expected = assert_every_way_is_plain(monkeypatch, model, batch, precision)
    if asked == "none":
        assert expected.loss == 0
        assert not any(gradient.any() for gradient in expected.gradients.values())


@pytest.mark.parametrize("positions", ["none", "shared"])
@pytest.mark.parametrize("name", ["contiguous", "scattered", "one token"])
def test_positions_may_be_shared_or_left_out(monkeypatch, name, positions):
    batch = packed_batch(torch.tensor(SEGMENTS[name]), positions)
    assert_every_way_is_plain(monkeypatch, build(num_layers=2), batch, "fp32")


@pytest.mark.parametrize("positions", ["none", "shared", "own"])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_segments_of_one_row_serve_all_rows(monkeypatch, precision, positions):
    model = in_precision(build(num_layers=2), precision)
    segments = torch.tensor([[0, 0, 1, 2, 1, 1, 2]])
    batch = packed_batch(segments, positions, rows_of_input=3)
    assert_every_way_is_plain(monkeypatch, model, batch, precision)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32])
def test_segments_of_narrow_integers_stay_apart(monkeypatch, dtype):
    low, high = torch.iinfo(dtype).min, torch.iinfo(dtype).max
    segments = torch.tensor([[low, high, low, high, high], [high, high, low, low, low]])
    batch = packed_batch(segments.to(dtype))
    assert_every_way_is_plain(monkeypatch, build(num_layers=1), batch, "fp32")


def test_an_attention_mask_beside_segments_hides_nothing(monkeypatch):
    batch = packed_batch(torch.tensor(SEGMENTS["scattered"]))
    hidden = torch.ones(batch.x.shape, dtype=torch.bool)
    hidden[:, 2:] = False
    batch = batch._replace(given={**batch.given, "attention_mask": hidden})
    assert_every_way_is_plain(monkeypatch, build(num_layers=2), batch, "fp32")


def causal(b, h, q, k):
    return q >= k


def foreign_batch(kind):
    """A mask that no segments stand behind, though a part of it may."""
    segments = torch.tensor(SEGMENTS["contiguous"])
    below = torch.ones(7, 7, dtype=torch.bool).tril()
    if kind == "causal":
        mask, visible = create_block_mask(causal, None, None, 7, 7, "cpu"), below.expand(2, 7, 7)
    else:
        both = and_masks(segment_block_mask(segments).mask_mod, causal)
        mask = create_block_mask(both, 2, None, 7, 7, "cpu")
        visible = same_segment(segments) & below
    positions = torch.arange(7)[None]
    at = torch.tensor([13, 0, 5, 0, 8])
    return make_batch(rows(2, 7), {"block_mask": mask}, visible, positions, at, V)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("kind", ["causal", "causal within segments"])
def test_other_block_masks_are_taken_as_they_are(monkeypatch, kind, precision):
    model = in_precision(build(num_layers=2), precision)
    assert_every_way_is_plain(monkeypatch, model, foreign_batch(kind), precision)


def test_a_block_mask_may_differ_between_heads(monkeypatch):
    """Heads of even number see nothing but the query itself, the others see all."""

    def every_other(b, h, q, k):
        return (q == k) | (h % 2 == 1)

    force_packing(monkeypatch, True)
    model, x = build(num_layers=1), rows(2, 7)
    mask = create_block_mask(every_other, 1, 4, 7, 7, "cpu")
    at = torch.tensor([13, 2, 6, 2])
    some, alone = model(x, None, None, mask, logits_at=at), torch.eye(7, dtype=torch.bool)
    torch.testing.assert_close(some, model(x, None, None, mask).flatten(0, 1)[at])
    # With the output of the odd heads taken out, each token is by itself.
    with torch.no_grad():
        model.encoder[0].o_proj.weight.unflatten(1, (4, -1))[:, 1::2] = 0
    expected = model(x, alone.expand(2, 7, 7)).flatten(0, 1)[at]
    torch.testing.assert_close(model(x, None, None, mask, logits_at=at), expected)


def test_segments_are_packed_only_where_that_pays(monkeypatch):
    """By the real rule: not seven tokens, but long rows of short segments."""
    seen, model = [], build(num_layers=2, max_length=512)
    model.encoder[-1].register_forward_pre_hook(lambda module, args: seen.append(args[1].groups))
    model(rows(2, 7), None, None, segment_block_mask(torch.tensor(SEGMENTS["contiguous"])))
    segments = (torch.arange(512) // 64).expand(4, -1)
    model(rows(4, 512), None, None, segment_block_mask(segments))
    assert seen == [((2, 7),), ((32, 64),)]
