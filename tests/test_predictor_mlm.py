"""The decoding loop: how many passes, what is filled, what comes back."""

import json
import math

import pytest
import torch
from toy_models import SelectiveModel, TableModel

from xlm_mlm import LogitsShiftBy1, MLMPredictor, RotaryTransformerMLMModel

MASK, PAD, V = 2, 0, 27

RULES = {
    "uniform": {},
    "top_prob": {"confidence": "top_prob"},
    "prob_diff": {"confidence": "prob_diff", "confidence_temperature": 0.0},
    "entropy": {"confidence": "entropy"},
    "top_prob budget": {"confidence": "top_prob", "threshold": 0.9},
    "prob_diff budget": {"confidence": "prob_diff", "threshold": 0.9},
    "entropy budget": {"confidence": "entropy", "threshold": 2.0},
}


def table(length, vocabulary=V, seed=0):
    return torch.randn(length, vocabulary, generator=torch.Generator().manual_seed(seed)) * 2


def ragged_batch():
    """Rows with 5, 0, 1 and 8 masks."""
    x = torch.randint(7, V, (4, 8), generator=torch.Generator().manual_seed(2))
    x[0, [0, 2, 3, 5, 7]] = MASK
    x[2, 4] = MASK
    x[3] = MASK
    return {"input_ids": x, "attention_mask": torch.ones(4, 8, dtype=torch.bool)}


def predictor(tokenizer, model, max_steps=4, **options):
    return MLMPredictor(max_steps, tokenizer=tokenizer, model=model, **options)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
@pytest.mark.parametrize("max_steps", [1, 2, 5, 100])
@pytest.mark.parametrize("kind", [TableModel, SelectiveModel])
def test_every_mask_is_filled_in_at_most_max_steps_passes(tokenizer, rule, max_steps, kind):
    model, batch = kind(table(8)), ragged_batch()
    preds = predictor(tokenizer, model, max_steps, **rule).predict(batch)
    masks = (batch["input_ids"] == MASK).sum(dim=1).tolist()
    given = batch["input_ids"] != MASK
    assert not (preds["ids"] == MASK).any()
    assert torch.equal(preds["ids"][given], batch["input_ids"][given])
    assert preds["steps_taken"][1] == 0
    for taken, n in zip(preds["steps_taken"], masks, strict=True):
        assert math.ceil(n / 8) <= taken <= min(max_steps, n)
    # No pass runs without a row at work, and none holds a finished row.
    assert len(model.inputs) == max(preds["steps_taken"])
    assert all((x == MASK).any(dim=1).all() for x in model.inputs)


def test_uniform_spreads_the_masks_evenly(tokenizer):
    x = torch.full((1, 13), MASK)
    model = SelectiveModel(table(13))
    predictor(tokenizer, model, 5).predict({"input_ids": x})
    left = [int((seen == MASK).sum()) for seen in model.inputs]
    expected, n = [], 13
    for r in (5, 4, 3, 2, 1):
        expected.append(n)
        n -= math.ceil(n / r)
    assert left == expected
    # Only what is filled is projected to the vocabulary.
    assert model.asked == [a - b for a, b in zip(left, [*left[1:], 0], strict=True)]


def test_sixteen_masks_cost_sixteen_passes_not_max_steps(tokenizer):
    model = TableModel(table(16))
    predictor(tokenizer, model, 100).predict({"input_ids": torch.full((1, 16), MASK)})
    assert len(model.inputs) == 16


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
def test_the_mask_itself_is_never_produced(tokenizer, rule):
    logits = torch.zeros(8, V)
    logits[:, MASK] = 30.0
    for greedy in ({}, {"temperature": 0.0}):
        preds = predictor(tokenizer, TableModel(logits), 3, **rule, **greedy).predict(
            ragged_batch()
        )
        assert not (preds["ids"] == MASK).any()
        assert all(taken <= 3 for taken in preds["steps_taken"])


def test_greedy_takes_the_best_token_everywhere(tokenizer):
    model = TableModel(table(8))
    preds = predictor(tokenizer, model, 3, temperature=0.0).predict(ragged_batch())
    scores = model.table.clone()
    scores[:, MASK] = -torch.inf
    was_masked = ragged_batch()["input_ids"] == MASK
    expected = scores.argmax(dim=-1).expand(4, 8)
    assert torch.equal(preds["ids"][was_masked], expected[was_masked])


def test_confidence_fills_the_surest_positions_first(tokenizer):
    logits = torch.zeros(6, V)
    for column, sure in enumerate([1.0, 6.0, 3.0, 5.0, 2.0, 4.0]):
        logits[column, 10] = sure
    model = TableModel(logits)
    for confidence in ("top_prob", "prob_diff", "entropy"):
        model.inputs.clear()
        predictor(tokenizer, model, 6, confidence=confidence, confidence_temperature=0.0).predict(
            {"input_ids": torch.full((1, 6), MASK)}
        )
        masks = [set((x[0] == MASK).nonzero().flatten().tolist()) for x in model.inputs]
        order = [next(iter(a - b)) for a, b in zip(masks, [*masks[1:], set()], strict=True)]
        assert order == [1, 3, 5, 2, 4, 0]


def test_new_tokens_are_appended_behind_the_prompt(tokenizer):
    x = torch.tensor([[0, 0, 10, 4], [11, 12, 13, 4]])
    valid = x != PAD
    batch = {"input_ids": x, "attention_mask": valid}
    seen = {}

    class Watching(TableModel):
        def forward(self, x_t, attention_mask=None, positions=None, block_mask=None):
            seen.setdefault("mask", attention_mask)
            return super().forward(x_t, attention_mask, positions, block_mask)

    preds = predictor(tokenizer, Watching(table(9)), 5, max_new_tokens=5).predict(batch)
    assert preds["ids"].shape == (2, 9)
    assert torch.equal(preds["ids"][:, :4], x)
    assert preds["output_start_idx"].tolist() == [4, 4]
    assert torch.equal(seen["mask"], torch.cat((valid, torch.ones(2, 5, dtype=torch.bool)), 1))
    assert torch.equal(batch["input_ids"], x)
    in_place = predictor(tokenizer, TableModel(table(8)), 5).predict(ragged_batch())
    assert in_place["output_start_idx"].tolist() == [8] * 4


def test_given_positions_go_on_behind_the_prompt(tokenizer):
    seen = []

    class Watching(TableModel):
        def forward(self, x_t, attention_mask=None, positions=None, block_mask=None):
            seen.append(positions)
            return super().forward(x_t)

    batch = {"input_ids": torch.tensor([[5, 6]]), "positions": torch.tensor([[3, 4]])}
    predictor(tokenizer, Watching(table(5)), 1, max_new_tokens=3).predict(batch)
    assert seen[0].tolist() == [[3, 4, 5, 6, 7]]


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
def test_with_a_seed_a_sample_does_not_depend_on_its_batch(tokenizer, rule):
    x = torch.full((6, 7), MASK)
    x[:, :2] = torch.arange(7, 19).view(6, 2)

    def run(rows, padding, ids=None):
        """Some rows, padded on the left as a longer neighbour would pad them."""
        model = TableModel(torch.cat((torch.zeros(padding, V), table(7))))
        given = torch.cat((torch.full((len(rows), padding), PAD), x[rows]), dim=1)
        batch = {"input_ids": given, "attention_mask": given != PAD}
        if ids is not None:
            batch["sample_ids"] = torch.tensor(ids)
        return predictor(tokenizer, model, 3, seed=11, **rule).predict(batch)["ids"][:, padding:]

    whole = run([0, 1, 2, 3, 4, 5], 0)
    assert torch.equal(run([0, 1], 3), whole[:2])
    assert torch.equal(run([4, 2], 1, ids=[4, 2]), whole[[4, 2]])
    assert len({tuple(row[2:].tolist()) for row in whole}) > 1


def test_samples_are_counted_across_batches_until_reseeded(tokenizer):
    model, x = TableModel(table(7)), torch.full((4, 7), MASK)
    together = predictor(tokenizer, model, 3, seed=1).predict({"input_ids": x})["ids"]
    one = predictor(tokenizer, model, 3, seed=1)
    parts = [one.predict({"input_ids": x[:1]})["ids"], one.predict({"input_ids": x[1:]})["ids"]]
    assert torch.equal(torch.cat(parts), together)
    one.reseed(1)
    assert torch.equal(one.predict({"input_ids": x})["ids"], together)


def test_torchs_seed_repeats_a_run(tokenizer):
    def run():
        torch.manual_seed(5)
        return predictor(tokenizer, TableModel(table(8)), 3).predict(ragged_batch())["ids"]

    assert torch.equal(run(), run())


def test_mode_gradients_and_batch_are_left_as_they_were(tokenizer):
    inner = torch.nn.Dropout(0.5).eval()
    model = TableModel(table(8))
    model.inner = inner
    model.train()
    inner.eval()
    batch = ragged_batch()
    before = {k: v.clone() for k, v in batch.items()}
    preds = predictor(tokenizer, model, 3).predict(batch)
    assert model.training
    assert not inner.training
    assert torch.is_grad_enabled()
    assert not any(model.grad_enabled)
    assert not any(model.modes)
    assert all(torch.equal(batch[k], before[k]) for k in before)
    assert not preds["ids"].is_inference()
    assert not preds["ids"].requires_grad


def test_mode_is_restored_after_an_error(tokenizer):
    class Broken(TableModel):
        def forward(self, x_t, attention_mask=None, positions=None, block_mask=None):
            raise RuntimeError("broken on purpose")

    model = Broken(table(8)).train()
    with pytest.raises(RuntimeError, match="on purpose"):
        predictor(tokenizer, model).predict(ragged_batch())
    assert model.training


def test_single_steps_hold_all_rows_and_leave_their_input_alone(tokenizer):
    one = predictor(tokenizer, TableModel(table(8)), 3, temperature=0.0)
    batch = ragged_batch()
    state = {
        "x": batch["input_ids"],
        "attention_mask": batch["attention_mask"],
        "positions": None,
        "logits": None,
        "steps_taken": torch.zeros(4, dtype=torch.long),
        "done": torch.zeros(4, dtype=torch.bool),
        "active": torch.zeros(4, dtype=torch.bool),
        "current_step": 0,
    }
    x = state["x"].clone()
    after = one.predict_single_step(state)
    assert torch.equal(state["x"], x)
    assert after["x"].shape == (4, 8)
    assert after["active"].tolist() == [True, False, True, True]
    assert one.stop(after).tolist() == [False, True, True, False]
    assert after["steps_taken"].tolist() == [1, 0, 1, 1]
    assert [int((row == MASK).sum()) for row in after["x"]] == [3, 0, 0, 5]
    final = one.predict_single_step(after, final_step=True)
    assert one.stop(final).all()
    idle = one.predict_single_step(final)
    assert torch.equal(idle["x"], final["x"])
    assert not idle["active"].any()
    assert idle["current_step"] == final["current_step"]


def test_to_dict_rows_are_json_and_pass_metrics_through(tokenizer):
    batch = ragged_batch()
    one = predictor(tokenizer, TableModel(table(8)), 3)
    preds = one.predict(batch)
    preds["metric_exact_match"] = [1.0, 0.0, 0.0, 1.0]
    rows = one.to_dict(batch, preds, 0, 0, "prediction")
    assert len(rows) == 4
    assert json.loads(json.dumps(rows)) == rows
    assert [row["metric_exact_match"] for row in rows] == [1.0, 0.0, 0.0, 1.0]
    assert rows[3]["ids"] == preds["ids"][3].tolist()
    assert rows[0]["output_start_idx"] == 8
    assert [row["steps_taken"] for row in rows] == [3, 0, 1, 3]
    assert rows[1]["time_taken"] == 0.0
    assert 0 < rows[2]["time_taken"] <= rows[3]["time_taken"]
    assert rows[0]["text"] == tokenizer.decode(preds["ids"][0])


def test_the_shift_hook_moves_scores_to_their_own_position(tokenizer):
    logits = torch.full((6, V), -5.0)
    for column in range(6):
        logits[column, 10 + column] = 5.0
    model = SelectiveModel(logits)
    preds = predictor(tokenizer, model, 1, temperature=0.0, logits_hook=LogitsShiftBy1()).predict(
        {"input_ids": torch.tensor([[MASK, 8, MASK, MASK, 9, MASK]])}
    )
    assert preds["ids"].tolist() == [[10, 8, 11, 12, 9, 14]]
    # It needs its neighbours, so all positions were computed.
    assert model.asked == [6]


def test_a_pointwise_hook_gets_the_needed_positions_only(tokenizer):
    def favour_nine(logits):
        assert logits.ndim == 2
        out = logits.clone()
        out[:, 9] += 100
        return out

    favour_nine.pointwise = True
    model = SelectiveModel(table(8))
    preds = predictor(tokenizer, model, 2, logits_hook=favour_nine).predict(ragged_batch())
    assert (preds["ids"][ragged_batch()["input_ids"] == MASK] == 9).all()


def test_the_model_is_no_submodule(tokenizer):
    model = TableModel(table(8))
    one = predictor(tokenizer, model)
    assert not list(one.parameters())
    one.model = model
    assert not list(one.modules())[1:]
    assert one.model is model


def test_a_strategy_of_ones_own_is_asked_and_held_to_its_promise(tokenizer):
    class Leftmost:
        needs_logits = False

        def select(self, candidates):
            chosen = torch.zeros_like(candidates.valid)
            chosen[:, 0] = True
            return chosen

    model = TableModel(table(8))
    preds = predictor(tokenizer, model, 100, strategy=Leftmost()).predict(ragged_batch())
    assert preds["steps_taken"] == [5, 0, 1, 8]

    class Idle(Leftmost):
        def select(self, candidates):
            return torch.zeros_like(candidates.valid)

    with pytest.raises(ValueError, match="Idle.select must return"):
        predictor(tokenizer, model, 100, strategy=Idle()).predict(ragged_batch())


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
def test_our_network_gives_the_same_with_and_without_its_keyword(tokenizer, rule):
    model = RotaryTransformerMLMModel(
        V, 16, 2, 2, padding_idx=PAD, mask_idx=MASK, rotary_emb_dim=4, max_length=8
    )

    class Bare(torch.nn.Module):
        def forward(self, x_t, attention_mask=None, positions=None, block_mask=None):
            return model.eval()(x_t, attention_mask, positions, block_mask)

    batch = ragged_batch()
    batch["attention_mask"][0, 6] = False
    runs = [
        predictor(tokenizer, m, 3, seed=4, **rule).predict(batch)["ids"] for m in (model, Bare())
    ]
    assert torch.equal(*runs)


def test_packed_rows_are_filled_segment_by_segment(tokenizer):
    model = RotaryTransformerMLMModel(
        V, 16, 2, 2, padding_idx=PAD, mask_idx=MASK, rotary_emb_dim=4, max_length=8
    )
    x = torch.tensor([[10, MASK, 3, 12, MASK, 14, 3, 9]])
    batch = {
        "input_ids": x,
        "segment_ids": torch.tensor([[0, 0, 0, 1, 1, 1, 1, 2]]),
        "positions": torch.tensor([[0, 1, 2, 0, 1, 2, 3, 0]]),
    }
    options = {"temperature": 0.0, "max_steps": 1}
    packed = predictor(tokenizer, model, **options).predict(batch)["ids"]
    alone = [
        predictor(tokenizer, model, **options).predict({"input_ids": x[:, part]})["ids"]
        for part in (slice(0, 3), slice(3, 7), slice(7, 8))
    ]
    assert torch.equal(packed, torch.cat(alone, dim=1))
    with pytest.raises(ValueError, match="the batch is packed"):
        predictor(tokenizer, model, 1, max_new_tokens=2).predict(batch)


def test_bf16_autocast_works(tokenizer):
    model = RotaryTransformerMLMModel(
        V, 16, 2, 2, padding_idx=PAD, mask_idx=MASK, rotary_emb_dim=4, max_length=8
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        preds = predictor(tokenizer, model, 3, confidence="entropy").predict(ragged_batch())
    assert not (preds["ids"] == MASK).any()
