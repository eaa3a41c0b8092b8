"""Numbers of samples, precision of integers, and what else survived a search for gaps."""

import pickle

import numpy as np
import pytest
import torch
from toy_models import TableModel

from xlm_mlm import HistoryTopKPlugin, MLMPredictor, RotaryTransformerMLMModel
from xlm_mlm.sampling.positions import Uniform

MASK, V = 2, 27


def table(length=8):
    return torch.randn(length, V, generator=torch.Generator().manual_seed(3)) * 2


@pytest.mark.parametrize("temperature", [5e-324, 1e-46, 1e39, 1e300])
@pytest.mark.parametrize("options", [{}, {"top_k": 3}, {"top_p": 0.9}])
@pytest.mark.parametrize("mask_id", [MASK, V - 1])
def test_no_temperature_produces_the_mask(tokenizer, temperature, options, mask_id):
    class LastIsMask:
        mask_token_id = mask_id

        def batch_decode(self, ids, skip_special_tokens=True):
            return [""] * len(ids)

    one = MLMPredictor(
        1, tokenizer=LastIsMask(), model=TableModel(table()), temperature=temperature, **options
    )
    ids = one.predict({"input_ids": torch.full((4, 6), mask_id)})["ids"]
    assert not (ids == mask_id).any()


@pytest.mark.parametrize("rank", [0, 1])
def test_ranks_count_in_turns(tokenizer, monkeypatch, rank):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: rank)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    model, x = TableModel(table()), torch.full((6, 8), MASK)
    here = MLMPredictor(3, tokenizer=tokenizer, model=model, seed=5)
    parts = [here.predict({"input_ids": x[:1]})["ids"], here.predict({"input_ids": x[:2]})["ids"]]
    monkeypatch.undo()
    alone = MLMPredictor(3, tokenizer=tokenizer, model=model, seed=5).predict({"input_ids": x})
    assert torch.equal(torch.cat(parts), alone["ids"][rank::2])


def test_a_prompts_number_is_its_place_in_the_list(tokenizer):
    def generate(prompts):
        model = TableModel(torch.zeros(8, V))
        one = MLMPredictor(3, tokenizer=tokenizer, model=model, seed=5, max_new_tokens=4)
        return one.generate(prompts)

    assert generate(["5 6", "7 [MASK] 8"])[0] == generate(["5 6"])[0]
    assert generate(["5 6", "7 [MASK] 8"])[1] != generate(["7 [MASK] 8"])[0]


def test_the_last_pass_fills_all_whatever_the_strategy_says(tokenizer):
    class Leftmost(Uniform):
        def select(self, candidates):
            chosen = torch.zeros_like(candidates.valid)
            chosen[:, 0] = True
            return chosen

    model = TableModel(table())
    one = MLMPredictor(3, tokenizer=tokenizer, model=model, strategy=Leftmost())
    preds = one.predict({"input_ids": torch.full((1, 8), MASK)})
    assert not (preds["ids"] == MASK).any()
    assert preds["steps_taken"] == [3]


def test_a_step_by_hand_needs_no_preparation(tokenizer):
    model = TableModel(table()).train()
    one = MLMPredictor(2, tokenizer=tokenizer, model=model)
    state = {
        "x": torch.full((1, 8), MASK),
        "attention_mask": None,
        "positions": None,
        "logits": None,
        "steps_taken": torch.zeros(1, dtype=torch.long),
        "done": torch.zeros(1, dtype=torch.bool),
        "active": torch.zeros(1, dtype=torch.bool),
        # More passes than allowed: the rest is filled.
        "current_step": 7,
    }
    assert one.stop(one.predict_single_step(state)).all()
    assert model.modes == [False]
    assert model.grad_enabled == [False]
    assert model.training


@pytest.mark.parametrize("dtype", [torch.int32, torch.int16])
def test_any_integers_are_taken(tokenizer, tmp_path, dtype):
    model = RotaryTransformerMLMModel(
        V, 16, 1, 2, mask_idx=MASK, rotary_emb_dim=4, max_length=8, dropout=0.0
    )
    x = torch.tensor([[5, MASK, 7, MASK]])
    one = MLMPredictor(
        2,
        tokenizer=tokenizer,
        model=model,
        temperature=0.0,
        history=HistoryTopKPlugin(tmp_path, k=2),
    )
    positions = torch.arange(4)[None]
    wide = one.predict({"input_ids": x, "positions": positions})["ids"]
    narrow = one.predict({"input_ids": x.to(dtype), "positions": positions.to(dtype)})["ids"]
    assert torch.equal(wide, narrow.long())


@pytest.mark.parametrize("confidence", [None, "top_prob", "prob_diff", "entropy"])
@pytest.mark.parametrize("threshold", [None, 0.5])
def test_predictors_and_networks_can_be_pickled(tokenizer, confidence, threshold):
    if confidence is None and threshold is not None:
        threshold = None
    model = RotaryTransformerMLMModel(V, 16, 1, 2, mask_idx=MASK, rotary_emb_dim=4, max_length=8)
    one = MLMPredictor(
        2, tokenizer=tokenizer, model=model, confidence=confidence, threshold=threshold, seed=1
    )
    x = torch.full((2, 6), MASK)
    copy = pickle.loads(pickle.dumps(one))
    assert torch.equal(copy.predict({"input_ids": x})["ids"], one.predict({"input_ids": x})["ids"])


def test_resetting_the_predictor_resets_its_history(tokenizer, tmp_path):
    history = HistoryTopKPlugin(tmp_path, k=2)
    one = MLMPredictor(2, tokenizer=tokenizer, model=TableModel(table()), history=history)
    one.predict({"input_ids": torch.full((2, 6), MASK)})
    assert len(history.to_dict()) == 2
    one.reset()
    assert history.to_dict() == []


def test_decode_passes_the_switch_on(tokenizer):
    asked = []

    class Listening:
        mask_token_id = MASK

        def batch_decode(self, ids, skip_special_tokens=None):
            asked.append(skip_special_tokens)
            return [""] * len(ids)

    for skip in (True, False):
        one = MLMPredictor(1, tokenizer=Listening(), skip_special_tokens=skip)
        one.decode({"x": torch.zeros(1, 2, dtype=torch.long)})
    assert asked == [True, False]


def test_metrics_of_other_containers_become_plain(tokenizer):
    one = MLMPredictor(1, tokenizer=tokenizer, model=TableModel(table()))
    batch = {"input_ids": torch.full((2, 4), MASK)}
    preds = one.predict(batch)
    preds["metric_a"] = np.array([0.5, 1.0])
    preds["metric_b"] = (torch.tensor(1), torch.tensor(2))
    preds["metric_c"] = torch.tensor(3.0)
    rows = one.to_dict(batch, preds)
    assert [(r["metric_a"], r["metric_b"], r["metric_c"]) for r in rows] == [
        (0.5, 1, 3.0),
        (1.0, 2, 3.0),
    ]
    preds["metric_a"] = [1.0]
    with pytest.raises(ValueError, match="metric_a holds 1 values.*2 samples"):
        one.to_dict(batch, preds)
