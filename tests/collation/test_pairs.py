"""Prompt and suffix in one row, padded on the right."""

import pytest
import torch

from xlm_mlm.collation.pairs import prepare_prefix_suffix_ids

PAD, MASK, EOS, BOS = 0, 2, 3, 4
PREFIXES = [[10, 11], [12], [13, 14, 15, 16, 17], []]
SUFFIXES = [[20], [21, 22, 23, 24, 25, 26], [23, 24], [25]]


def naive(prefix, suffix, width, block, eos, bos):
    """One row under truncate="block": tokens, and where the suffix's side begins and ends."""
    lead, tail = [bos] * (bos is not None), [eos] * (eos is not None)
    answer = suffix + tail
    if block is not None:
        answer = answer[:block]
        room = width - len(lead) - block
    else:
        answer = answer[: width - len(lead)]
        room = width - len(lead) - len(answer)
    prompt = prefix[max(len(prefix) - room, 0) :] + lead
    end = len(prompt) + len(answer)
    visible = width if block is None else len(prompt) + block
    return prompt + answer + [PAD] * (width - end), len(prompt), end, visible


@pytest.mark.parametrize("width", [6, 9, 16])
@pytest.mark.parametrize("block", [None, 1, 4])
@pytest.mark.parametrize("bos", [None, BOS])
@pytest.mark.parametrize("eos", [None, EOS])
@pytest.mark.parametrize("on_padding", [True, False])
def test_blocks_as_a_loop_would(width, block, bos, eos, on_padding):
    hits = torch.zeros(4, width, dtype=torch.bool)
    for _ in range(60):
        batch = prepare_prefix_suffix_ids(
            PREFIXES, SUFFIXES, PAD, MASK, eos, bos, width, "block", on_padding, block
        )
        hits |= batch["input_ids"] == MASK
    for i, (prefix, suffix) in enumerate(zip(PREFIXES, SUFFIXES, strict=True)):
        tokens, start, end, visible = naive(prefix, suffix, width, block, eos, bos)
        visible = visible if on_padding else end
        assert batch["target_ids"][i].tolist() == tokens[:visible] + [-100] * (width - visible)
        assert batch["attention_mask"][i].tolist() == [c < visible for c in range(width)]
        assert hits[i].tolist() == [start <= c < visible for c in range(width)]


@pytest.mark.parametrize("truncate", ["max", None])
@pytest.mark.parametrize("on_padding", [True, False])
def test_the_longest_row_sets_the_width(truncate, on_padding):
    batch = prepare_prefix_suffix_ids(
        PREFIXES, SUFFIXES, PAD, MASK, EOS, BOS, 50, truncate, on_padding
    )
    assert batch["target_ids"].shape == (4, 9)
    assert batch["target_ids"][1].tolist() == [12, BOS, 21, 22, 23, 24, 25, 26, EOS]
    assert bool(batch["attention_mask"].all()) is on_padding


def test_max_is_capped():
    batch = prepare_prefix_suffix_ids(
        PREFIXES, SUFFIXES, PAD, MASK, EOS, BOS, 6, "max", True, suffix_block_size=3
    )
    assert batch["target_ids"].tolist() == [
        [10, 11, BOS, 20, EOS, PAD],
        [12, BOS, 21, 22, 23, -100],
        [16, 17, BOS, 23, 24, EOS],
        [BOS, 25, EOS, PAD, -100, -100],
    ]


def test_a_long_prefix_never_pushes_the_suffix_out():
    batch = prepare_prefix_suffix_ids(
        [list(range(7, 27))], [[20, 21]], PAD, MASK, EOS, BOS, 8, loss_on_padding=False
    )
    assert batch["target_ids"].tolist() == [[23, 24, 25, 26, BOS, 20, 21, EOS]]


def test_a_generator_repeats_the_masks():
    batches = [
        prepare_prefix_suffix_ids(
            *(PREFIXES, SUFFIXES, PAD, MASK, EOS, BOS, 12),
            generator=torch.Generator().manual_seed(3),
        )
        for _ in range(2)
    ]
    assert torch.equal(batches[0]["input_ids"], batches[1]["input_ids"])


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (([], []), {}, "0 prefix_ids and 0 suffix_ids"),
        (([[1]], [[1], [2]]), {}, "1 prefix_ids and 2 suffix_ids"),
        (([[1]], [[]]), {}, "suffix_ids of row 0 of the batch is empty"),
        (([[1]], [[2]]), {"max_seq_len": None}, "max_seq_len is None"),
        (([[1]], [[2]]), {"max_seq_len": 0}, "max_seq_len is 0"),
        (([[1]], [[2]]), {"truncate": "left"}, "truncate is 'left'"),
        (([[1]], [[2]]), {"suffix_block_size": 0}, "suffix_block_size is 0"),
        (
            ([[1]], [[2]]),
            {"max_seq_len": 4, "suffix_block_size": 4},
            "BOS \(1\) and the answer \(4\) take 5",
        ),
        (([[1]], [[2]]), {"max_seq_len": 1}, "BOS \(1\) and the answer \(1\) take 2"),
        (([[1]], [[-100]]), {}, "holds -100"),
        (([[1.0]], [[2]]), {}, "holds 1.0"),
    ],
)
def test_bad_input(arguments, options, message):
    options = {"eos_token_id": EOS, "bos_token_id": BOS, "max_seq_len": 8} | options
    with pytest.raises(ValueError, match=message):
        prepare_prefix_suffix_ids(*arguments, PAD, MASK, **options)
