"""Each experiment trains, validates and tests as configured, on made-up rows."""

import csv
import json
import math
from typing import NamedTuple

import pytest
import stand_in_tokenizers as stand_ins
import torch

from xlm_mlm import MLMPredictor
from xlm_mlm.history_mlm import HistoryTopKPlugin

SMALL_BLOCK = "block_size=48"
TWO_ROWS = "+num_unconditional_prediction_examples=2"


class Run(NamedTuple):
    """One experiment.

    Attributes:
        name: of the experiment.
        folder: writes the tokenizer's stand-in; None where the experiment needs no download.
        overrides: sizes that would take too long, and what an optional extra would bring.
        predicts: the loader whose rows are predicted.
        metrics: what is measured on those rows.
        fields: what the logged rows hold beside the text and the steps.
        has_lm: whether there is a validation loss.
    """

    name: str
    folder: object = None
    overrides: tuple[str, ...] = ()
    predicts: str = "unconditional_prediction"
    metrics: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()
    has_lm: bool = True


MATCH = ("exact_match", "token_accuracy")
KNOWN = ("truth", "metric_exact_match")
STAR = {"predicts": "prediction", "metrics": MATCH, "fields": KNOWN}
SUDOKU = {"predicts": "infill_prediction", "metrics": MATCH, "fields": KNOWN}

RUNS = (
    Run("lm1b_mlm", stand_ins.bert_folder, (SMALL_BLOCK, TWO_ROWS)),
    Run("owt_mlm", stand_ins.gpt2_folder, (SMALL_BLOCK, TWO_ROWS)),
    Run("owt_packed_mlm", stand_ins.gpt2_folder, (SMALL_BLOCK, TWO_ROWS)),
    Run(
        "safe_mlm",
        stand_ins.gpt2_folder,
        (
            SMALL_BLOCK,
            "num_unconditional_prediction_examples=2",
            # What needs the host's `safe` extra: its tokenizer, its processor, its evaluator.
            "global_components.tokenizer._target_=xlm.datamodule.GPT2TokenizerFast.from_pretrained",
            "datamodule.dataset_managers.train.lm.on_the_fly_processor="
            "xlm.datamodule.token_ids_to_input_ids",
            "~post_hoc_evaluator.evaluators.prediction",
        ),
        has_lm=False,
    ),
    Run("star_easy_mlm", **STAR),
    Run("star_medium_mlm", **STAR),
    Run("star_hard_mlm", **STAR),
    Run("sudoku_mlm", **SUDOKU),
    Run("sudoku_extreme_mlm", **{**SUDOKU, "metrics": (*MATCH, "steps_taken")}),
    Run(
        "tinygsm_mlm",
        stand_ins.qwen2_folder,
        ("input_block_size=48", SMALL_BLOCK),
        predicts="prediction",
        fields=("answer",),
    ),
    Run("uniref50_mlm", stand_ins.esm_folder, (SMALL_BLOCK, TWO_ROWS)),
    # The block stays: lengths up to 800 are asked for.
    Run("uniref50_packed_mlm", stand_ins.esm_folder, ("num_unconditional_prediction_examples=2",)),
)


def _rows(folder, split, loader):
    (path,) = (folder / "run" / "predictions" / split / loader).glob("epoch*.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def _logged(folder):
    """The last value of everything that was logged."""
    values = {}
    with (folder / "csv" / "metrics.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            values.update({name: float(value) for name, value in row.items() if value})
    return values


def _record_numbers(monkeypatch):
    """The numbers that the collators put into the batches that are predicted."""
    numbers, predict = [], MLMPredictor.predict

    def recording(self, batch, *rest):
        numbers.extend(batch["sample_ids"].tolist())
        return predict(self, batch, *rest)

    monkeypatch.setattr(MLMPredictor, "predict", recording)
    return numbers


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_trains_validates_and_tests(run, train_experiment, tmp_path, monkeypatch):
    numbers = _record_numbers(monkeypatch)
    overrides = list(run.overrides)
    if run.folder is not None:
        folder = run.folder(tmp_path / "tokenizer")
        overrides.append(f"global_components.tokenizer.pretrained_model_name_or_path={folder}")
    cfg = train_experiment(run.name, *overrides)

    logged = _logged(tmp_path)
    vocabulary = _vocabulary(tmp_path)
    assert 0 < logged["train/loss"] < 3 * math.log(vocabulary)
    assert cfg.monitored_metric in logged
    if run.has_lm:
        assert 0 < logged["val/lm/accumulated_loss"] < 3 * math.log(vocabulary)
    for split in ("val", "test"):
        rows = _rows(tmp_path, split, run.predicts)
        assert len(rows) == 2
        for row in rows:
            assert isinstance(row["text"], str)
            assert 1 <= row["steps_taken"] <= 3
            assert set(run.fields) <= set(row)
        for metric in run.metrics:
            assert logged[f"{split}/{run.predicts}/{metric}"] >= 0
    # Two rows in validation and two in the test, each with the number that its dataset gave it.
    assert numbers == [0, 1, 0, 1]


def test_answers_to_word_problems_are_scored_by_running_them(train_experiment, tmp_path):
    folder = stand_ins.qwen2_folder(tmp_path / "tokenizer")
    train_experiment(
        "tinygsm_mlm",
        f"global_components.tokenizer.pretrained_model_name_or_path={folder}",
        "input_block_size=48",
        SMALL_BLOCK,
    )
    logged = _logged(tmp_path)
    assert (logged["val/n_total"], logged["val/n_exec_failures"]) == (2, 2)
    # The made-up question n is "What is n and n?", its answer 2 n.
    assert [row["answer"] for row in _rows(tmp_path, "val", "prediction")] == ["0", "2"]


def test_a_history_is_kept_on_request(train_experiment, tmp_path):
    train_experiment("star_easy_mlm", "+history=topk_mlm")
    for row in _rows(tmp_path, "val", "prediction"):
        record = HistoryTopKPlugin.from_serialized(tmp_path / "run" / "history", row["fid"])
        assert record.get_num_steps() == row["steps_taken"]
        assert record.get(0)["p"].shape == (14, 5)


def _vocabulary(folder):
    """Rows of the embedding that was trained; the checkpoint shows that a step was taken."""
    saved = torch.load(folder / "logs/test/checkpoints/best.ckpt", weights_only=False)
    assert saved["global_step"] == 1
    return len(saved["state_dict"]["model.embed_tokens.weight"])
