"""Which metrics an experiment reports, and from what each is computed."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

import xlm_mlm

EXPERIMENTS = sorted(
    path.stem for path in (Path(xlm_mlm.__file__).parent / "configs/experiment").glob("*.yaml")
)

MEAN = "torchmetrics.MeanMetric"
MATCH = "xlm.metrics.ExactMatch"
ACCURACY = "xlm_mlm.metrics_mlm.MaskedTokenAccuracy"
OURS = "xlm_mlm.metrics_mlm."

# (loader, name): (update_fn, the metric's class)
LOSS = {("lm", "accumulated_loss"): (f"{OURS}mean_metric_update_fn", MEAN)}
CONTINUATION = {
    ("prediction", "exact_match"): (f"{OURS}seq2seq_exact_match_update_fn", MATCH),
    ("prediction", "token_accuracy"): (f"{OURS}seq2seq_token_accuracy_update_fn", ACCURACY),
}
INFILLING = {
    ("infill_prediction", "exact_match"): (f"{OURS}exact_match_update_fn", MATCH),
    ("infill_prediction", "token_accuracy"): (f"{OURS}infill_token_accuracy_update_fn", ACCURACY),
}
STEPS = {("infill_prediction", "steps_taken"): ("xlm.metrics.steps_taken_update_fn", MEAN)}
PREDICTED = {
    "quickstart_mlm": INFILLING,
    "sudoku_mlm": INFILLING,
    "sudoku_extreme_mlm": INFILLING | STEPS,
    **{f"star_{size}_mlm": CONTINUATION for size in ("easy", "medium", "hard")},
    **{f"star_{size}_offline_mlm": CONTINUATION for size in ("easy", "medium", "hard")},
}


def test_the_experiments_named_here_exist():
    assert set(PREDICTED) <= set(EXPERIMENTS)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_each_metric_is_computed_from_what_it_is_named_after(name, compose_experiment):
    found = {
        (split, loader, metric): (
            spec["update_fn"],
            spec["metric"]["_target_"],
            spec["name"],
            spec["prefix"],
        )
        for split, loaders in OmegaConf.to_container(
            compose_experiment(name).reported_metrics
        ).items()
        for loader, metrics in (loaders or {}).items()
        for metric, spec in metrics.items()
    }
    predicted = PREDICTED.get(name, {})
    of_split = {"train": LOSS, "val": LOSS | predicted, "test": LOSS | predicted}
    assert found == {
        (split, loader, metric): (*expected, metric, f"{split}/{loader}")
        for split, metrics in of_split.items()
        for (loader, metric), expected in metrics.items()
    }
