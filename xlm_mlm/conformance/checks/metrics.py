"""What the host asks of the functions that feed its metrics."""

from typing import Any

import torch
from torch import Tensor

from xlm_mlm.conformance.rules import Broken, CannotRun, asking, preparing, rule
from xlm_mlm.conformance.snapshots import changes, snapshot
from xlm_mlm.conformance.survey import Part

STEP = "xlm/harness.py, Harness._step"


def _made_ready(part: Part) -> tuple[Any, Any, dict[str, Any], dict[str, Any]]:
    """A harness, its metric, a batch, and what the loss or the predictor makes of it."""
    harness = part.wiring.harness()
    group, split, loader, name = part.metric.split(".")
    places = list(part.wiring.cfg[group][split][loader])
    metric = getattr(harness, group)[f"metrics_{split}"][loader][places.index(name)]
    batch, found = _step(part, harness, rows=4)
    return harness, metric, batch, found


def _step(part: Part, harness: Any, rows: int) -> tuple[dict[str, Any], dict[str, Any]]:
    batch = part.wiring.batch(part.loader, rows)
    harness.train(part.loader.split == "train")
    torch.manual_seed(0)
    with preparing(f"the {'loss' if part.loader.role == 'lm' else 'predictor'}"):
        found = harness.compute_loss(batch, 0, 0, part.loader.name)
    if not isinstance(found, dict):
        raise CannotRun(f"there is no dict for the metric, but {type(found).__name__}")
    return batch, found


@rule(
    "metrics-update",
    part="metric",
    says="The update function takes what the loader's collator and the loss or the predictor give, "
    "and the metric computes one finite number of it.",
    host=f"{STEP} calls metric.update(batch, loss_dict, tokenizer); xlm/metrics.py, "
    "MetricWrapper.log hands the metric to Lightning, which computes it once an epoch and logs "
    "single numbers",
)
def update(part: Part) -> None:
    """Update with two batches, the second a smaller one, as the last of an epoch is."""
    harness, metric, batch, found = _made_ready(part)
    batches = [(batch, found), _step(part, harness, rows=3)]
    for batch, found in batches:
        with asking(f"updating {part.metric}", look_at=metric.update_fn):
            metric.update(batch, found, harness.tokenizer)
    with asking(f"computing {part.metric}", look_at=metric.update_fn):
        value = metric.compute()
    number = isinstance(value, Tensor | float | int) and torch.as_tensor(value).numel() == 1
    if not number or not bool(torch.as_tensor(value).isfinite()):
        raise Broken(
            f"{part.metric} is {value!r:.80} after two batches; it must be one finite number",
            look_at=metric.update_fn,
        )


@rule(
    "metrics-batch-unchanged",
    part="metric",
    says="Updating leaves the batch and what the loss or the predictor returned as they are.",
    host=f"{STEP} gives them to one metric after the other, then LogPredictions writes them",
)
def batch_unchanged(part: Part) -> None:
    """Compare keys and values."""
    harness, metric, batch, found = _made_ready(part)
    before = snapshot({"batch": batch, "returned": found})
    with preparing(f"updating {part.metric}"):
        metric.update(batch, found, harness.tokenizer)
    differences = changes(before, {"batch": batch, "returned": found})
    if differences:
        raise Broken(
            f"updating {part.metric} changed what it was given: {'; '.join(differences)}",
            look_at=metric.update_fn,
        )


@rule(
    "metrics-row-values",
    part="metric",
    role="prediction",
    says="A metric of predictions that has values of single samples has one for each row.",
    host=f"{STEP} adds `_computed_value` to the predictions as `metric_NAME`, and LogPredictions "
    "writes it row by row through to_dict",
)
def row_values(part: Part) -> None:
    """Count them."""
    harness, metric, batch, found = _made_ready(part)
    with preparing(f"updating {part.metric}"):
        metric.update(batch, found, harness.tokenizer)
    values = metric._computed_value
    if values is None:
        return
    if isinstance(values, Tensor):
        values = values.detach().tolist()
    rows = len(batch["input_ids"])
    if not isinstance(values, list) or len(values) != rows:
        raise Broken(
            f"{part.metric} has {values!r:.80} for {rows} rows; it must be a list of {rows} values",
            look_at=metric.update_fn,
        )
