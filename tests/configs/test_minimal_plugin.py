"""The minimal plugin, found by its entry point: its experiments compose, and run as configured."""

import csv
import json
import tomllib
from pathlib import Path

import pytest
import stand_in_tokenizers as stand_ins
from fake_packages import Site
from hydra.utils import get_object
from omegaconf import OmegaConf
from xlm.utils.omegaconf_resolvers import dummy_resolvers

from xlm_mlm.plugin import hydra as edge

MINIMAL = Path(__file__).parents[2] / "examples" / "minimal_plugin"
EXPERIMENTS = ("star_easy_minimal", "text_minimal")


@pytest.fixture(autouse=True)
def _installed(tmp_path, monkeypatch):
    points = tomllib.loads((MINIMAL / "pyproject.toml").read_text())["project"]["entry-points"]
    Site(tmp_path / "site").register("xlm-minimal", "0.1.0", **points)
    monkeypatch.syspath_prepend(MINIMAL)
    monkeypatch.syspath_prepend(tmp_path / "site")
    edge._contributions.cache_clear()
    yield
    edge._contributions.cache_clear()


def _dotted(node):
    """Everything in a config that names something of the package."""
    if isinstance(node, dict):
        node = list(node.values())
    if isinstance(node, list):
        return {name for each in node for name in _dotted(each)}
    return {node} if isinstance(node, str) and node.startswith("xlm_minimal.") else set()


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_composes_with_nothing_left_open(name, compose_experiment):
    with dummy_resolvers():
        plain = OmegaConf.to_container(
            compose_experiment(name), resolve=True, throw_on_missing=True
        )
    assert {plain["tags"][key] for key in ("model_type", "model", "dataset")} == {
        "star_easy_minimal": {"seq2seq_minimal", "minimal", "star_easy"},
        "text_minimal": {"minimal", "lm1b"},
    }[name]
    assert len(_dotted(plain)) >= 7
    assert all(callable(get_object(dotted)) for dotted in _dotted(plain))


def test_the_command_line_has_the_last_word(compose_experiment):
    cfg = compose_experiment("star_easy_minimal", "trainer_strategy=ddp", "model.d_model=64")
    assert cfg.trainer.strategy._target_.endswith("DDPStrategy")
    assert cfg.model.d_model == 64


def _rows(folder, split, loader):
    (path,) = (folder / "run" / "predictions" / split / loader).glob("epoch*.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def _logged(folder):
    with (folder / "csv" / "metrics.csv").open(newline="") as file:
        return {name: float(v) for row in csv.DictReader(file) for name, v in row.items() if v}


def test_star_graphs_are_learned_and_predicted(train_experiment, tmp_path):
    train_experiment("star_easy_minimal", "~model.rotary_emb_dim")
    logged = _logged(tmp_path)
    for name in ("train/loss", "val/lm/accumulated_loss", "test/lm/accumulated_loss"):
        assert 0 < logged[name] < 6
    for split in ("val", "test"):
        rows = _rows(tmp_path, split, "prediction")
        assert [row["truth"].split()[:2] for row in rows[:2]] == [["0", "1"], ["1", "2"]]
        matches = [row["metric_exact_match"] for row in rows]
        assert logged[f"{split}/prediction/exact_match"] == sum(matches) / len(matches)
        # The prompt of a made-up graph, 26 tokens, and a block of 14.
        assert {len(row["text"].split()) for row in rows} == {40}


def test_text_is_learned_and_generated(train_experiment, tmp_path):
    folder = stand_ins.bert_folder(tmp_path / "tokenizer")
    train_experiment(
        "text_minimal",
        "~model.rotary_emb_dim",
        f"global_components.tokenizer.pretrained_model_name_or_path={folder}",
        "+num_unconditional_prediction_examples=3",
    )
    logged = _logged(tmp_path)
    assert 0 < logged["train/loss"] < 8
    assert 0 < logged["val/lm/accumulated_loss"] < 8
    for split in ("val", "test"):
        rows = _rows(tmp_path, split, "unconditional_prediction")
        assert [row["steps_taken"] for row in rows] == [3, 3]
