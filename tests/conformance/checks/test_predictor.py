"""Predictors that differ from the minimal one and are right, and some that would hurt the kit."""

import pytest
import torch
from mutant import Mutant, edit, install, results

from xlm_mlm.conformance import predicting
from xlm_mlm.conformance.rules import RULES

EVERY_RULE = sorted(name for name in RULES if name.startswith("predictor-"))
CALL = "logits = self.model(x, attention_mask, positions)"
RULE_OUT = "logits = logits.float().index_fill(-1, mask_id, -torch.inf)"
RUN = "with evaluating(self.model), torch.no_grad():"
SOFTMAX = "probabilities = logits.softmax(dim=-1)"
MODEL_RETURNS = "return self.head(self.norm(x))"


@pytest.fixture
def check(tmp_path, monkeypatch):
    """Install the minimal plugin with some edits, and return what comes out of some rules."""
    monkeypatch.syspath_prepend(tmp_path)

    def run(edits, *rules):
        return results(install(tmp_path, Mutant("", tuple(edits), says="")), *rules)

    return run


def _failed(found):
    return [result for result in found if result.outcome != "passed"]


CORRECT = {
    "not a torch module": [
        edit(
            "predictor.py",
            "class MinimalPredictor(torch.nn.Module, Pre",
            "class MinimalPredictor(Pre",
        ),
        edit("predictor.py", "        super().__init__()\n", ""),
    ],
    "a model that returns a tuple": [
        edit("model.py", MODEL_RETURNS, "return self.head(self.norm(x)), x"),
        edit("predictor.py", CALL, f"{CALL}[0]"),
    ],
    "takes the mask out after the softmax": [
        edit("predictor.py", RULE_OUT, "logits = logits.float()"),
        edit("predictor.py", SOFTMAX, f"{SOFTMAX}.index_fill(-1, mask_id, 0.0)"),
    ],
    "the model rules the mask out": [
        edit("predictor.py", RULE_OUT, "logits = logits.float()"),
        edit("model.py", MODEL_RETURNS, f"{MODEL_RETURNS}.index_fill(-1, torch.tensor([6]), -1e6)"),
    ],
    "numbers its samples": [
        edit(
            "predictor.py", "self.max_steps = max_steps", "self.max_steps = max_steps; self.n = 0"
        ),
        edit(
            "predictor.py",
            CALL,
            f"{CALL}; self.n += 1; torch.manual_seed(torch.initial_seed() + self.n)",
        ),
    ],
    "turns gradients on for guidance": [
        edit("predictor.py", RUN, "with evaluating(self.model), torch.enable_grad():"),
    ],
    "calls parts of the model": [
        edit("predictor.py", CALL, "logits = self.model.forward(x, attention_mask, positions)"),
    ],
    "only some rows take part in a pass": [
        edit(
            "predictor.py",
            CALL,
            "busy = masked.any(1); logits = self.model.head.bias.expand(*x.shape, -1).clone(); "
            "logits[busy] = self.model(x[busy], attention_mask[busy], positions[busy])",
        ),
    ],
}


@pytest.mark.parametrize("edits", CORRECT.values(), ids=CORRECT)
def test_another_correct_predictor_passes(check, edits):
    assert _failed(check(edits, *EVERY_RULE)) == []


def test_a_predictor_that_never_ends_is_found(check, monkeypatch):
    monkeypatch.setattr(predicting, "ENDLESS", 100)
    edits = [
        edit("predictor.py", RULE_OUT, "logits = logits.float()"),
        edit("predictor.py", "range(self.max_steps)", "iter(int, 1)"),
        edit("predictor.py", "passes_left=self.max_steps - step", "passes_left=1"),
    ]
    [one, two] = check(edits, "predictor-no-mask")
    assert {one.outcome, two.outcome} == {"broken"}
    assert "predict has not ended after 100 passes" in one.message


def test_what_predict_leaves_on_does_not_outlive_the_check(check):
    leak = "torch.set_default_dtype(torch.float64); torch.set_grad_enabled(False)"
    leak += "; torch.inference_mode().__enter__()"
    edits = [edit("predictor.py", "start = time.perf_counter()", f"start = 0.0; {leak}")]
    found = check(edits, "predictor-restores")
    assert {result.outcome for result in found} == {"broken"}
    assert torch.get_default_dtype() == torch.float32
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()


def test_a_rule_about_prompts_needs_a_prompt_somewhere(check):
    nothing = edit(
        "collators.py",
        'return {"input_ids": prompt_ids, "attention_mask": prompt_seen,',
        'return {"input_ids": prompt_ids * 0 + 6, "attention_mask": prompt_seen,',
    )
    found = check([nothing], "predictor-prompt", "predictor-fixed-positions")
    assert [result.outcome for result in found] == ["could not run"] * 2
    assert "has no prompt" in found[0].message


def test_predict_that_raises_can_not_be_judged_by_other_rules(check):
    edits = [edit("predictor.py", "start = time.perf_counter()", "start = 1 / 0")]
    broken, *others = (result for result in check(edits, *EVERY_RULE) if "star_easy" in result.part)
    raised = {r.rule: r.outcome for r in [broken, *others] if "ZeroDivisionError" in r.message}
    own = ("predictor-generate", "predictor-max-steps", "predictor-protocol")
    assert {name for name, outcome in raised.items() if outcome == "broken"} == set(own)
    assert set(raised) == set(EVERY_RULE) - {"predictor-given-model"}
