"""Packed blocks."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from xlm_mlm.collation.packed import PackedMLMCollator

PAD, MASK, EOS = 0, 2, 3
BLOCKS = [
    {"input_ids": [10, 11, 3, 12, 13, 3, 14, 15]},
    {"input_ids": [3, 16, 17, 18, 19, 3, 3, 9]},
]


@pytest.fixture
def collator(tokenizer):
    return PackedMLMCollator(tokenizer, 8, None, use_flex_attn=True)


def test_fields(collator):
    batch = collator(BLOCKS)
    assert set(batch) == {"input_ids", "target_ids", "positions", "segment_ids"}
    assert batch["target_ids"].tolist() == [block["input_ids"] for block in BLOCKS]
    assert batch["positions"].tolist() == [[0, 1, 2, 0, 1, 2, 0, 1], [0, 0, 1, 2, 3, 4, 0, 0]]
    assert batch["segment_ids"].tolist() == [[0, 0, 0, 1, 1, 1, 2, 2], [0, 1, 1, 1, 1, 1, 2, 3]]


def test_every_token_may_be_masked_at_a_uniform_rate(collator):
    batch = collator(BLOCKS * 1000)
    masked = batch["input_ids"] == MASK
    assert torch.equal(batch["input_ids"][~masked], batch["target_ids"][~masked])
    assert (masked.float().mean(dim=0) - 0.5).abs().max() < 5 * (0.25 / 2000) ** 0.5
    # Counts are uniform on 0..8: nine values, each in a ninth of the rows.
    counts = masked.sum(dim=1).bincount(minlength=9) / 2000
    assert (counts - 1 / 9).abs().max() < 5 * (1 / 9 / 2000) ** 0.5


def test_padding_at_the_end_of_the_last_block_is_left_alone(collator):
    padded = {"input_ids": [10, 11, 12, 3, PAD, PAD, PAD, PAD]}
    batch = collator([padded] * 200)
    assert not (batch["input_ids"][:, 4:] == MASK).any()
    assert (batch["input_ids"][:, :4] == MASK).any(dim=0).all()
    assert (batch["target_ids"][:, 4:] == -100).all()


def test_the_mask_token_must_be_one_of_its_own():
    for name in ("pad", "eos"):
        ids = {"mask_token_id": 7, "eos_token_id": EOS, "pad_token_id": PAD, f"{name}_token_id": 7}
        with pytest.raises(ValueError, match="has the id 7 for both mask and"):
            PackedMLMCollator(SimpleNamespace(**ids), 8, None, use_flex_attn=True)


def test_options_are_kept(tokenizer):
    schedule = object()
    collator = PackedMLMCollator(tokenizer, 8, schedule, use_flex_attn=True)
    assert (collator.tokenizer, collator.block_size) == (tokenizer, 8)
    assert (collator.noise_schedule, collator.mask_sampling) == (schedule, "bernoulli")
    assert (collator.generator, collator.use_flex_attn) == (None, True)


def test_a_pad_token_that_is_eos_is_a_token():
    tokenizer = SimpleNamespace(mask_token_id=MASK, eos_token_id=EOS, pad_token_id=EOS)
    collator = PackedMLMCollator(tokenizer, 8, None, use_flex_attn=True)
    assert (collator(BLOCKS)["target_ids"] >= 0).all()


def test_arrays_give_the_same_batch_and_stay_as_they_are(collator):
    arrays = [{"input_ids": np.array(block["input_ids"], dtype=np.int32)} for block in BLOCKS]
    torch.manual_seed(1)
    from_lists = collator(BLOCKS)
    torch.manual_seed(1)
    from_arrays = collator(arrays)
    assert all(torch.equal(from_lists[name], from_arrays[name]) for name in from_lists)
    assert [row["input_ids"].tolist() for row in arrays] == [b["input_ids"] for b in BLOCKS]


def test_without_flex_attention_it_says_what_to_set(tokenizer):
    with pytest.raises(ValueError, match="Set use_flex_attn=True here and on the model"):
        PackedMLMCollator(tokenizer, 8, None)


@pytest.mark.parametrize(
    ("lengths", "message"),
    [((8, 7), "lengths from 7 to 8"), ((9, 9), "length 9, more than block_size 8")],
)
def test_rows_must_be_blocks(collator, lengths, message):
    with pytest.raises(ValueError, match=message):
        collator([{"input_ids": [10] * n} for n in lengths])


def test_bad_batches(collator):
    with pytest.raises(ValueError, match="empty batch"):
        collator([])
    with pytest.raises(ValueError, match="is empty"):
        collator([{"input_ids": []}])
    with pytest.raises(KeyError, match="'input_ids'"):
        collator([{"ids": [1]}])


@pytest.mark.parametrize("size", [0, None])
def test_bad_block_size(tokenizer, size):
    with pytest.raises(ValueError, match=f"block_size is {size}"):
        PackedMLMCollator(tokenizer, size, None, use_flex_attn=True)


@pytest.mark.parametrize("missing", ["mask", "eos"])
def test_a_missing_special_token_is_named(missing):
    ids = {"mask_token_id": MASK, "eos_token_id": EOS} | {f"{missing}_token_id": None}
    with pytest.raises(ValueError, match=f"no {missing} token"):
        PackedMLMCollator(SimpleNamespace(**ids), 8, None, use_flex_attn=True)
