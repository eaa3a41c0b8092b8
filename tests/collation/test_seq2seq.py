"""Collators of a prompt and the answer that continues it."""

from types import SimpleNamespace

import pytest
import torch

from xlm_mlm.collation.seq2seq import (
    MLMSeq2SeqCollator,
    MLMSeq2SeqPredCollator,
    MLMSeq2SeqTrainCollator,
)

PAD, MASK, EOS, BOS = 0, 2, 3, 4
EXAMPLES = [
    {"prompt_ids": [10, 11], "target_ids": [20, 21, 22, 23, 24, 25]},
    {"prompt_ids": [10, 12, 13, 14, 15], "target_ids": [20]},
    {"prompt_ids": [], "target_ids": [20, 21]},
]
TRAINING = [MLMSeq2SeqTrainCollator, MLMSeq2SeqCollator]
ALL = [*TRAINING, MLMSeq2SeqPredCollator]


def collect(collator, examples, draws=100):
    """A batch, and the positions masked in any of many draws."""
    hits = False
    for _ in range(draws):
        batch = collator(examples)
        hits = hits | (batch["input_ids"] == MASK)
    return batch, hits


def test_training_rows_are_padded_on_the_right_only(tokenizer):
    batch, hits = collect(MLMSeq2SeqTrainCollator(tokenizer, None, 4, 3), EXAMPLES)
    assert batch["target_ids"].tolist() == [
        [10, 11, BOS, 20, 21, 22, 23, -100],
        [13, 14, 15, BOS, 20, EOS, PAD, PAD],
        [BOS, 20, 21, EOS, PAD, -100, -100, -100],
    ]
    # Exactly block_size = 4 positions after each prompt and BOS are visible and may be masked.
    assert batch["attention_mask"].sum(dim=1).tolist() == [7, 8, 5]
    for row, start in zip(hits.tolist(), (3, 4, 1), strict=True):
        assert row == [start <= c < start + 4 for c in range(8)]


def test_training_without_padding(tokenizer):
    collator = MLMSeq2SeqTrainCollator(tokenizer, None, 4, 3, loss_on_padding=False)
    batch, hits = collect(collator, EXAMPLES)
    assert batch["target_ids"].tolist() == [
        [10, 11, BOS, 20, 21, 22, 23, -100],
        [13, 14, 15, BOS, 20, EOS, -100, -100],
        [BOS, 20, 21, EOS, -100, -100, -100, -100],
    ]
    assert torch.equal(batch["attention_mask"], batch["target_ids"] != -100)
    assert hits.sum(dim=1).tolist() == [4, 2, 3]
    assert not (hits & ~batch["attention_mask"]).any()


def test_long_prompts_leave_the_suffix_whole(tokenizer):
    example = {"prompt_ids": list(range(7, 27)), "target_ids": [20, 21]}
    for collator_class in TRAINING:
        collator = collator_class(tokenizer, None, 4, 3, loss_on_padding=False)
        batch, hits = collect(collator, [example])
        assert batch["target_ids"].tolist() == [[24, 25, 26, BOS, 20, 21, EOS, -100]]
        assert hits.tolist() == [[c in (4, 5, 6) for c in range(8)]]


@pytest.mark.parametrize(("truncate", "width"), [("max", 8), (None, 9)])
def test_training_rows_of_other_widths(tokenizer, truncate, width):
    collator = MLMSeq2SeqTrainCollator(
        tokenizer, None, 4, 6, truncate=truncate, loss_on_padding=False
    )
    batch = collator(EXAMPLES[:2])
    longest = [10, 11, BOS, 20, 21, 22, 23, 24, 25, EOS] if truncate is None else None
    assert batch["target_ids"].shape[1] == (10 if truncate is None else width)
    if longest:
        assert batch["target_ids"][0].tolist() == longest
    assert batch["target_ids"][1, :8].tolist() == [10, 12, 13, 14, 15, BOS, 20, EOS]


def test_left_padded_training_has_all_prompts_end_in_one_column(tokenizer):
    batch, hits = collect(MLMSeq2SeqCollator(tokenizer, None, 4, 3), EXAMPLES)
    assert batch["target_ids"].tolist() == [
        [-100, 10, 11, BOS, 20, 21, 22, 23],
        [13, 14, 15, BOS, 20, EOS, PAD, PAD],
        [-100, -100, -100, BOS, 20, 21, EOS, PAD],
    ]
    assert torch.equal(batch["attention_mask"], batch["target_ids"] != -100)
    assert hits.tolist() == [[c >= 4 for c in range(8)]] * 3


def test_left_padded_training_without_padding(tokenizer):
    collator = MLMSeq2SeqCollator(tokenizer, None, 4, 3, loss_on_padding=False, add_bos=False)
    batch, hits = collect(collator, EXAMPLES)
    assert batch["target_ids"].tolist() == [
        [-100, 10, 11, 20, 21, 22, 23],
        [13, 14, 15, 20, EOS, -100, -100],
        [-100, -100, -100, 20, 21, EOS, -100],
    ]
    assert torch.equal(hits, batch["attention_mask"] & (torch.arange(7) >= 3))


@pytest.mark.parametrize("truncate", ["max", None])
def test_left_padded_training_of_other_widths(tokenizer, truncate):
    collator = MLMSeq2SeqCollator(tokenizer, None, 40, 30, truncate=truncate)
    batch = collator(EXAMPLES)
    assert batch["target_ids"].shape == (3, 5 + 1 + 7)
    assert batch["target_ids"][0].tolist()[3:] == [10, 11, BOS, 20, 21, 22, 23, 24, 25, EOS]


def test_prediction_gives_prompts_and_targets(tokenizer):
    batch = MLMSeq2SeqPredCollator(tokenizer, None, 4, 3)(EXAMPLES)
    assert batch["input_ids"].tolist() == [
        [PAD, 10, 11, BOS],
        [13, 14, 15, BOS],
        [PAD, PAD, PAD, BOS],
    ]
    assert batch["attention_mask"].sum(dim=1).tolist() == [3, 4, 1]
    assert batch["target_ids"].tolist() == [
        [20, 21, 22, 23],
        [20, EOS, PAD, PAD],
        [20, 21, EOS, PAD],
    ]


def test_prediction_pads_targets_to_the_longest(tokenizer):
    batch = MLMSeq2SeqPredCollator(tokenizer, None, None, 4, loss_on_padding=False)(EXAMPLES)
    assert batch["target_ids"].tolist() == [
        [20, 21, 22, 23, 24, 25, EOS],
        [20, EOS, PAD, PAD, PAD, PAD, PAD],
        [20, 21, EOS, PAD, PAD, PAD, PAD],
    ]
    assert batch["input_ids"].shape == (3, 5)
    batch = MLMSeq2SeqPredCollator(tokenizer, None)(EXAMPLES)
    assert batch["input_ids"].shape == (3, 6)


@pytest.mark.parametrize("empty", [{"target_ids": []}, {"input_ids": []}, {}, {"target_ids": None}])
def test_prediction_without_answers_has_no_targets(tokenizer, empty):
    collator = MLMSeq2SeqPredCollator(tokenizer, None, 4, 3)
    batch = collator([{"prompt_ids": [10], **empty}] * 2)
    assert "target_ids" not in batch
    with pytest.raises(ValueError, match="row 1 of the batch has an empty suffix and row 0"):
        collator([EXAMPLES[0], {"prompt_ids": [10], **empty}])


@pytest.mark.parametrize("collator_class", ALL)
def test_the_suffix_may_be_in_input_ids(tokenizer, collator_class):
    collator = collator_class(tokenizer, None, 4, 3)
    other = [{"prompt_ids": e["prompt_ids"], "input_ids": e["target_ids"]} for e in EXAMPLES]
    assert torch.equal(collator(other)["target_ids"], collator(EXAMPLES)["target_ids"])
    both = [{**e, "input_ids": [9]} for e in EXAMPLES]
    assert torch.equal(collator(both)["target_ids"], collator(EXAMPLES)["target_ids"])


@pytest.mark.parametrize("collator_class", TRAINING)
def test_a_suffix_is_missed_where_it_is_missing(tokenizer, collator_class):
    """Not in the row before it, which has its suffix in the other field."""
    examples = [{"prompt_ids": [9], "input_ids": [9]}, {"prompt_ids": [9]}]
    with pytest.raises(KeyError, match="the field 'target_ids', which row 1 "):
        collator_class(tokenizer, None, 4, 3)(examples)


def test_fields_can_be_renamed(tokenizer):
    options = {"block_size": 4, "input_block_size": 3, "target_field": "a", "prompt_field": "q"}
    for collator_class in (MLMSeq2SeqCollator, MLMSeq2SeqPredCollator):
        collator = collator_class(tokenizer, None, **options)
        batch = collator([{"q": [10], "a": [20]}])
        assert 20 in batch["target_ids"][0].tolist()
        with pytest.raises(KeyError, match="the field 'a', which row 0 .*its fields: input_ids, q"):
            collator([{"q": [10], "input_ids": [20]}])


def test_fields_are_carried(tokenizer):
    examples = [{**EXAMPLES[0], "answer": "4", "n": 1}, {**EXAMPLES[1], "answer": "5", "n": 2}]
    batch = MLMSeq2SeqPredCollator(tokenizer, None, 4, 3)(examples)
    assert batch["answer"] == ["4", "5"]
    assert "target" not in batch
    assert "n" not in batch
    options = {"block_size": 4, "input_block_size": 3, "pass_through_fields": ["n"]}
    for collator_class in (MLMSeq2SeqCollator, MLMSeq2SeqPredCollator):
        batch = collator_class(tokenizer, None, **options)(examples)
        assert batch["n"] == [1, 2]
        assert "answer" not in batch
        with pytest.raises(KeyError, match="the field 'n', which row 1"):
            collator_class(tokenizer, None, **options)([examples[0], EXAMPLES[1]])
    assert "answer" not in MLMSeq2SeqCollator(tokenizer, None, 4, 3)(examples)


@pytest.mark.parametrize("collator_class", ALL)
def test_bad_batches(tokenizer, collator_class):
    collator = collator_class(tokenizer, None, 4, 3)
    with pytest.raises(ValueError, match="empty batch"):
        collator([])
    with pytest.raises(KeyError, match="'prompt_ids'"):
        collator([{"target_ids": [10]}])
    with pytest.raises(ValueError, match=r"prompt_ids of row 0 .*holds 1.5"):
        collator([{"prompt_ids": [1.5], "target_ids": [10]}])
    with pytest.raises(ValueError, match="holds -100"):
        collator([{"prompt_ids": [10], "target_ids": [-100]}])


@pytest.mark.parametrize("collator_class", TRAINING)
def test_training_needs_suffixes(tokenizer, collator_class):
    collator = collator_class(tokenizer, None, 4, 3)
    with pytest.raises(ValueError, match=r"target_ids of row 0 .* is empty"):
        collator([{"prompt_ids": [10], "target_ids": []}])
    with pytest.raises(KeyError, match="'target_ids'"):
        collator([{"prompt_ids": [10]}])


def test_prediction_needs_something_to_continue(tokenizer):
    collator = MLMSeq2SeqPredCollator(tokenizer, None, 4, 3, add_bos=False)
    with pytest.raises(ValueError, match="prompt_ids of row 2 of the batch is empty and add_bos"):
        collator(EXAMPLES)


@pytest.mark.parametrize("collator_class", ALL)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"block_size": 0}, "block_size is 0"),
        ({"input_block_size": 0}, "input_block_size is 0"),
        ({"truncate": "left"}, "truncate is 'left'"),
    ],
)
def test_bad_options(tokenizer, collator_class, options, message):
    options = {"block_size": 4, "input_block_size": 3} | options
    with pytest.raises(ValueError, match=message):
        collator_class(tokenizer, None, **options)


@pytest.mark.parametrize("collator_class", TRAINING)
@pytest.mark.parametrize("missing", ["block_size", "input_block_size"])
@pytest.mark.parametrize("truncate", ["block", "max", None])
def test_training_needs_both_sizes(tokenizer, collator_class, missing, truncate):
    options = {"block_size": 4, "input_block_size": 3, "truncate": truncate} | {missing: None}
    with pytest.raises(ValueError, match=f"^{missing} is None"):
        collator_class(tokenizer, None, **options)


@pytest.mark.parametrize("fields", ["answer", ["input_ids"], ["answer", "target_ids"]])
def test_bad_fields_to_carry(tokenizer, fields):
    with pytest.raises(ValueError, match="pass_through_fields"):
        MLMSeq2SeqPredCollator(tokenizer, None, 4, 3, pass_through_fields=fields)


@pytest.mark.parametrize("collator_class", ALL)
@pytest.mark.parametrize("missing", ["pad", "mask", "bos", "eos"])
def test_a_missing_special_token_is_named(collator_class, missing):
    ids = {"pad": PAD, "mask": MASK, "bos": BOS, "eos": EOS} | {missing: None}
    tokenizer = SimpleNamespace(**{f"{name}_token_id": value for name, value in ids.items()})
    with pytest.raises(ValueError, match=f"no {missing} token"):
        collator_class(tokenizer, None, 4, 3)
