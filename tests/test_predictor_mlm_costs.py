"""What a pass leaves out, numbers and copies nobody needs, and that nothing is lost by it."""

import math

import numpy as np
import pytest
import torch
from toy_models import SelectiveModel, TableModel

from xlm_mlm import MLMPredictor
from xlm_mlm.sampling.positions import Uniform
from xlm_mlm.sampling.streams import GlobalStream, Purpose

MASK, V, LENGTH = 2, 27, 9

RULES = {
    "uniform": {},
    "top_prob": {"confidence": "top_prob", "confidence_temperature": 0.5},
    "prob_diff": {"confidence": "prob_diff"},
    "entropy": {"confidence": "entropy", "confidence_temperature": 0.0},
    "top_prob budget": {"confidence": "top_prob", "threshold": 0.9},
    "prob_diff budget": {"confidence": "prob_diff", "threshold": 0.9},
    "entropy budget": {"confidence": "entropy", "threshold": 2.0},
}
DRAWS = {
    "plain": {},
    "cooled": {"temperature": 0.6},
    "greedy": {"temperature": 0.0},
    "top_k": {"top_k": 4},
    "top_p": {"top_p": 0.7},
}


def table(dtype=torch.float32):
    """Logits of every column; columns 2 and 5 are equal, and some tokens are impossible."""
    logits = torch.randn(LENGTH, V, generator=torch.Generator().manual_seed(4)) * 2
    logits[5] = logits[2]
    logits[:, 11:14] = -torch.inf
    return logits.to(dtype).float()


def batch(kind):
    x = torch.randint(7, V, (4, LENGTH), generator=torch.Generator().manual_seed(6))
    if kind == "all masked":
        x[:] = MASK
    if kind == "ragged":
        x[0, [0, 2, 3, 5, 7]] = MASK
        x[1, 4] = MASK
        x[3] = MASK
    return x


def probabilities(logits):
    best = max(logits)
    weights = [math.exp(v - best) for v in logits]
    return [w / sum(weights) for w in weights]


def uncertainty(confidence, logits):
    p = sorted(probabilities(logits), reverse=True)
    return {
        "top_prob": 1 - p[0],
        "prob_diff": 1 - (p[0] - p[1]),
        "entropy": -sum(q * math.log(q) for q in p if q),
    }[confidence]


def log_score(confidence, logits):
    u = uncertainty(confidence, logits)
    return -u if confidence == "entropy" else math.log(1 - u)


def chosen_places(places, scores, noise, passes_left, rule):
    """The rule, written down for one row."""
    if passes_left == 1:
        return places
    confidence, threshold = rule.get("confidence"), rule.get("threshold")
    if threshold is not None:
        ranked = sorted(places, key=lambda t: uncertainty(confidence, scores[t]))
        taken = 1
        while taken < len(ranked):
            if sum(uncertainty(confidence, scores[t]) for t in ranked[:taken]) >= threshold:
                break
            taken += 1
        return ranked[:taken]
    count = math.ceil(len(places) / passes_left)
    if confidence is None:
        return sorted(places, key=lambda t: noise[t])[:count]
    scale = rule.get("confidence_temperature", 1.0)
    keys = {
        t: log_score(confidence, scores[t]) - scale * math.log(-math.log(noise[t])) for t in places
    }
    return sorted(places, key=lambda t: -keys[t])[:count]


def drawn_token(logits, uniform, temperature=1.0, top_k=V, top_p=1.0):
    ranked = sorted(range(V), key=lambda i: -logits[i])
    if temperature == 0:
        return ranked[0]
    p = probabilities([v / temperature for v in logits])
    kept, mass = [], 0.0
    for token in ranked[:top_k]:
        if mass >= top_p:
            break
        kept.append(token)
        mass += p[token]
    # A top_k is drawn from in order of probability, everything else in order of ids.
    order = kept if top_k < V else sorted(kept)
    target, reached = uniform * sum(p[i] for i in order), 0.0
    for token in order:
        reached += p[token]
        if reached > target:
            return token
    return order[-1]


def naive_generation(x, logits, max_steps, rule, draw, seed):
    """The whole loop, one row and one position at a time, on plain numbers."""
    scores = logits.tolist()
    for line in scores:
        line[MASK] = -math.inf
    out, taken = x.tolist(), []
    for sample, row in enumerate(out):
        key = np.array([seed, sample], dtype=np.uint64)
        for step in range(max_steps):
            places = [t for t in range(LENGTH) if row[t] == MASK]
            if not places:
                break
            position, token = (
                np.random.Generator(
                    np.random.Philox(key=key, counter=np.array([0, step, what, 0], np.uint64))
                ).random(LENGTH)
                for what in (0, 1)
            )
            for t in chosen_places(places, scores, position, max_steps - step, rule):
                row[t] = drawn_token(scores[t], token[t], **draw)
            taken.append((sample, step))
    return out, [sum(s == sample for s, _ in taken) for sample in range(len(out))]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["ragged", "all masked", "nothing masked"])
@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS.keys())
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
def test_generation_is_that_of_a_loop_over_rows_and_positions(tokenizer, rule, draw, kind, dtype):
    x, logits = batch(kind), table(dtype)
    one = MLMPredictor(3, tokenizer=tokenizer, model=SelectiveModel(logits), seed=8, **rule, **draw)
    preds = one.predict({"input_ids": x})
    ids, taken = naive_generation(x, logits, 3, rule, draw, seed=8)
    assert preds["ids"].tolist() == ids
    assert preds["steps_taken"] == taken


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS.keys())
def test_numbers_that_decide_nothing_are_not_drawn(tokenizer, rule, draw):
    purposes = set()

    class Counting(GlobalStream):
        def uniform(self, sample_ids, step, purpose, places):
            purposes.add(purpose)
            return super().uniform(sample_ids, step, purpose, places)

    one = MLMPredictor(3, tokenizer=tokenizer, model=TableModel(table()), **rule, **draw)
    one.streams = Counting()
    one.predict({"input_ids": batch("ragged")})
    needed = set()
    if "threshold" not in rule and rule.get("confidence_temperature") != 0.0:
        needed.add(Purpose.POSITION)
    if draw.get("temperature") != 0.0:
        needed.add(Purpose.TOKEN)
    assert purposes == needed


def test_a_strategy_that_says_nothing_gets_its_noise(tokenizer):
    class Silent:
        needs_logits = False

        def select(self, candidates):
            return Uniform().select(candidates)

    x = batch("ragged")
    runs = [
        MLMPredictor(3, tokenizer=tokenizer, model=TableModel(table()), seed=1, strategy=strategy)
        for strategy in (Silent(), Uniform())
    ]
    assert torch.equal(*(one.predict({"input_ids": x})["ids"] for one in runs))


class View(SelectiveModel):
    """Answers with a view of its parameter, or with one line for all."""

    shared = False

    def forward(self, x_t, attention_mask=None, positions=None, block_mask=None, *, logits_at=None):
        self.asked.append(len(logits_at))
        if self.shared:
            return self.table[:1].expand(len(logits_at), -1)
        return self.table[: len(logits_at)]


class Shared(View):
    shared = True


@pytest.mark.parametrize("kind", [TableModel, View, Shared])
@pytest.mark.parametrize("rule", [RULES["uniform"], RULES["entropy"]])
def test_logits_that_are_not_ours_are_left_alone(tokenizer, kind, rule):
    model, x = kind(table()), batch("ragged")[:1]
    preds = MLMPredictor(3, tokenizer=tokenizer, model=model, **rule).predict({"input_ids": x})
    assert not (preds["ids"] == MASK).any()
    assert torch.equal(model.table, table())


def test_logits_that_a_hook_keeps_are_left_alone(tokenizer):
    seen = []

    def keep(logits):
        seen.append(logits)
        return logits

    keep.pointwise = True
    one = MLMPredictor(3, tokenizer=tokenizer, model=SelectiveModel(table()), logits_hook=keep)
    one.predict({"input_ids": batch("ragged")})
    assert seen
    assert all(logits[:, MASK].isfinite().all() for logits in seen)


def test_logits_made_in_the_pass_are_not_copied(tokenizer):
    given, looked_at = [], []

    class Watched(SelectiveModel):
        def forward(self, x_t, attention_mask=None, positions=None, *, logits_at=None):
            given.append(super().forward(x_t, attention_mask, positions, logits_at=logits_at))
            return given[-1]

    class Watching(Uniform):
        needs_logits = True

        def select(self, candidates):
            looked_at.append(candidates.logits)
            assert (candidates.logits[:, MASK] == -torch.inf).all()
            return super().select(candidates)

    one = MLMPredictor(3, tokenizer=tokenizer, model=Watched(table()), strategy=Watching())
    one.predict({"input_ids": batch("ragged")})
    assert len(given) == 3
    assert all(a.data_ptr() == b.data_ptr() for a, b in zip(given, looked_at, strict=True))
