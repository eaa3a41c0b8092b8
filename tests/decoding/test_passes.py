"""Passes that take tokens back: what the state says, and what a rule must not do."""

import math
from itertools import pairwise

import pytest
import torch
from toy_models import SelectiveModel, TableModel

from xlm_mlm import HistoryTopKPlugin, MLMPredictor

MASK, V = 2, 27


def table(length=6, scale=2.0):
    return torch.randn(length, V, generator=torch.Generator().manual_seed(3)) * scale


def batch(rows=3, length=6):
    x = torch.full((rows, length), MASK)
    x[0, :2], x[1, 5] = 9, 9
    return {"input_ids": x}


def predictor(tokenizer, max_steps=8, model=None, **options):
    return MLMPredictor(
        max_steps, tokenizer=tokenizer, model=model or TableModel(table()), seed=1, **options
    )


def test_p2_is_that_of_the_loop_over_rows(tokenizer):
    """Against the definition, pass by pass, with the tokens that were drawn."""
    logits = table()
    one = predictor(tokenizer, 9, revision="p2")
    states = list(one.predict_iter(batch()))
    logp = logits.clone()
    logp[:, MASK] = -torch.inf
    logp = logp.log_softmax(-1)
    x = states[0]["x"].clone()
    for i, after in enumerate(states[1:]):
        for row in range(3):
            ours = (states[0]["x"][row] == MASK).nonzero().flatten().tolist()
            masks = [c for c in ours if x[row, c] == MASK]
            if not masks:
                continue
            # Tokens of the masks that are masked again can't be seen; bound them instead.
            count = math.floor(len(ours) * (1 - (i + 1) / 9) + 1e-9)
            still = [c for c in ours if after["x"][row, c] == MASK]
            assert len(still) == min(count, len(ours) - 1)
            kept = [c for c in ours if c not in still]
            back = [c for c in still if c not in masks]
            score = {c: float(logp[c, after["x"][row, c]]) for c in kept}
            filled = [c for c in kept if c in masks]
            assert filled
            spared = max(filled, key=score.get)
            for c in back:
                lost = float(logp[c, x[row, c]])
                assert all(lost <= score[k] for k in kept if k != spared)
        x = after["x"]
    assert not (x == MASK).any()


def test_remdm_takes_back_what_was_there_before_the_pass(tokenizer):
    one = predictor(tokenizer, 12, revision={"name": "remdm", "rule": "rescale", "eta": 0.9})
    states = list(one.predict_iter(batch()))
    backs = 0
    for before, after in pairwise(states):
        back = after["taken_back"]
        backs += int(back.sum())
        assert (after["x"][back] == MASK).all()
        if after["current_step"] == before["current_step"] + 1:
            assert not (back & after["filled"]).any()
    assert backs > 5


def test_complete_rows_cost_no_pass_of_the_network(tokenizer):
    model = TableModel(table())
    one = predictor(tokenizer, 200, model=model, revision={"name": "remdm", "eta": 0.01})
    preds = one.predict(batch())
    assert len(model.inputs) < 60
    assert max(preds["steps_taken"]) <= len(model.inputs)
    assert all((x == MASK).any(dim=1).all() for x in model.inputs)


@pytest.mark.parametrize("kind", [TableModel, SelectiveModel])
def test_conf_remembers_with_what_probability_a_token_was_drawn(tokenizer, kind):
    logits = table()
    model = kind(logits)
    one = predictor(tokenizer, 12, model=model, revision={"name": "remdm", "rule": "conf"})
    logits[:, MASK] = -torch.inf
    p = logits.double().softmax(-1)
    final = list(one.predict_iter(batch()))[-1]
    ours = (batch()["input_ids"] == MASK).nonzero().tolist()
    for row, column in ours:
        expected = float(p[column, final["x"][row, column]])
        assert float(final["p"][row, column]) == pytest.approx(expected, abs=1e-6)


def test_a_record_of_revised_passes_holds_only_what_was_masked(tokenizer, tmp_path):
    for revision in ("p2", {"name": "remdm", "rule": "rescale", "eta": 0.9}):
        history = HistoryTopKPlugin(tmp_path / "h", k=3)
        one = predictor(tokenizer, 9, revision=revision, history=history)
        states = list(one.predict_iter(batch()))
        for row, entry in enumerate(history.to_dict()):
            record = HistoryTopKPlugin.from_serialized(tmp_path / "h", entry["fid"])
            # A complete row takes no part in a pass, but may lose a token in it.
            seen = [(a, b) for a, b in pairwise(states) if b["active"][row]]
            assert record.get_num_steps() == len(seen)
            for step, (before, after) in enumerate(seen):
                kept = record.get(step)
                # A position that was not masked holds its token with probability 1.
                assert torch.equal(kept["p"][:, 0] == 1, before["x"][row] != MASK)
                assert torch.equal(kept["x"].long(), after["x"][row])


class Greedy:
    """A revision that breaks its promise in one way."""

    def __init__(self, needs_scores, answer):
        self.needs_scores, self.answer = needs_scores, answer

    def remask(self, generated):
        return self.answer(generated)


@pytest.mark.parametrize(
    ("needs_scores", "answer", "words"),
    [
        (True, lambda g: g.valid.clone(), "must leave at least one mask of every line"),
        (True, lambda g: g.valid.float(), "must return booleans"),
        (False, lambda g: g.valid[:, :1], "must return booleans of the shape of `valid`"),
        (False, lambda g: None, "must return booleans"),
    ],
)
def test_a_rule_that_breaks_its_promise_is_told(tokenizer, needs_scores, answer, words):
    one = predictor(tokenizer, revision=Greedy(needs_scores, answer))
    with pytest.raises(ValueError, match=words):
        one.predict(batch())


def test_a_rule_can_take_back_neither_given_tokens_nor_in_the_last_pass(tokenizer):
    everything = Greedy(False, lambda g: torch.ones_like(g.valid))
    preds = predictor(tokenizer, 5, revision=everything).predict(batch())
    assert not (preds["ids"] == MASK).any()
    assert preds["ids"][0, :2].tolist() == [9, 9]
    assert preds["steps_taken"] == [5, 5, 5]


def test_blocks_are_filled_from_left_to_right(tokenizer):
    one = predictor(tokenizer, 6, block_length=2, confidence="entropy")
    states = list(one.predict_iter({"input_ids": torch.full((4, 6), MASK)}))
    for state in states[1:]:
        for row in state["masked"].tolist():
            left = [column // 2 for column, is_masked in enumerate(row) if is_masked]
            filled = [column // 2 for column, is_masked in enumerate(row) if not is_masked]
            assert not left or max(filled) <= min(left)


def test_blocks_begin_behind_the_prompt_and_its_padding(tokenizer):
    x = torch.full((2, 9), 9)
    x[:, 5:] = MASK
    valid = torch.ones(2, 9, dtype=torch.bool)
    valid[0, :3] = False
    one = predictor(tokenizer, 4, TableModel(table(9)), block_length=2)
    states = list(one.predict_iter({"input_ids": x, "attention_mask": valid}))
    assert states[2]["masked"][:, 5:].tolist() == [[False, False, True, True]] * 2


def test_p2_scores_a_committed_token_by_the_model_alone(tokenizer):
    """A rule that no token may stand twice in a row would forbid each where it stands."""

    def each_once(x, flat):
        allowed = torch.ones(len(flat), V, dtype=torch.bool)
        rows = x[flat // x.shape[1]]
        return allowed.scatter(1, rows, rows == MASK)

    scores = []

    class Watching:
        needs_scores = True

        def remask(self, generated):
            scores.append(generated.scores[generated.valid & ~generated.masked])
            count = generated.valid.sum(dim=1) - generated.passes_done - 1
            ranks = torch.arange(generated.valid.shape[1])
            back = ranks < count[:, None]
            return back & generated.masked

    one = predictor(tokenizer, 6, revision=Watching(), allowed_tokens=each_once)
    one.predict({"input_ids": torch.full((2, 6), MASK)})
    assert len(torch.cat(scores)) > 5
    assert torch.cat(scores).isfinite().all()
