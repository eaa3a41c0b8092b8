"""A look at the first row of a batch, for the start of a run."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from xlm_mlm.checks import require_mapping
from xlm_mlm.types_mlm import IGNORE_INDEX

_FIELDS = ("input_ids", "attention_mask", "target_ids", "positions", "segment_ids")


def print_batch_mlm(
    batch: Mapping[str, Any], split: str, tokenizer: Any, dataloader_name: str = ""
) -> None:
    """Print the first row of a batch, as text and as numbers.

    Args:
        batch: of any collator of this package.
        split: "train", "val", "test" or "predict"; shown in the heading.
        tokenizer: turns ids into text.
        dataloader_name: shown in the heading.

    Raises:
        KeyError: the batch has no `input_ids`.
        ValueError: the batch has no rows, or is no mapping.
    """
    require_mapping("the batch", batch, "tensors")
    if "input_ids" not in batch:
        raise KeyError(f"the batch has no 'input_ids'; its fields: {', '.join(sorted(batch))}")
    if len(batch["input_ids"]) == 0:
        raise ValueError("the batch has no rows; there is nothing to print")
    heading = f"{split}/{dataloader_name}" if dataloader_name else split
    print(f"first row of a batch of {heading}, {tuple(batch['input_ids'].shape)}")
    print(f"input: {_text(batch['input_ids'][0], tokenizer)}")
    if batch.get("target_ids") is not None:
        print(f"target: {_text(batch['target_ids'][0], tokenizer)}")
    for name in _FIELDS:
        if batch.get(name) is not None:
            print(f"{name}: {_numbers(batch[name][0])}")


def _text(ids: Tensor, tokenizer: Any) -> str:
    """Decode a row; what is not to be predicted reads as padding, or is left out."""
    pad_id = getattr(tokenizer, "pad_token_id", None)
    ignored = ids == IGNORE_INDEX
    shown = ids[~ignored] if pad_id is None else ids.masked_fill(ignored, pad_id)
    return tokenizer.decode(shown.tolist())


def _numbers(row: Tensor) -> list[int]:
    return (row.long() if row.dtype == torch.bool else row).tolist()
