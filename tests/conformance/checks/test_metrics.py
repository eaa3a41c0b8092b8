"""Metrics that differ from the minimal plugin's and are right."""

import pytest
from mutant import Mutant, edit, install, results

RULES = ("metrics-update", "metrics-batch-unchanged", "metrics-row-values")
LOSS = 'return {"value": loss_dict["loss"].detach()}'


@pytest.fixture
def check(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)

    def run(*edits):
        return results(install(tmp_path, Mutant("", edits, says="")), *RULES)

    return run


@pytest.mark.parametrize(
    "new",
    [
        'return {"value": loss_dict["loss"].detach().expand(3)}',
        'return {"value": float(loss_dict["loss"])}',
        'return {"value": loss_dict["loss"].detach(), "weight": len(batch["input_ids"])}',
    ],
)
def test_another_correct_function_passes(check, new):
    found = check(edit("metrics.py", LOSS, new))
    assert [result for result in found if result.outcome != "passed"] == []


def test_a_loss_that_raises_is_not_the_metrics_fault(check):
    found = check(edit("loss.py", "count = (targets", "raise ValueError('no'); count = (targets"))
    of_loss = [result for result in found if "mean_loss" in result.part]
    assert {result.outcome for result in of_loss} == {"could not run"}
    assert all("the loss raises ValueError: no" in result.message for result in of_loss)
