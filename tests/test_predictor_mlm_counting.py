"""The number of a sample: counted, taken from the batch, and kept in a checkpoint."""

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
