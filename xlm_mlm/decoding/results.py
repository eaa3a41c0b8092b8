"""What comes out of the loop: logits for the record, and one dictionary a sample."""

from typing import Any

import torch
from jaxtyping import Float, Integer
from torch import Tensor

from xlm_mlm.types_mlm import MLMPredictionDict

_KEPT = ("text", "ids", "steps_taken", "time_taken", "output_start_idx", "fid")


def dense_logits(
    logits: Float[Tensor, "M V"], flat: Integer[Tensor, "M"], shape: torch.Size
) -> Float[Tensor, "B L V"]:
    """Logits of some positions put into a whole batch of zeros."""
    out = logits.new_zeros(shape.numel(), logits.shape[-1])
    out[flat.to(out.device)] = logits
    return out.view(*shape, -1)


def rows_of(preds: MLMPredictionDict) -> list[dict[str, Any]]:
    """One dictionary a sample, of plain strings, numbers and lists.

    Raises:
        ValueError: a field, one of the host's metrics for example, has not one value a sample.
    """
    rows = len(preds["text"])
    columns = {
        name: _column(name, value, rows)
        for name, value in preds.items()
        if name in _KEPT or name.startswith("metric_")
    }
    return [{name: column[i] for name, column in columns.items()} for i in range(rows)]


def _column(name: str, value: Any, rows: int) -> list[Any]:
    plain = value.tolist() if hasattr(value, "tolist") else value
    if not isinstance(plain, (list, tuple)):
        return [plain] * rows
    if len(plain) != rows:
        raise ValueError(f"{name} holds {len(plain)} values; the batch has {rows} samples")
    return [entry.tolist() if hasattr(entry, "tolist") else entry for entry in plain]
