"""What the predictor refuses, and what its messages say."""

import pytest
import torch
from toy_models import TableModel

from xlm_mlm import MLMPredictor

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
        ({"max_steps": 3, "strategy": object(), "confidence": "entropy"}, "one or the other"),
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
