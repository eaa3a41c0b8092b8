"""Collators of one text a row: what is masked, what is visible, how rows are cut."""

from types import SimpleNamespace

import pytest
import torch

from xlm_mlm.collation.single import (
    DefaultInfillMLMCollator,
    DefaultMLMCollator,
    MLMInfillWithExactTargetPredCollator,
    MLMUnconditionalPredCollator,
)

PAD, MASK, EOS, BOS = 0, 2, 3, 4
ROWS = [{"input_ids": [10, 11, 12, 13, 14, 15]}, {"input_ids": [16]}, {"input_ids": [17, 18]}]
INFILL = [
    {"input_ids": [10, 11, 12, 13], "prompt_ids": [10, MASK, MASK, 13]},
    {"input_ids": [14, 15], "prompt_ids": [MASK, 15]},
]
TRAINING = [DefaultMLMCollator, DefaultInfillMLMCollator]
ALL = [*TRAINING, MLMInfillWithExactTargetPredCollator, MLMUnconditionalPredCollator]
READS_PROMPTS = [DefaultInfillMLMCollator, MLMInfillWithExactTargetPredCollator]


def naive_rows(rows, block_size, truncate, add_bos, add_eos):
    whole = [[BOS] * add_bos + row + [EOS] * add_eos for row in rows]
    if truncate is not None:
        whole = [row[:block_size] for row in whole]
    width = block_size if truncate == "block" else max(map(len, whole))
    return [row + [PAD] * (width - len(row)) for row in whole], [len(row) for row in whole]


def ever_masked(collator, examples, draws=200):
    """Positions masked at least once; each other input token must be the target's."""
    hits = None
    for _ in range(draws):
        batch = collator(examples)
        masked = batch["input_ids"] == MASK
        kept = ~masked & (batch["target_ids"] != -100)
        assert torch.equal(batch["input_ids"][kept], batch["target_ids"][kept])
        hits = masked if hits is None else hits | masked
    return hits


@pytest.mark.parametrize("block_size", [5, 7, 8, 12])
@pytest.mark.parametrize("truncate", ["block", "max", None])
@pytest.mark.parametrize("add_bos", [True, False])
@pytest.mark.parametrize("add_eos", [True, False])
def test_targets_are_laid_out_as_a_loop_would(tokenizer, block_size, truncate, add_bos, add_eos):
    rows = [example["input_ids"] for example in ROWS]
    expected, lengths = naive_rows(rows, block_size, truncate, add_bos, add_eos)
    for on_padding in (True, False):
        collator = DefaultMLMCollator(
            tokenizer, block_size, None, on_padding, truncate, add_bos, add_eos
        )
        batch = collator(ROWS)
        valid = torch.arange(len(expected[0])) < torch.tensor(lengths)[:, None]
        if on_padding:
            assert batch["target_ids"].tolist() == expected
            assert batch["attention_mask"].all()
        else:
            hidden = torch.tensor(expected).masked_fill(~valid, -100)
            assert torch.equal(batch["target_ids"], hidden)
            assert torch.equal(batch["attention_mask"], valid)


def test_without_truncation_the_longest_row_keeps_its_last_token_and_eos(tokenizer):
    batch = DefaultMLMCollator(tokenizer, None, None, truncate=None)(ROWS)
    assert batch["target_ids"][0].tolist() == [BOS, 10, 11, 12, 13, 14, 15, EOS]


def test_max_is_capped_at_the_block_size(tokenizer):
    batch = DefaultMLMCollator(tokenizer, 5, None, truncate="max")(ROWS)
    assert batch["input_ids"].shape == (3, 5)


def test_every_token_may_be_masked_and_padding_by_choice(tokenizer):
    hits = ever_masked(DefaultMLMCollator(tokenizer, 6, None), ROWS)
    assert hits.all()
    hits = ever_masked(DefaultMLMCollator(tokenizer, 6, None, loss_on_padding=False), ROWS)
    assert hits.sum(dim=1).tolist() == [6, 3, 4]
    assert hits[1].tolist() == [True, True, True, False, False, False]


@pytest.mark.parametrize("on_padding", [True, False])
def test_infilling_masks_the_marked_positions_and_nothing_else(tokenizer, on_padding):
    collator = DefaultInfillMLMCollator(tokenizer, 8, None, on_padding)
    marked = [[False, False, True, True, False, False, False, False], [False, True] + [False] * 6]
    assert ever_masked(collator, INFILL).tolist() == marked
    batch = collator(INFILL)
    assert batch["fixed_positions_mask"].tolist() == [[not m for m in row] for row in marked]
    ignored = PAD if on_padding else -100
    assert batch["target_ids"].tolist() == [
        [BOS, 10, 11, 12, 13, EOS, ignored, ignored],
        [BOS, 14, 15, EOS] + [ignored] * 4,
    ]
    lengths = [8, 8] if on_padding else [6, 4]
    assert batch["attention_mask"].sum(dim=1).tolist() == lengths


def test_the_mask_rate_of_infilling_is_uniform_over_the_marked_positions(tokenizer):
    examples = [{"input_ids": [10] * 40, "prompt_ids": [10] * 20 + [MASK] * 20}] * 2000
    collator = DefaultInfillMLMCollator(tokenizer, 40, None, add_bos=False, add_eos=False)
    shares = (collator(examples)["input_ids"][:, 20:] == MASK).float().mean(dim=1)
    variance = 1 / 12 + 1 / (6 * 20)
    assert abs(shares.mean() - 0.5) < 5 * (variance / 2000) ** 0.5
    assert abs(shares.var() - variance) < 0.15 * variance


@pytest.mark.parametrize("on_padding", [True, False])
def test_infill_prediction_takes_the_prompts_as_they_are(tokenizer, on_padding):
    collator = MLMInfillWithExactTargetPredCollator(tokenizer, 8, None, on_padding)
    batch = collator(INFILL)
    assert batch["input_ids"].tolist() == [
        [BOS, 10, MASK, MASK, 13, EOS, PAD, PAD],
        [BOS, MASK, 15, EOS, PAD, PAD, PAD, PAD],
    ]
    assert batch["target_ids"].tolist() == [
        [BOS, 10, 11, 12, 13, EOS, PAD, PAD],
        [BOS, 14, 15, EOS, PAD, PAD, PAD, PAD],
    ]
    assert batch["attention_mask"].sum(dim=1).tolist() == ([8, 8] if on_padding else [6, 4])


def test_prompts_and_answers_of_infilling_are_cut_alike(tokenizer):
    batch = MLMInfillWithExactTargetPredCollator(tokenizer, 4, None)(INFILL)
    assert batch["input_ids"][0].tolist() == [BOS, 10, MASK, MASK]
    assert batch["target_ids"][0].tolist() == [BOS, 10, 11, 12]


def test_unconditional_prediction_asks_for_as_many_tokens_as_the_example(tokenizer):
    examples = [{"input_ids": [MASK] * 4}, {"input_ids": [MASK] * 2}]
    batch = MLMUnconditionalPredCollator(tokenizer, 6, None)(examples)
    assert batch["input_ids"].tolist() == [[MASK] * 4 + [PAD] * 2, [MASK] * 2 + [PAD] * 4]
    assert batch["attention_mask"].sum(dim=1).tolist() == [4, 2]
    assert torch.equal(batch["target_ids"], batch["input_ids"])
    assert batch["target_ids"] is not batch["input_ids"]


@pytest.mark.parametrize("add", [True, False])
def test_unconditional_prediction_adds_no_bos_or_eos(add):
    tokenizer = SimpleNamespace(pad_token_id=PAD, mask_token_id=MASK)
    collator = MLMUnconditionalPredCollator(tokenizer, 3, None, add_bos=add, add_eos=add)
    assert collator([{"input_ids": [MASK] * 3}])["input_ids"].tolist() == [[MASK] * 3]


@pytest.mark.parametrize("collator_class", ALL)
def test_bad_batches(tokenizer, collator_class):
    collator = collator_class(tokenizer, 8, None)
    with pytest.raises(ValueError, match="empty batch"):
        collator([])
    with pytest.raises(KeyError, match="input_ids|prompt_ids"):
        collator([{"text": "a"}])
    with pytest.raises(ValueError, match=r"row 0 .* is empty"):
        collator([{"input_ids": [], "prompt_ids": []}])
    with pytest.raises(ValueError, match="holds 1.5"):
        collator([{"input_ids": [1.5], "prompt_ids": [1.5]}])
    with pytest.raises(ValueError, match="holds -100"):
        collator([{"input_ids": [10, -100], "prompt_ids": [10, MASK]}])


@pytest.mark.parametrize("collator_class", READS_PROMPTS)
def test_infill_rows_must_agree_with_their_answers(tokenizer, collator_class):
    collator = collator_class(tokenizer, 8, None)
    with pytest.raises(ValueError, match="row 1 of the batch has 1 prompt_ids and 2 input_ids"):
        collator([INFILL[0], {"input_ids": [10, 11], "prompt_ids": [MASK]}])
    with pytest.raises(ValueError, match=r"row 1 .*token 9 .*input_ids have 11 \(position 1\)"):
        collator([INFILL[0], {"input_ids": [10, 11], "prompt_ids": [MASK, 9]}])
    with pytest.raises(KeyError, match="prompt_ids"):
        collator([{"input_ids": [10]}])


@pytest.mark.parametrize("collator_class", ALL)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"block_size": 0}, "block_size is 0"),
        ({"block_size": None}, "block_size is None"),
        ({"block_size": None, "truncate": "max"}, "block_size is None"),
        ({"truncate": "right"}, "truncate is 'right'"),
        ({"generator": 3}, "generator is 3"),
    ],
)
def test_bad_options(tokenizer, collator_class, options, message):
    with pytest.raises(ValueError, match=message):
        collator_class(
            **{"tokenizer": tokenizer, "block_size": 8, "noise_schedule": None} | options
        )


@pytest.mark.parametrize("collator_class", [*TRAINING, MLMInfillWithExactTargetPredCollator])
def test_bos_must_leave_room_for_a_token(tokenizer, collator_class):
    with pytest.raises(ValueError, match="block_size is 1 .*no room for a token"):
        collator_class(tokenizer, 1, None)
    collator_class(tokenizer, 1, None, add_bos=False)


@pytest.mark.parametrize("collator_class", [*TRAINING, MLMInfillWithExactTargetPredCollator])
@pytest.mark.parametrize("missing", ["pad", "mask", "bos", "eos"])
def test_a_missing_special_token_is_named(collator_class, missing):
    ids = {"pad": PAD, "mask": MASK, "bos": BOS, "eos": EOS} | {missing: None}
    tokenizer = SimpleNamespace(**{f"{name}_token_id": value for name, value in ids.items()})
    with pytest.raises(ValueError, match=f"no {missing} token"):
        collator_class(tokenizer, 8, None, add_bos=True, add_eos=True)
    if missing in ("bos", "eos"):
        collator_class(tokenizer, 8, None, add_bos=missing != "bos", add_eos=missing != "eos")


def test_no_tokenizer_and_one_whose_padding_is_its_mask():
    with pytest.raises(ValueError, match="no tokenizer was given"):
        DefaultMLMCollator(None, 8, None)
    tokenizer = SimpleNamespace(pad_token_id=1, mask_token_id=1, bos_token_id=2, eos_token_id=3)
    with pytest.raises(ValueError, match="id 1 for both mask and padding"):
        DefaultMLMCollator(tokenizer, 8, None)


@pytest.mark.parametrize("collator_class", [DefaultMLMCollator, DefaultInfillMLMCollator])
def test_a_mask_in_the_data_is_no_target(tokenizer, collator_class):
    row = {"input_ids": [7, 2, 9], "prompt_ids": [2, 2, 9]}
    batch = collator_class(tokenizer, 5, None)([row])
    assert batch["target_ids"].tolist() == [[4, 7, -100, 9, 3]]


def test_ids_the_tokenizer_does_not_have_are_refused(tokenizer):
    with pytest.raises(ValueError, match="row 1 .* holds 27; the tokenizer has 27 ids"):
        DefaultMLMCollator(tokenizer, 5, None)([{"input_ids": [26]}, {"input_ids": [8, 27]}])


@pytest.mark.parametrize("shared", ["pad", "bos", "eos"])
def test_a_mask_that_is_another_token_too_is_refused(shared):
    class Clashing:
        pad_token_id, bos_token_id, eos_token_id, mask_token_id = 0, 4, 3, 2

    setattr(Clashing, f"{shared}_token_id", 2)
    with pytest.raises(ValueError, match="Clashing has the id 2 for both mask and"):
        DefaultMLMCollator(Clashing(), 5, None)
