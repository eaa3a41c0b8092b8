"""Every training collator against a loop over tokens, on batches of many shapes."""

import pytest
import torch

from xlm_mlm.collation.packed import PackedMLMCollator
from xlm_mlm.collation.seq2seq import MLMSeq2SeqCollator, MLMSeq2SeqTrainCollator
from xlm_mlm.collation.single import DefaultInfillMLMCollator, DefaultMLMCollator

PAD, MASK, EOS, BOS = 0, 2, 3, 4
# Lengths of rows: ragged, one row, one token, equal, all longer than the block.
SHAPES = [[3, 9, 1, 6], [5], [1], [4, 4, 4], [12, 11]]
BLOCK, PROMPT = 8, 4


def numbers(count):
    return torch.randint(7, 27, (count,)).tolist()


def default(lengths, on_padding):
    rows = [{"input_ids": numbers(n)} for n in lengths]
    return rows, [naive_text(row["input_ids"], on_padding) for row in rows]


def naive_text(tokens, on_padding):
    """Tokens, where they are visible, and where they may be masked, of one row."""
    whole = ([BOS, *tokens, EOS] + [PAD] * BLOCK)[:BLOCK]
    seen = [on_padding or c < len(tokens) + 2 for c in range(BLOCK)]
    return whole, seen, seen


def infill(lengths, on_padding, share):
    rows, expected = [], []
    for length in lengths:
        tokens = numbers(length)
        asked = [float(x) < share for x in torch.rand(length)]
        prompt = [MASK if a else t for t, a in zip(tokens, asked, strict=True)]
        rows.append({"input_ids": tokens, "prompt_ids": prompt})
        whole, seen, _ = naive_text(tokens, on_padding)
        marked = ([False, *asked, False] + [False] * BLOCK)[:BLOCK]
        expected.append((whole, seen, marked))
    return rows, expected


def pairs(lengths, on_padding, left):
    rows, expected = [], []
    for i, length in enumerate(lengths):
        prompt, suffix = numbers((3 * i) % 7), numbers(length)
        rows.append({"prompt_ids": prompt, "target_ids": suffix})
        prompt = prompt[-PROMPT:]
        answer = [*suffix, EOS][:BLOCK]
        shown = len(answer) if not on_padding else BLOCK
        before = [PAD] * (PROMPT - len(prompt)) if left else []
        after = [PAD] * (PROMPT + 1 + BLOCK - len(before) - len(prompt) - 1 - len(answer))
        start = len(before) + len(prompt) + 1
        columns = range(PROMPT + 1 + BLOCK)
        seen = [len(before) <= c < start + shown for c in columns]
        asked = [start <= c < start + shown for c in columns]
        expected.append((before + prompt + [BOS] + answer + after, seen, asked))
    return rows, expected


CASES = {
    "default": (DefaultMLMCollator, default),
    "infill": (DefaultInfillMLMCollator, lambda n, p: infill(n, p, 0.5)),
    "infill nothing": (DefaultInfillMLMCollator, lambda n, p: infill(n, p, 0)),
    "infill everything": (DefaultInfillMLMCollator, lambda n, p: infill(n, p, 1)),
    "seq2seq train": (MLMSeq2SeqTrainCollator, lambda n, p: pairs(n, p, False)),
    "seq2seq": (MLMSeq2SeqCollator, lambda n, p: pairs(n, p, True)),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("lengths", SHAPES, ids=str)
@pytest.mark.parametrize("on_padding", [True, False])
@pytest.mark.parametrize("kind", [list, torch.LongTensor])
def test_as_a_loop_would(tokenizer, case, lengths, on_padding, kind):
    collator_class, make = CASES[case]
    sizes = (None, BLOCK, PROMPT) if case.startswith("seq2seq") else (BLOCK, None)
    collator = collator_class(tokenizer, *sizes, loss_on_padding=on_padding)
    rows, expected = make(lengths, on_padding)
    rows = [{name: kind(value) for name, value in row.items()} for row in rows]
    tokens, seen, asked = (list(part) for part in zip(*expected, strict=True))
    hits = torch.zeros(len(rows), len(tokens[0]), dtype=torch.bool)
    for _ in range(80):
        batch = collator(rows)
        masked = batch["input_ids"] == MASK
        assert batch["input_ids"][~masked].tolist() == torch.tensor(tokens)[~masked].tolist()
        hits |= masked
    targets = [
        [t if s else -100 for t, s in zip(row, where, strict=True)]
        for row, where in zip(tokens, seen, strict=True)
    ]
    assert batch["target_ids"].tolist() == targets
    assert batch["attention_mask"].tolist() == seen
    assert hits.tolist() == asked


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("endings", [0.0, 0.3, 1.0])
def test_packed_blocks_as_a_loop_would(tokenizer, count, endings):
    blocks = torch.where(torch.rand(count, 9) < endings, EOS, torch.randint(7, 27, (count, 9)))
    blocks[-1, 6:] = PAD
    rows = [{"input_ids": block} for block in blocks.tolist()]
    collator = PackedMLMCollator(tokenizer, 9, None, use_flex_attn=True)
    hits = torch.zeros(count, 9, dtype=torch.bool)
    for _ in range(80):
        batch = collator(rows)
        masked = batch["input_ids"] == MASK
        assert torch.equal(batch["input_ids"][~masked], blocks[~masked])
        hits |= masked
    assert hits.tolist() == (blocks != PAD).tolist()
    assert torch.equal(batch["target_ids"], blocks.masked_fill(blocks == PAD, -100))
    for block, segments, positions in zip(
        blocks.tolist(), batch["segment_ids"].tolist(), batch["positions"].tolist(), strict=True
    ):
        ends = [-1] + [c for c, token in enumerate(block) if token == EOS]
        assert segments == [sum(e < c for e in ends) - 1 for c in range(9)]
        assert positions == [c - 1 - max(e for e in ends if e < c) for c in range(9)]
