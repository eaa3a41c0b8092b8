"""What holds for every rule, whatever the shapes, masks and options: searched for by hypothesis."""

import itertools

import torch
from hypothesis import given
from hypothesis import strategies as st
from xlm.datamodule import SimpleSpaceTokenizer

from xlm_mlm import MLMPredictor

PAD, MASK, V = 0, 2, 15
TOKENIZER = SimpleSpaceTokenizer.for_numbers(8)


class Talkative(torch.nn.Module):
    """Logits that depend on every visible token of the row and on the place, padding aside."""

    def __init__(self, sharpness):
        super().__init__()
        self.sharpness, self.calls, self.rows = sharpness, 0, 0
        self.dummy = torch.nn.Parameter(torch.zeros(()))

    def forward(self, x_t, attention_mask=None, positions=None, block_mask=None):
        self.calls += 1
        self.rows += len(x_t)
        valid = torch.ones_like(x_t) if attention_mask is None else attention_mask.long()
        place = (valid.cumsum(1) - 1).clamp_min(0)
        # Integers, whose sum does not depend on the order.
        summary = (valid * (place + 3) * (x_t * x_t + 7 * x_t)).sum(1, keepdim=True) % 1009
        phase = (summary + 31 * place)[..., None] * (1 + torch.arange(V))
        return self.sharpness * torch.sin(phase.double()).float()


RULES = [
    {},
    {"confidence": "top_prob"},
    {"confidence": "prob_diff", "confidence_temperature": 0.0},
    {"confidence": "entropy", "threshold": 0.7},
    {"strategy": "uniform"},
    {"strategy": {"name": "fixed_count", "confidence": "entropy"}},
    {"strategy": {"name": "probability_threshold", "tau": 0.4}},
    {"strategy": {"name": "probability_factor", "factor": 1.5}},
    {"strategy": {"name": "klass", "tau": 0.3, "kappa": 0.5, "history": 1}},
]
REVISIONS = [
    {"revision": "remdm"},
    {"revision": {"name": "remdm", "rule": "rescale", "eta": 0.6}},
    {"revision": {"name": "remdm", "rule": "conf"}},
    {"revision": {"name": "remdm", "eta": 0.5, "loop": (0.2, 0.8, 0.6)}},
]
DRAWS = [{}, {"temperature": 0.0}, {"top_k": 3}, {"top_p": 0.7}, {"temperature": 2.5}]


@st.composite
def options(draw):
    chosen = draw(st.sampled_from(RULES)) | draw(st.sampled_from(DRAWS))
    kind = draw(st.sampled_from(["plain", "blocks", "revision", "p2"]))
    if kind == "blocks":
        chosen |= {"block_length": draw(st.integers(1, 9))}
    if kind == "revision":
        chosen |= draw(st.sampled_from(REVISIONS))
    if kind == "p2":
        chosen = {"revision": "p2"} | draw(st.sampled_from(DRAWS))
    if draw(st.booleans()):
        chosen |= {"cfg_scale": draw(st.sampled_from([0.5, 2.0]))}
    if draw(st.booleans()):
        chosen |= {"suppress_tokens": [PAD, "3"]}
    if draw(st.booleans()):
        chosen |= {"allowed_tokens": {"1:4": ["0", "1", "3"], 0: ["5"], "others": range(3, V)}}
    return chosen


@st.composite
def batches(draw):
    rows, length = draw(st.integers(1, 4)), draw(st.integers(1, 7))
    tokens = st.one_of(st.just(MASK), st.integers(7, V - 1))
    line = st.lists(tokens, min_size=length, max_size=length)
    x = torch.tensor(draw(st.lists(line, min_size=rows, max_size=rows)))
    pads = draw(st.lists(st.integers(0, length - 1), min_size=rows, max_size=rows))
    valid = torch.arange(length) >= torch.tensor(pads)[:, None]
    return {"input_ids": torch.where(valid, x, PAD), "attention_mask": valid}


@given(batches(), options(), st.integers(1, 12), st.sampled_from([0.3, 4.0]))
def test_every_promise_is_kept(batch, chosen, max_steps, sharpness):
    model = Talkative(sharpness)
    one = MLMPredictor(max_steps, tokenizer=TOKENIZER, model=model, seed=3, **chosen)
    states = list(one.predict_iter(batch))
    x, final = batch["input_ids"], states[-1]
    ours = x == MASK

    assert not (final["x"] == MASK).any(), "every mask is filled"
    assert torch.equal(final["x"][~ours], x[~ours]), "given tokens stay"
    assert model.calls <= max_steps, "at most max_steps passes"
    assert torch.equal(states[0]["x"], x)
    assert final["done"].all()
    for before, after in itertools.pairwise(states):
        assert after["active"].any()
        filled, back = after["filled"], after["taken_back"]
        had = before["masked"].any(dim=1)
        if after["current_step"] - before["current_step"] == 1:
            assert torch.equal(after["active"], had), "a row is at work while it has a mask"
            assert not (filled & ~before["masked"]).any()
        assert filled.any(dim=1)[after["active"]].all(), "at least one commitment"
        assert not (back & ~ours).any()
        assert torch.equal(after["masked"], after["x"] == MASK)
    assert (final["steps_taken"] <= max_steps).all()
    if "suppress_tokens" in chosen:
        assert not torch.isin(final["x"][ours], torch.tensor([PAD, 7 + 3])).any()
    if "allowed_tokens" in chosen:
        place = batch["attention_mask"].cumsum(1) - 1
        assert (final["x"][ours & (place == 0)] == 12).all()
        middle = final["x"][ours & (place >= 1) & (place < 4)]
        assert torch.isin(middle, torch.tensor([7, 8, 10])).all()


@given(batches(), options(), st.integers(1, 9), st.data())
def test_a_sample_depends_on_nothing_beside_it(batch, chosen, max_steps, data):
    """The same sample alone, and with more padding on its left, gives the same tokens."""
    row = data.draw(st.integers(0, len(batch["input_ids"]) - 1))
    more = data.draw(st.integers(0, 2))

    def run(part, numbers):
        one = MLMPredictor(max_steps, tokenizer=TOKENIZER, model=Talkative(2.0), seed=8, **chosen)
        return one.predict(part | {"sample_ids": torch.tensor(numbers)})

    together = run(batch, list(range(5, 5 + len(batch["input_ids"]))))
    alone = {name: value[row : row + 1] for name, value in batch.items()}
    wide = {
        "input_ids": torch.nn.functional.pad(alone["input_ids"], (more, 0), value=PAD),
        "attention_mask": torch.nn.functional.pad(alone["attention_mask"], (more, 0), value=False),
    }
    result = run(wide, [5 + row])
    assert torch.equal(result["ids"][0, more:], together["ids"][row])
    assert result["steps_taken"][0] == together["steps_taken"][row]
