"""The ways to draw masks and to weigh the loss, by the overrides that an experiment takes."""

import csv

import pytest


@pytest.mark.parametrize(
    ("name", "sampling"),
    [("star_easy_mlm", "complementary"), ("sudoku_mlm", "exact_count")],
)
def test_trains_on_the_bound(name, sampling, train_experiment, tmp_path):
    managers = "datamodule.dataset_managers"
    cfg = train_experiment(
        name,
        f"{managers}.train.lm.collator.mask_sampling={sampling}",
        f"{managers}.val.lm.collator.mask_sampling=stratified",
        "loss.loss_weighting=elbo",
    )
    assert cfg.datamodule.dataset_managers.train.lm.collator.mask_sampling == sampling
    with (tmp_path / "csv" / "metrics.csv").open() as file:
        logged = {key: row[key] for row in csv.DictReader(file) for key in row if row[key]}
    losses = {key: float(value) for key, value in logged.items() if key.endswith("loss")}
    assert any(key.startswith("train/lm") for key in losses)
    assert any(key.startswith("val/lm") for key in losses)
    assert all(0 < value < 100 for value in losses.values())
