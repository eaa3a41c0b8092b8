"""Update functions of metrics that break a rule."""

from mutant import Mutant, edit


def _metric(rule: str, old: str, new: str, says: str, outcome: str = "broken") -> Mutant:
    return Mutant(rule, (edit("metrics.py", old, new),), says=says, outcome=outcome)


LOSS = 'return {"value": loss_dict["loss"].detach()}'
PRED = 'pred = loss_dict["ids"][:, loss_dict["output_start_idx"] :]'
TARGET = 'target = batch["target_ids"]'
WIDTH = "width = max(pred.shape[1], target.shape[1])"

MUTANTS = [
    _metric("metrics-update", LOSS, 'return {"value": loss_dict["nll"]}', says="raises KeyError"),
    _metric("metrics-update", LOSS, 'return {"loss": loss_dict["loss"]}', says="raises TypeError"),
    _metric(
        "metrics-update",
        LOSS,
        'return {"value": loss_dict["loss"].detach() / 0}',
        says="is tensor.inf.* after two batches; it must be one finite number",
    ),
    _metric("metrics-update", TARGET, 'target = batch["truth"]', says="raises KeyError"),
    _metric(
        "metrics-batch-unchanged",
        WIDTH,
        f'batch["target_ids"][:, 0] = 1; {WIDTH}',
        says=r"batch\['target_ids'\] changed at",
    ),
    _metric(
        "metrics-batch-unchanged",
        PRED,
        f'{PRED}; loss_dict["ids"][:, -1] = 0',
        says=r"returned\['ids'\] changed at",
    ),
    _metric(
        "metrics-batch-unchanged",
        LOSS,
        'return {"value": loss_dict.pop("loss").detach()}',
        says=r"returned\['loss'\] is gone",
    ),
    _metric(
        "metrics-row-values",
        WIDTH,
        f"pred, target = pred[1:], target[1:]; {WIDTH}",
        says="for 4 rows; it must be a list of 4 values",
    ),
    Mutant(
        "metrics-row-values",
        (
            edit("metrics.py", "_up_to_end(pred, width, tokenizer)", "pred.flatten()[:3]"),
            edit("metrics.py", "_up_to_end(target, width, tokenizer)", "pred.flatten()[:3]"),
        ),
        says="has 1.0 for 4 rows; it must be a list of 4 values",
    ),
]
