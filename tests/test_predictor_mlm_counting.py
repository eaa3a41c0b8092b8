"""The number of a sample: counted, taken from the batch, and kept in a checkpoint."""

import pytest
import torch
from toy_models import TableModel

from xlm_mlm import MLMPredictor

MASK, V = 2, 27


def predictor(tokenizer, seed=5):
    model = TableModel(torch.randn(8, V, generator=torch.Generator().manual_seed(3)))
    return MLMPredictor(3, tokenizer=tokenizer, model=model, seed=seed)


def predict(one, rows):
    return one.predict({"input_ids": torch.full((rows, 8), MASK)})["ids"]


class Harness(torch.nn.Module):
    def __init__(self, one):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(2))
        self.predictor = one


def test_a_resumed_run_numbers_its_samples_on(tokenizer):
    whole = predict(predictor(tokenizer), 9)
    first = predictor(tokenizer)
    parts = [predict(first, 4)]
    saved = Harness(first).state_dict()
    assert sorted(saved) == ["predictor.samples_seen", "weight"]
    second = predictor(tokenizer)
    Harness(second).load_state_dict(saved)
    parts.append(predict(second, 5))
    assert torch.equal(torch.cat(parts), whole)
    assert "predictor.samples_seen" in saved  # nothing of the caller's is changed


def test_a_checkpoint_without_the_count_loads_strictly(tokenizer):
    before = Harness(predictor(tokenizer, seed=None)).state_dict()
    assert sorted(before) == ["weight"]
    one = predictor(tokenizer)
    predict(one, 2)
    Harness(one).load_state_dict(before)
    assert one.samples_seen == 2


def test_a_count_nobody_needs_is_no_error(tokenizer):
    saved = Harness(predictor(tokenizer)).state_dict()
    one = predictor(tokenizer, seed=None)
    Harness(one).load_state_dict(saved)
    assert one.samples_seen == 0


@pytest.mark.parametrize("seen", [torch.tensor(-7), torch.tensor([1, 2]), torch.tensor(1.5)])
def test_a_count_that_is_none_is_refused(tokenizer, seen):
    saved = {**Harness(predictor(tokenizer)).state_dict(), "predictor.samples_seen": seen}
    with pytest.raises(RuntimeError, match="samples_seen is"):
        Harness(predictor(tokenizer)).load_state_dict(saved)


@pytest.mark.parametrize(
    "given", [3, [None, 1], ["0", "1"], [[1], [1, 2]], [2**63, 1], [0, -1], [0.5, 1.0], [0]]
)
def test_numbers_that_are_none_are_refused(tokenizer, given):
    with pytest.raises(ValueError, match="sample_ids are .*they must be 2 integers"):
        predictor(tokenizer).predict({"input_ids": torch.full((2, 8), MASK), "sample_ids": given})


def test_a_batch_that_failed_is_not_counted(tokenizer):
    one, whole = predictor(tokenizer), predict(predictor(tokenizer), 3)
    one.logits_hook = lambda logits: logits * torch.nan
    with pytest.raises(ValueError, match="NaN"):
        predict(one, 3)
    one.logits_hook = None
    assert torch.equal(predict(one, 3), whole)


def test_an_iterator_complains_when_it_is_made(tokenizer):
    with pytest.raises(KeyError, match="input_ids"):
        predictor(tokenizer).predict_iter({})


def test_a_table_that_is_no_tensor_is_refused(tokenizer):
    batch = {"input_ids": torch.full((2, 8), MASK), "allowed_tokens": [4, 5]}
    with pytest.raises(ValueError, match=r"allowed_tokens is \[4, 5\]; it must be a boolean"):
        predictor(tokenizer).predict(batch)
