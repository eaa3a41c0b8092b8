"""From prompts to texts: filled in place, or continued."""

import pytest
import torch
from toy_models import TableModel

from xlm_mlm import MLMPredictor


def speaking(length=12):
    """A model that wants the number t at column t."""
    logits = torch.full((length, 27), -10.0)
    for t in range(length):
        logits[t, 7 + t] = 10.0
    return TableModel(logits)


def predictor(tokenizer, **options):
    return MLMPredictor(4, tokenizer=tokenizer, model=speaking(), temperature=0.0, **options)


def test_prompts_are_filled_or_continued_and_returned_in_order(tokenizer):
    out = predictor(tokenizer, max_new_tokens=3).generate(
        ["5 6", "9 [MASK] 9 [MASK]", "4", "[MASK] 8"]
    )
    # Continued prompts are padded on the left to two tokens: their masks stand at columns 2 to 4.
    # Filled ones are padded to four: the last one's mask stands at column 2.
    assert out == ["2 3 4", "9 1 9 3", "2 3 4", "2 8"]


def test_masks_are_filled_without_max_new_tokens(tokenizer):
    assert predictor(tokenizer).generate(["3 [MASK]"]) == ["3 1"]
    assert predictor(tokenizer).generate([]) == []


def test_an_empty_prompt_is_continued_from_nothing(tokenizer):
    assert predictor(tokenizer, max_new_tokens=2).generate([""]) == ["0 1"]


def test_special_tokens_are_left_out_as_asked(tokenizer):
    asked = []

    class Listening:
        def __getattr__(self, name):
            return getattr(tokenizer, name)

        def __call__(self, *args, **kwargs):
            return tokenizer(*args, **kwargs)

        def decode(self, ids, skip_special_tokens=None):
            asked.append(skip_special_tokens)
            return tokenizer.decode(ids)

    for skip in (True, False):
        predictor(Listening(), skip_special_tokens=skip).generate(["[MASK]"])
    assert asked == [True, False]


@pytest.mark.parametrize(
    ("prompts", "words"),
    [
        ("5 [MASK]", "must be a list"),
        (None, "must be a list"),
        (["5"], r"holds no \[MASK\].*max_new_tokens is None"),
        ([""], r"holds no \[MASK\]"),
        ([3], "every prompt must be a string"),
    ],
)
def test_bad_prompts_are_refused(tokenizer, prompts, words):
    with pytest.raises(ValueError, match=words):
        predictor(tokenizer).generate(prompts)
