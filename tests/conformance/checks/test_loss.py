"""Losses that differ from the minimal one and are right, and what their checks are made of."""

from dataclasses import replace

import pytest
from mutant import Mutant, edit, install, results

from xlm_mlm.conformance.checks import loss
from xlm_mlm.conformance.rules import RULES

EVERY_RULE = sorted(name for name in RULES if name.startswith("loss-"))
RETURN = 'return {"loss": total / count.clamp(min=1)}'
LOGITS = 'logits = self.model(batch["input_ids"], batch["attention_mask"])'
TORCH = edit("loss.py", "from torch import Tensor", "import torch\nfrom torch import Tensor")
NOISE = (
    'ids = batch["input_ids"]\n'
    "        drawn = torch.rand(ids.shape) < 0.5\n"
    '        noisy = ids.masked_fill(drawn & batch["attention_mask"], 6)\n'
    '        batch = {**batch, "input_ids": noisy}\n        '
)

CORRECT = {
    "draws its own noise": [TORCH, edit("loss.py", LOGITS, NOISE + LOGITS)],
    "is below zero": [
        edit(
            "loss.py", RETURN, RETURN.replace("(min=1)}", "(min=1) - 100 * count.clamp(max=0) - 9}")
        )
    ],
    "returns more than the loss": [
        edit("loss.py", RETURN, RETURN.replace("}", ', "logits": logits, "rows": [1, 2]}'))
    ],
    "is a torch module": [
        TORCH,
        edit("loss.py", "class MinimalLoss(Loss", "class MinimalLoss(torch.nn.Module, Loss"),
        edit(
            "loss.py",
            "        self.model = model\n",
            "        super().__init__()\n        self.model = model\n",
        ),
    ],
    "breaks the graph": [
        edit("loss.py", LOGITS, f"{LOGITS}\n        float(logits.sum().detach())"),
    ],
}


def failed(site, edits, *rules, **changes):
    subject = replace(install(site.folder, Mutant("", tuple(edits), says="")), **changes)
    return [found for found in results(subject, *rules) if found.outcome != "passed"]


@pytest.mark.parametrize("edits", CORRECT.values(), ids=CORRECT.keys())
def test_a_correct_loss_passes(site, edits):
    assert failed(site, edits, *EVERY_RULE) == []


def test_targets_of_another_kind_must_be_declared(site):
    away = edit(
        "collators.py",
        '            "target_ids": ids.masked_fill(~seen, IGNORE),',
        '            "target_ids": ids.masked_fill(~seen, IGNORE).float(),',
    )
    found = failed(site, [away], "loss-zero-targets")
    assert [result.outcome for result in found] == ["could not run"]
    assert "let its adapter declare `target_ids` or `ignored_targets` absent" in found[0].message
    absent = {"target_ids": "counts"}
    assert {r.outcome for r in failed(site, [away], "loss-zero-targets", absent=absent)} == {
        "absent"
    }


def test_a_goal_is_lower_than_the_start():
    assert loss._goal(4.0) == pytest.approx(2.8)
    assert loss._goal(-4.0) == pytest.approx(-5.2)


def test_a_loss_that_raises_breaks_its_rule_and_stops_others(site):
    raises = edit("loss.py", LOGITS, 'raise KeyError("segment_ids")')
    outcomes = {r.rule: r.outcome for r in failed(site, [raises], *EVERY_RULE)}
    assert outcomes == {
        "loss-scalar": "broken",
        "loss-zero-targets": "broken",
        "loss-overfits": "broken",
        "loss-batch-unchanged": "could not run",
        "loss-compiles": "could not run",
    }
