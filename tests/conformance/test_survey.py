"""Which parts a plugin has: each combination once, and nothing that is of others."""

import pytest
from mutant import Mutant, edit, install

from xlm_mlm.conformance.rules import Rule
from xlm_mlm.conformance.subject import find_package
from xlm_mlm.conformance.survey import survey

STAR, TEXT = "experiment star_easy_minimal", "experiment text_minimal"


def labels(found, kind):
    return [part.label.partition(".")[2] for part in found.parts[kind]]


def test_the_parts_of_the_minimal_plugin(minimal):
    found = survey(minimal)
    assert labels(found, "model") == [f"model.MinimalModel ({STAR})"]
    assert labels(found, "loss") == [
        f"loss.MinimalLoss ({STAR}, train.lm)",
        f"loss.MinimalLoss ({TEXT}, train.lm)",
    ]
    assert labels(found, "predictor") == [
        f"predictor.MinimalPredictor ({STAR}, val.prediction)",
        f"predictor.MinimalPredictor ({TEXT}, val.unconditional_prediction)",
    ]
    assert labels(found, "collator") == [
        f"collators.Seq2SeqCollator ({STAR}, train.lm)",
        f"collators.Seq2SeqPredCollator ({STAR}, val.prediction)",
        f"collators.DefaultCollator ({TEXT}, train.lm)",
        f"collators.UnconditionalPredCollator ({TEXT}, val.unconditional_prediction)",
    ]
    assert [str(part) for part in found.parts["process"]] == [STAR]
    assert [str(part) for part in found.parts["experiment"]] == [STAR, TEXT]
    assert not found.absent
    assert not found.missing


def test_an_experiment_that_does_not_compose_costs_only_its_parts(site):
    change = edit("configs/experiment/text_minimal.yaml", "", "\nx: ${nothing}\ndefaults: [gone]\n")
    subject = install(site.folder, Mutant("", (change,), says=""))
    found = survey(subject)
    assert [part.experiment for part in found.parts["experiment"]] == [
        "star_easy_minimal",
        "text_minimal",
    ]
    assert {STAR} == {str(part.wiring) for part in found.parts["loss"]}


def test_when_none_composes_each_kind_says_why(site):
    site.config("theirs/__init__.py", "")
    site.config("theirs/configs/experiment/one.yaml", "# @package _global_\ndefaults: [gone]\n")
    found = survey(find_package("theirs"))
    assert found.parts["model"] == []
    assert "one does not compose: " in found.missing["model"]
    rule = Rule("model-x", "model", "x.", "y", (), False, lambda part: None)
    (check,) = found.checks([rule])
    result = check.run()
    assert (result.outcome, "one does not compose" in result.message) == ("could not run", True)


def test_what_experiments_take_from_others_is_absent(site):
    site.config("theirs/__init__.py", "")
    site.config(
        "theirs/configs/experiment/one.yaml",
        "# @package _global_\ndefaults: [star_easy_mlm]\n",
    )
    found = survey(find_package("theirs"))
    assert found.absent["model"].startswith("those of the experiments are of others: xlm_mlm.model")
    assert set(found.absent) == {
        *("entry_points", "model", "loss", "predictor", "collator", "metric", "process"),
    }


def test_no_experiment_at_all(site):
    site.config("theirs/__init__.py", "")
    found = survey(find_package("theirs"))
    assert found.missing["experiment"] == "no experiment was found in the config folders"
    assert found.missing["loss"] == "no loss was found in the experiments"


def test_a_second_setup_of_an_experiment(site):
    site.write(
        said='class Said:\n    experiments = {"star_easy_minimal@two": ["predictor.max_steps=2"]}\n'
    )
    subject = install(site.folder)
    object.__setattr__(subject, "adapter", __import__("said").Said())
    found = survey(subject)
    assert f"{STAR}@two" in {str(part.wiring) for part in found.parts["predictor"]}
    # What it does not change is not checked once more.
    for kind in ("model", "loss", "collator", "metric"):
        assert f"{STAR}@two" not in {str(part.wiring) for part in found.parts[kind]}, kind
    assert [str(part) for part in found.parts["process"]] == [STAR]
    (part,) = [p for p in found.parts["predictor"] if str(p.wiring).endswith("@two")]
    assert part.wiring.cfg.predictor.max_steps == 2


@pytest.mark.parametrize("somewhere", [False, True])
def test_one_check_for_each_part_or_for_all(somewhere, minimal):
    rule = Rule("loss-x", "loss", "x.", "y", (), somewhere, lambda part: None)
    checks = survey(minimal).checks([rule])
    assert [len(check.parts) for check in checks] == ([2] if somewhere else [1, 1])


@pytest.mark.parametrize("role", ["lm", "prediction"])
def test_a_rule_may_be_about_the_loaders_of_one_role(role, minimal):
    rule = Rule("collator-x", "collator", "x.", "y", (), False, lambda part: None, role)
    parts = [part for check in survey(minimal).checks([rule]) for part in check.parts]
    assert len(parts) == 2
    assert {part.loader.role for part in parts} == {role}


def test_a_rule_about_loaders_that_others_feed_is_no_finding(minimal):
    found = survey(minimal)
    found.parts["collator"] = [p for p in found.parts["collator"] if p.loader.role == "lm"]
    rule = Rule("collator-x", "collator", "x.", "y", (), False, lambda part: None, "prediction")
    assert found.checks([rule]) == []
