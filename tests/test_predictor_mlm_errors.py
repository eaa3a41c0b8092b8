"""What the predictor refuses, and what its messages say."""

import pytest
import torch
from toy_models import TableModel

from xlm_mlm import LogitsShiftBy1, MLMPredictor
from xlm_mlm.modeling.masks import segment_block_mask
from xlm_mlm.sampling.positions import Uniform

MASK = 2
MODEL = TableModel(torch.zeros(8, 27))
X = torch.full((2, 4), MASK)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_steps": 0}, "max_steps is 0"),
        ({"max_steps": 2.5}, "max_steps is 2.5"),
        ({"max_steps": 3, "max_new_tokens": -1}, "max_new_tokens is -1"),
        ({"max_steps": 3, "top_k": 3, "top_p": 0.5}, "top_k=3 and top_p=0.5"),
        ({"max_steps": 3, "confidence": "sure"}, "confidence is 'sure'"),
        ({"max_steps": 3, "threshold": 0.1}, "threshold is 0.1 but confidence is None"),
        ({"max_steps": 3, "temperature": -0.1}, "temperature is -0.1"),
        ({"max_steps": 3, "seed": -3}, "seed is -3"),
        ({"max_steps": 3, "strategy": Uniform(), "confidence": "entropy"}, "one or the other"),
        ({"max_steps": 3, "strategy": object()}, "strategy is <object.*needs_logits"),
        ({"max_steps": 3, "logits_hook": 3}, "logits_hook is 3"),
        ({"max_steps": 3, "history": "folder"}, "must derive from HistoryPluginBase"),
        ({"max_steps": 3, "confidence_temperature": -1}, "confidence_temperature is -1"),
        ({"max_steps": 3, "temperature": "hot"}, "temperature is 'hot'"),
        ({"max_steps": 3, "top_p": None, "top_k": True}, "top_k is True"),
        ({"max_steps": 3, "confidence": ["entropy"]}, "must be one of"),
        ({"max_steps": 3, "confidence": "entropy", "threshold": "x"}, "threshold is 'x'"),
    ],
)
def test_construction_refuses(options, words):
    with pytest.raises(ValueError, match=words):
        MLMPredictor(**options)


@pytest.mark.parametrize(
    ("batch", "error", "words"),
    [
        ({}, KeyError, "'input_ids'.*none"),
        ({"target_ids": X}, KeyError, "'input_ids'.*target_ids"),
        ({"input_ids": X[0]}, ValueError, "batch, length"),
        ({"input_ids": X[:0]}, ValueError, "batch not 0"),
        ({"input_ids": X, "sample_ids": torch.tensor([1])}, ValueError, "2 integers"),
        ({"input_ids": X, "sample_ids": torch.tensor([1, -1])}, ValueError, "at least 0"),
        (None, ValueError, "batch is a NoneType"),
        ({"input_ids": X.tolist()}, ValueError, "input_ids is a list"),
        ({"input_ids": X.float()}, ValueError, "must be a tensor of integers"),
        (
            {"input_ids": X, "attention_mask": X[:, :3] > 0},
            ValueError,
            r"attention_mask .*\(2, 3\)",
        ),
        ({"input_ids": X, "attention_mask": X[:1] > 0}, ValueError, r"attention_mask .*\(1, 4\)"),
        ({"input_ids": X, "positions": X[:, :3]}, ValueError, r"positions .*\(2, 3\)"),
        ({"input_ids": X, "segment_ids": X[0]}, ValueError, r"segment_ids .*\(4,\)"),
    ],
)
def test_bad_batches_are_refused(tokenizer, batch, error, words):
    with pytest.raises(error, match=words):
        MLMPredictor(3, tokenizer=tokenizer, model=MODEL).predict(batch)


def test_missing_parts_are_named(tokenizer):
    with pytest.raises(ValueError, match="no model"):
        MLMPredictor(3, tokenizer=tokenizer).predict({"input_ids": X})
    with pytest.raises(ValueError, match="no tokenizer.*mask"):
        MLMPredictor(3, model=MODEL).predict({"input_ids": X})


def test_logits_that_are_nan_are_refused(tokenizer):
    broken = TableModel(torch.full((4, 27), torch.nan))
    with pytest.raises(ValueError, match="NaN"):
        MLMPredictor(3, tokenizer=tokenizer, model=broken).predict({"input_ids": X})


@pytest.mark.parametrize("answer", [None, torch.ones(2, 1), torch.ones(2, 4), [True]])
def test_a_strategy_that_returns_something_else_is_refused(tokenizer, answer):
    class Odd:
        needs_logits = False

        def select(self, candidates):
            return answer

    with pytest.raises(ValueError, match="Odd.select must return booleans"):
        MLMPredictor(3, tokenizer=tokenizer, model=MODEL, strategy=Odd()).predict({"input_ids": X})


@pytest.mark.parametrize("hook", [lambda x: None, lambda x: x[:, 1:], lambda x: x[..., :3]])
def test_a_hook_that_returns_something_else_is_refused(tokenizer, hook):
    with pytest.raises(ValueError, match="the logits_hook gave .* of the same shape"):
        MLMPredictor(3, tokenizer=tokenizer, model=MODEL, logits_hook=hook).predict(
            {"input_ids": X}
        )


def test_the_shift_needs_whole_rows():
    with pytest.raises(ValueError, match="shifting needs"):
        LogitsShiftBy1()(torch.zeros(3, 5))


def test_a_mask_token_the_model_does_not_have_is_refused(tokenizer):
    small = TableModel(torch.zeros(4, 2))
    with pytest.raises(ValueError, match="token id 2.*vocabulary of 2"):
        MLMPredictor(3, tokenizer=tokenizer, model=small).predict({"input_ids": X})


def test_a_refused_batch_counts_no_samples(tokenizer):
    one = MLMPredictor(3, tokenizer=tokenizer, model=MODEL, seed=1)
    with pytest.raises(ValueError, match="attention_mask"):
        one.predict({"input_ids": X, "attention_mask": X[:1] > 0})
    assert one.samples_seen == 0


def test_block_masks_for_another_number_of_heads_are_refused():
    from torch.nn.attention.flex_attention import create_block_mask

    from xlm_mlm.modeling.masks import check_block_mask

    mask = create_block_mask(lambda b, h, q, k: q >= k, None, 3, 4, 4, device="cpu")
    check_block_mask(mask, 2, 4, heads=3)
    with pytest.raises(ValueError, match="1 or 2"):
        check_block_mask(mask, 2, 4, heads=2)
    assert segment_block_mask(X).shape[1] == 1
