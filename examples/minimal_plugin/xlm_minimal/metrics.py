"""From a batch, and what the loss or the predictor returned for it, to a metric's arguments.

The configs name these functions; the host calls each as `f(batch, loss_dict, tokenizer)` and passes
the result on as `metric.update(**result)`.
"""

from typing import Any

from jaxtyping import Integer
from torch import Tensor
from torch.nn import functional as F

NOTHING = -1


def mean_loss_update_fn(
    batch: dict[str, Any], loss_dict: dict[str, Any], tokenizer: Any = None
) -> dict[str, Any]:
    """For `torchmetrics.MeanMetric`: the loss of one batch, a scalar."""
    return {"value": loss_dict["loss"].detach()}


def exact_match_update_fn(
    batch: dict[str, Any], loss_dict: dict[str, Any], tokenizer: Any = None
) -> dict[str, Any]:
    """For `xlm.metrics.ExactMatch`: the generated part, and the answer it should be.

    With a tokenizer, both end at their first end-of-sequence token: what a model goes on to write
    does not count, nor does padding.
    """
    pred = loss_dict["ids"][:, loss_dict["output_start_idx"] :]
    target = batch["target_ids"]
    width = max(pred.shape[1], target.shape[1])
    return {
        "pred": _up_to_end(pred, width, tokenizer),
        "target": _up_to_end(target, width, tokenizer),
    }


def _up_to_end(ids: Integer[Tensor, "B S"], width: int, tokenizer: Any) -> Integer[Tensor, "B W"]:
    """Widen to `width` and replace everything behind the end, and padding, by `NOTHING`."""
    ids = F.pad(ids, (0, width - ids.shape[1]), value=NOTHING)
    if tokenizer is None:
        return ids
    is_end = ids == tokenizer.eos_token_id
    behind = is_end.cumsum(dim=1) - is_end.long() > 0
    return ids.masked_fill(behind | (ids == tokenizer.pad_token_id), NOTHING)
