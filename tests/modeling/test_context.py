"""What a pass works out of its batch: the line of tokens, angles, masks, and who is asked for."""

import pytest
import torch
from naive_network import MAX, D, build, rows
from two_ways import force_packing

from xlm_mlm.modeling.context import lay_out
from xlm_mlm.modeling.masks import segment_block_mask
from xlm_mlm.modeling.packing import Group

X = rows(3, 4)
VALID = torch.tensor([[0, 1, 1, 0], [1, 1, 1, 1], [1, 0, 0, 1]]).bool()
PACKED = [1, 2, 8, 11, 4, 5, 6, 7]
SEGMENTS = torch.tensor([[0, 1, 0, 1], [2, 2, 2, 2], [0, 1, 1, 0]])


@pytest.fixture(autouse=True)
def packing_always(monkeypatch):
    force_packing(monkeypatch, True)


def line_of(attention_mask=None, positions=None, block_mask=None, logits_at=None, x=X):
    return lay_out(build(num_layers=1), x, attention_mask, positions, block_mask, logits_at)


def positions_of(line):
    """The position whose angles each place of the line has: that of the nearest cosines."""
    rotary = build(num_layers=1).encoder[0].rotary_emb
    known = torch.cat((rotary.cos, rotary.sin), dim=-1)
    found = torch.cat(line.context.tables, dim=-1).flatten(1)
    distance, position = torch.cdist(found.double(), known.double()).min(dim=1)
    assert distance.max() < 1e-6
    return position.tolist()


def test_without_a_mask_all_tokens_stand_row_by_row():
    at = torch.tensor([7, 0])
    for mask in (None, torch.ones(3, 4, dtype=torch.long), torch.ones(3, 4, 4).bool()):
        line = line_of(mask, logits_at=at)
        assert line.tokens.tolist() == X.flatten().tolist()
        assert line.context.groups == (Group(3, 4),)
        assert line.context.mask is None
        assert line.packing is None
        assert line.at.tolist() == [7, 0]
        assert positions_of(line) == [0, 1, 2, 3]


def test_packed_tokens_stand_sequence_by_sequence():
    line = line_of(VALID)
    assert line.tokens.tolist() == X.flatten()[PACKED].tolist()
    assert line.context.groups == (Group(2, 2), Group(1, 4))
    assert line.context.mask is None
    assert line.at is None
    assert positions_of(line) == [0, 1, 0, 1, 0, 1, 2, 3]


def test_positions_move_with_packed_tokens():
    own = torch.randint(MAX, (3, 4))
    assert positions_of(line_of(VALID, own)) == own.flatten()[PACKED].tolist()
    shared = torch.tensor([[7, 5, 3, 1]])
    assert positions_of(line_of(VALID, shared)) == [5, 3, 7, 1, 7, 5, 3, 1]


def test_who_is_asked_for_is_found_in_the_line():
    asked = torch.tensor([11, 4, 1, 4])
    line = line_of(VALID, logits_at=asked)
    assert line.at.tolist() == [3, 4, 0, 4]
    assert line.tokens[line.at].tolist() == X.flatten()[asked].tolist()
    assert line_of(VALID, logits_at=asked[:0]).at.tolist() == []


def test_who_is_hidden_can_be_asked_for_in_a_padded_batch():
    line = line_of(VALID, logits_at=torch.tensor([1, 0]))
    assert line.packing is None
    assert line.at.tolist() == [1, 0]
    assert torch.equal(line.context.mask, VALID[:, None, None])
    assert positions_of(line) == [0, 0, 1, 1, 0, 1, 2, 3, 0, 0, 0, 1]


def test_where_packing_does_not_pay_padding_is_masked(monkeypatch):
    asked = []

    def never(packing, length, width):
        asked.append((packing.groups, length, width))
        return False

    monkeypatch.setattr("xlm_mlm.modeling.context.pays", never)
    line = line_of(VALID)
    assert asked == [((Group(2, 2), Group(1, 4)), 4, D)]
    assert line.context.groups == (Group(3, 4),)
    assert torch.equal(line.context.mask, VALID[:, None, None])


def test_a_batch_without_a_valid_token_is_padded_and_open():
    line = line_of(torch.zeros(3, 4, dtype=torch.bool))
    assert line.packing is None
    assert line.context.mask.shape == (3, 1, 1, 4)
    assert line.context.mask.all()


def test_rows_without_a_valid_token_leave_the_batch():
    valid = VALID.clone()
    valid[1] = False
    line = line_of(valid)
    assert line.context.groups == (Group(2, 2),)
    assert line.tokens.tolist() == X.flatten()[PACKED[:4]].tolist()


def test_a_mask_of_pairs_is_not_packed_and_shifts_no_position():
    visible = VALID[:, None].expand(-1, 4, -1).clone()
    visible[0, 2] = False
    line = line_of(visible)
    assert line.packing is None
    assert line.context.mask.shape == (3, 1, 4, 4)
    assert torch.equal(line.context.mask[1:, 0], visible[1:])
    assert line.context.mask[0, 0, 2].all()
    assert positions_of(line) == [0, 1, 2, 3]


def test_segments_are_taken_apart():
    line = line_of(block_mask=segment_block_mask(SEGMENTS), logits_at=torch.tensor([3, 4]))
    assert line.context.groups == (Group(4, 2), Group(1, 4))
    sequences = line.tokens[:8].view(4, 2).tolist()
    flat = X.flatten()
    expected = [flat[[0, 2]], flat[[1, 3]], flat[[8, 11]], flat[[9, 10]]]
    assert sorted(sequences) == sorted(e.tolist() for e in expected)
    assert line.tokens[line.at].tolist() == flat[[3, 4]].tolist()
    # Positions are the caller's business: those of the row, unless given.
    assert positions_of(line)[8:] == [0, 1, 2, 3]


def test_segments_of_one_row_hold_for_all():
    line = line_of(block_mask=segment_block_mask(SEGMENTS[:1]))
    assert line.context.groups == (Group(6, 2),)


def test_a_block_mask_of_other_origin_is_made_dense(monkeypatch):
    monkeypatch.setattr("xlm_mlm.modeling.context.segments_of", lambda mask: None)
    line = line_of(block_mask=segment_block_mask(SEGMENTS))
    assert line.packing is None
    assert line.context.block_mask is None
    assert torch.equal(line.context.mask[:, 0], SEGMENTS[:, :, None] == SEGMENTS[:, None])


def test_states_return_to_where_their_tokens_stood():
    line = line_of(VALID)
    states = torch.randn(8, 5, requires_grad=True)
    spread = line.spread(states, 3, 4)
    assert torch.equal(spread.flatten(0, 1)[PACKED], states)
    assert not spread[~VALID].any()
    spread.sum().backward()
    assert torch.equal(states.grad, torch.ones(8, 5))
    everything = torch.randn(12, 5)
    assert torch.equal(line_of().spread(everything, 3, 4), everything.view(3, 4, 5))


def test_while_a_compiler_traces_no_value_decides(monkeypatch):
    monkeypatch.setattr("torch.compiler.is_compiling", lambda: True)
    for mask in (VALID, torch.ones(3, 4, dtype=torch.bool)):
        line = line_of(mask)
        assert line.packing is None
        assert torch.equal(line.context.mask, mask[:, None, None])
    assert line_of(block_mask=segment_block_mask(SEGMENTS)).packing is None


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"attention_mask": torch.ones(3, 5).bool()}, r"attention_mask has shape \(3, 5\)"),
        ({"positions": torch.full((3, 4), MAX)}, f"position {MAX} is outside"),
        ({"block_mask": segment_block_mask(SEGMENTS[:2])}, r"block_mask has shape \(2, 1, 4, 4\)"),
        ({"block_mask": VALID}, "block_mask is a Tensor"),
    ],
)
def test_what_does_not_fit_is_refused(given, words):
    with pytest.raises(ValueError, match=words):
        line_of(**given)


def test_flash_attention_is_refused_on_the_cpu():
    model = build(num_layers=1, force_flash_attn=True)
    with pytest.raises(ValueError, match="needs a CUDA device, but the input is on cpu"):
        lay_out(model, X, VALID, None, None, None)
