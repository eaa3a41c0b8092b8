"""Every sampler that can be added on the command line is composed, made, and fills masks."""

from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from toy_models import TableModel

import xlm_mlm

CONFIGS = Path(xlm_mlm.__file__).parent / "configs"
SAMPLERS = sorted(path.stem for path in (CONFIGS / "sampler").glob("*.yaml"))
MASK, V = 2, 27


def rules_of(cfg, tokenizer):
    """The rules of a config's predictor, after it has filled a batch."""
    cfg.predictor.max_steps, cfg.predictor.max_new_tokens = 9, None
    predictor = instantiate(cfg.predictor)
    predictor.tokenizer, predictor.model = tokenizer, TableModel(torch.randn(6, V))
    ids = predictor.predict({"input_ids": torch.full((2, 6), MASK)})["ids"]
    assert not (ids == MASK).any()
    return predictor.rules


def test_each_sampler_is_composed_made_and_another_rule(compose_experiment, tokenizer):
    made = set()
    for name in SAMPLERS:
        rules = rules_of(compose_experiment("quickstart_mlm", f"+sampler={name}"), tokenizer)
        made.add((type(rules.strategy), type(rules.revision), rules.needs_p))
    assert len(made) == len(SAMPLERS)


def test_a_sampler_replaces_what_an_experiment_has(compose_experiment, tokenizer):
    cfg = compose_experiment("star_easy_mlm", "+sampler=p2_mlm")
    assert rules_of(cfg, tokenizer).by_scores


@pytest.mark.parametrize("key", ["strategy", "revision"])
def test_rules_are_chosen_on_the_command_line(key, compose_experiment):
    given = {"strategy": "{name:klass,tau:0.5}", "revision": "{name:remdm,rule:rescale,eta:0.1}"}
    cfg = compose_experiment(
        "quickstart_mlm", f"predictor.{key}={given[key]}", "predictor.confidence=null"
    )
    rules = instantiate(cfg.predictor).rules
    assert getattr(rules.strategy, "tau", None) == (0.5 if key == "strategy" else None)
    assert getattr(rules.revision, "eta", None) == (0.1 if key == "revision" else None)
