"""Numbers of NumPy's and of torch's as options: the same as Python's, wherever they go on."""

import numpy as np
import pytest
import torch
from toy_models import SelectiveModel

from xlm_mlm import HistoryTopKPlugin, MLMLoss, MLMPredictor
from xlm_mlm.callbacks.resume import ExactResume
from xlm_mlm.collation.padding import prepare_prefix_ids
from xlm_mlm.collation.pairs import prepare_prefix_suffix_ids
from xlm_mlm.datamodule_mlm import (
    DefaultMLMCollator,
    MLMSeq2SeqCollator,
    MLMSeq2SeqPredCollator,
    MLMSeq2SeqTrainCollator,
    PackedMLMCollator,
)
from xlm_mlm.sampling.streams import SampleStreams

V = 27


def model():
    table = torch.randn(260, V, generator=torch.Generator().manual_seed(0))
    return SelectiveModel(table)


def test_a_narrow_number_of_new_tokens_does_not_overflow(tokenizer):
    given = {"input_ids": torch.full((1, 6), 9)}
    options = {"max_steps": np.uint8(2), "seed": torch.tensor(3), "top_k": np.uint8(200)}
    narrow = MLMPredictor(max_new_tokens=np.uint8(254), tokenizer=tokenizer, **options)
    narrow.model = model()
    wide = MLMPredictor(2, 254, tokenizer=tokenizer, model=narrow.model, seed=3, top_k=200)
    found, expected = narrow.predict(given), wide.predict(given)
    assert found["output_start_idx"].tolist() == [6]
    assert torch.equal(found["ids"], expected["ids"])
    kept = (narrow.max_steps, narrow.max_new_tokens, narrow.seed, narrow.rules.sampler.top_k)
    assert [type(each) for each in kept] == [int] * 4


def test_a_seed_may_be_a_tensor_of_one():
    assert SampleStreams(torch.tensor(3)).seed == 3
    loss = MLMLoss(likelihood_seed=torch.tensor(1), num_mc_samples=np.uint8(200))
    assert (loss.likelihood_seed, loss.num_mc_samples) == (1, 200)
    assert type(loss.num_mc_samples) is int
    with pytest.raises(ValueError, match="below 2..64"):
        SampleStreams(2**64)


EXAMPLE = {"prompt_ids": list(range(7, 17)), "target_ids": [8, 9], "input_ids": [7, 8]}


@pytest.mark.parametrize(
    "kind", [MLMSeq2SeqTrainCollator, MLMSeq2SeqCollator, MLMSeq2SeqPredCollator]
)
@pytest.mark.parametrize("truncate", ["block", "max", None])
def test_narrow_sizes_of_prompt_and_suffix_are_added_up_whole(tokenizer, kind, truncate):
    def made(number):
        torch.manual_seed(0)
        sizes = {"input_block_size": number(200), "block_size": number(100)}
        return kind(tokenizer, None, truncate=truncate, **sizes)([EXAMPLE])

    narrow, wide = made(np.uint8), made(int)
    assert narrow.keys() == wide.keys()
    for name, value in wide.items():
        assert not isinstance(value, torch.Tensor) or torch.equal(narrow[name], value), name


def test_sizes_are_kept_as_python_s(tokenizer):
    one = DefaultMLMCollator(tokenizer, np.uint8(8), None)
    packed = PackedMLMCollator(tokenizer, torch.tensor(8), None, use_flex_attn=True)
    two = MLMSeq2SeqTrainCollator(tokenizer, None, np.uint8(8), torch.tensor(4))
    sizes = [one.block_size, packed.block_size, two.block_size, two.input_block_size]
    assert sizes == [8, 8, 8, 4]
    assert [type(size) for size in sizes] == [int] * 4


def test_functions_of_prompts_take_narrow_numbers():
    narrow, tensor = np.uint8, torch.tensor
    found = prepare_prefix_ids([[7, 8], [9]], tensor(0), narrow(200))
    assert torch.equal(found["input_ids"], prepare_prefix_ids([[7, 8], [9]], 0, 200)["input_ids"])

    def pair(number):
        torch.manual_seed(0)
        ids = (number(0), number(2), number(3), number(4))
        sizes = {"max_seq_len": number(210), "suffix_block_size": number(100)}
        return prepare_prefix_suffix_ids([[7, 8]], [[9]], *ids, **sizes)

    wide = pair(int)
    for number in (narrow, tensor):
        assert all(torch.equal(value, wide[name]) for name, value in pair(number).items())


WRONG = [
    ("max_steps", "x", "max_steps is 'x'; it must be an integer of at least 1"),
    ("max_steps", 0, "max_steps is 0; it must be an integer of at least 1"),
    ("max_new_tokens", -1, "max_new_tokens is -1; it must be an integer of at least 0"),
    ("max_new_tokens", 2**62, "max_new_tokens is .* at most 2147483648"),
    ("skip_special_tokens", "no", "skip_special_tokens is 'no'; it must be true or false"),
    ("logits_hook", 3, "logits_hook is 3; it must be callable"),
    ("history", object(), "history is .*; it must derive from HistoryPluginBase"),
]


@pytest.mark.parametrize(("name", "value", "words"), WRONG)
def test_an_option_that_is_set_later_is_checked_as_at_construction(name, value, words):
    with pytest.raises(ValueError, match=words):
        MLMPredictor(**{"max_steps": 3, name: value})
    one = MLMPredictor(3, 5)
    kept = getattr(one, name)
    with pytest.raises(ValueError, match=words):
        setattr(one, name, value)
    assert getattr(one, name) is kept


def test_an_option_that_is_set_later_may_be_a_narrow_number(tmp_path):
    one, history = MLMPredictor(3), HistoryTopKPlugin(tmp_path)
    one.max_steps, one.max_new_tokens, one.history = np.uint8(7), torch.tensor(9), history
    assert (one.max_steps, one.max_new_tokens) == (7, 9)
    assert type(one.max_steps) is type(one.max_new_tokens) is int
    assert one.history is history


@pytest.mark.parametrize("value", ["false", 0, None])
def test_flags_without_much_effect_are_flags_too(value):
    with pytest.raises(ValueError, match="signals is .*; it must be true or false"):
        ExactResume(signals=value)
    with pytest.raises(ValueError, match="loss_on_padding is .*; it must be true or false"):
        MLMLoss(loss_on_padding=value)
