"""Packed blocks: segments, the masks between them, and batches without padding, against loops."""

from itertools import chain

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from properties.strategies import (
    EOS,
    MASK,
    PAD,
    SAMPLINGS,
    TOKENIZER,
    forced_packing,
    plain_tokens,
    rectangles,
    rows_of,
    seeds,
    tiny_model,
)

from xlm_mlm.collation.packed import PackedMLMCollator
from xlm_mlm.collation.segments import split_at_eos
from xlm_mlm.modeling.attention import lay_out_queries
from xlm_mlm.modeling.masks import (
    dense_from_block_mask,
    open_empty_rows,
    segment_block_mask,
    segments_of,
)
from xlm_mlm.modeling.packing import Group, pack_rows, pack_segments

flags = st.booleans()
# Every third token ends a text.
packed_tokens = st.one_of(st.just(EOS), plain_tokens, plain_tokens)
# Few numbers, so that segments come back, and large ones.
segment_numbers = st.sampled_from([0, 1, 2, -1, 2**40])


@given(rectangles(packed_tokens))
def test_segments_and_positions_are_counted_from_each_end(rows):
    found = split_at_eos(np.array(rows), EOS)
    for i, row in enumerate(rows):
        segment = position = 0
        for c, token in enumerate(row):
            assert found.segment_ids[i, c] == segment
            assert found.positions[i, c] == position
            position += 1
            if token == EOS:
                segment, position = segment + 1, 0


@given(rectangles(packed_tokens))
def test_segments_put_together_are_the_block(rows):
    """No token is lost, and none changes its place; an EOS ends its segment."""
    segments = split_at_eos(np.array(rows), EOS).segment_ids
    for row, numbers in zip(rows, segments, strict=True):
        parts = [[t for t, s in zip(row, numbers, strict=True) if s == n] for n in set(numbers)]
        assert list(chain(*parts)) == row
        assert all(EOS not in part[:-1] for part in parts)
        assert all(part[-1] == EOS for part in parts[:-1])


@given(rows_of(plain_tokens, most=4), st.integers(0, 3), st.sampled_from(SAMPLINGS), seeds)
def test_texts_can_be_read_back_from_a_packed_batch(texts, padding, sampling, seed):
    """Whatever is masked, targets are the texts, and the padding behind them is left alone."""
    block = [*chain(*([*text, EOS] for text in texts)), *[PAD] * padding]
    torch.manual_seed(seed)
    collator = PackedMLMCollator(
        TOKENIZER, len(block), None, use_flex_attn=True, mask_sampling=sampling
    )
    batch = collator([{"input_ids": block}])
    for i in range(collator._sampler.copies):
        inputs, targets = batch["input_ids"][i].tolist(), batch["target_ids"][i].tolist()
        whole = len(block) - padding
        assert all(s in (MASK, t) for s, t in zip(inputs, block, strict=True))
        assert inputs[whole:] == [PAD] * padding
        assert targets == block[:whole] + [-100] * padding
        segments, positions = batch["segment_ids"][i].tolist(), batch["positions"][i].tolist()
        for number, text in enumerate(texts):
            places = [c for c in range(whole) if segments[c] == number]
            assert [targets[c] for c in places] == [*text, EOS]
            assert [positions[c] for c in places] == list(range(len(text) + 1))
    if sampling == "complementary":
        hidden = (batch["input_ids"] == MASK).sum(dim=0).tolist()
        assert hidden == [1] * whole + [0] * padding


@given(rectangles(segment_numbers, rows=3))
def test_a_token_sees_its_own_segment_and_no_other(rows):
    segments = torch.tensor(rows)
    mask = segment_block_mask(segments)
    assert segments_of(mask) is segments
    dense = dense_from_block_mask(mask, *segments.shape, torch.device("cpu"))
    expected = [[[[q == k for k in row] for q in row]] for row in rows]
    assert dense.tolist() == expected


@given(rectangles(flags))
def test_only_rows_that_see_nothing_are_opened(rows):
    opened = open_empty_rows(torch.tensor(rows))
    assert opened.tolist() == [row if any(row) else [True] * len(row) for row in rows]


def check_packing(packing, sequences, size):
    """`sequences` are the places, row-major, of each that is to be found, in some order."""
    tokens = packing.tokens.tolist()
    found, start = [], 0
    for group in packing.groups:
        for _ in range(group.sequences):
            found.append(tokens[start : start + group.length])
            start += group.length
    assert start == len(tokens)
    assert sorted(found) == sorted(sequences)
    lengths = [group.length for group in packing.groups]
    assert lengths == sorted(set(lengths)), "one group a length"
    places = {token: place for place, token in enumerate(tokens)}
    assert packing.places.tolist() == [places.get(i, -1) for i in range(size)]


@given(rectangles(flags))
def test_packing_leaves_out_padding_and_nothing_else(rows):
    width = len(rows[0])
    sequences = [[i * width + c for c, v in enumerate(row) if v] for i, row in enumerate(rows)]
    check_packing(pack_rows(torch.tensor(rows)), [s for s in sequences if s], len(rows) * width)


@given(rectangles(segment_numbers))
def test_packing_takes_segments_apart_and_keeps_their_order(rows):
    width, sequences = len(rows[0]), {}
    for i, row in enumerate(rows):
        for c, number in enumerate(row):
            sequences.setdefault((i, number), []).append(i * width + c)
    check_packing(pack_segments(torch.tensor(rows)), list(sequences.values()), len(rows) * width)


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 4)), min_size=1, max_size=3), st.data())
def test_queries_are_laid_out_one_line_a_sequence(sizes, choose):
    groups = tuple(Group(*size) for size in sizes)
    starts = [0]
    for group in groups:
        starts += [starts[-1] + group.length * (n + 1) for n in range(group.sequences)]
    at = choose.draw(st.lists(st.integers(0, starts[-1] - 1), min_size=1, max_size=8))
    found = lay_out_queries(torch.tensor(at), groups)
    rows = [max(n for n, start in enumerate(starts[:-1]) if start <= token) for token in at]
    assert found.rows.tolist() == rows
    assert found.columns.tolist() == [t - starts[row] for t, row in zip(at, rows, strict=True)]
    slots = [rows[:i].count(row) for i, row in enumerate(rows)]
    assert found.slots.tolist() == slots
    first, used, lines, widths = 0, 0, [], []
    for group in groups:
        widths.append(max(rows.count(first + n) for n in range(group.sequences)))
        for _ in range(group.sequences):
            lines.append(used)
            used += widths[-1]
        first += group.sequences
    assert found.widths == widths
    assert found.cells.tolist() == [lines[r] + s for r, s in zip(rows, slots, strict=True)]


@given(st.lists(st.lists(plain_tokens, min_size=1, max_size=3), min_size=1, max_size=3), flags)
def test_packed_texts_get_the_logits_that_each_gets_alone(texts, packs):
    model, block = tiny_model(), list(chain(*([*text, EOS] for text in texts)))
    ids = torch.tensor([block])
    parts = split_at_eos(ids.numpy(), EOS)
    given_mask = {
        "positions": torch.from_numpy(parts.positions),
        "block_mask": segment_block_mask(torch.from_numpy(parts.segment_ids)),
    }
    with torch.no_grad(), forced_packing(packs):
        together = model(ids, **given_mask)[0]
        alone = torch.cat([model(torch.tensor([[*text, EOS]]))[0] for text in texts])
    # Single precision through one layer of width 8: some tens of roundings of 6e-8 each.
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
