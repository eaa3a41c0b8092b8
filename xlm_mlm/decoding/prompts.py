"""From texts to batches: prompts with a mask are filled, the others continued."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Integer
from torch import Tensor

from xlm_mlm.checks import require_token_id
from xlm_mlm.types_mlm import MLMBatch
from xlm_mlm.visible import excerpt


@dataclass(frozen=True)
class PromptBatch:
    """Prompts that are decoded together, padded on the left.

    Attributes:
        indices: the number of each row's prompt among all prompts.
        input_ids: the prompts.
        attention_mask: False at padding.
        new_tokens: masks to append; 0 to fill the prompts' own.
    """

    indices: list[int]
    input_ids: Integer[Tensor, "B L"]
    attention_mask: Bool[Tensor, "B L"]
    new_tokens: int

    def to(self, device: Any) -> MLMBatch:
        """The batch that the predictor reads, on a device."""
        return {
            "input_ids": self.input_ids.to(device),
            "attention_mask": self.attention_mask.to(device),
            "target_ids": None,
        }

    def outputs(self, ids: Integer[Tensor, "B L"]) -> list[list[int]]:
        """The tokens to show of each row: all but padding, or the appended ones alone."""
        if self.new_tokens:
            return ids[:, -self.new_tokens :].tolist()
        return [row[keep].tolist() for row, keep in zip(ids, self.attention_mask, strict=True)]


def batch_prompts(
    prompts: list[str], tokenizer: Any, max_new_tokens: int | None
) -> list[PromptBatch]:
    """Tokenise prompts and sort them into those to fill and those to continue.

    Raises:
        ValueError: no list, a prompt that is no string, or one without a mask while
            `max_new_tokens` is None.
    """
    if not isinstance(prompts, (list, tuple)):
        raise ValueError(f"prompts is {prompts!r:.80}; it must be a list of strings")
    mask_id = require_token_id(tokenizer, "mask", "find the positions to fill")
    groups: dict[bool, list[tuple[int, list[int]]]] = {True: [], False: []}
    for index, prompt in enumerate(prompts):
        if not isinstance(prompt, str):
            raise ValueError(f"prompt {index} is {prompt!r}; every prompt must be a string")
        try:
            ids = list(tokenizer(prompt, add_special_tokens=False)["input_ids"])
        # A word that the tokenizer lacks; half a surrogate pair is a TypeError to some.
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"prompt {index} ({excerpt(prompt)}) can't be tokenised: {error}"
            ) from error
        if mask_id not in ids and not max_new_tokens:
            raise ValueError(
                f"prompt {index} ({prompt!r}) holds no {tokenizer.mask_token}, and max_new_tokens "
                f"is {max_new_tokens}; put {tokenizer.mask_token} where text is to be filled in, "
                "or set max_new_tokens to continue the prompt"
            )
        groups[mask_id in ids].append((index, ids))
    return [
        _pad(group, tokenizer, 0 if filling else int(max_new_tokens or 0))
        for filling, group in groups.items()
        if group
    ]


def _pad(group: list[tuple[int, list[int]]], tokenizer: Any, new_tokens: int) -> PromptBatch:
    width = max(len(ids) for _, ids in group)
    pad_id = 0
    if any(len(ids) < width for _, ids in group):
        why = "put prompts of different lengths into one batch"
        pad_id = require_token_id(tokenizer, "pad", why)
    rows = torch.full((len(group), width), pad_id)
    valid = torch.zeros(len(group), width, dtype=torch.bool)
    for line, (_, ids) in enumerate(group):
        if ids:
            rows[line, -len(ids) :] = torch.tensor(ids)
            valid[line, -len(ids) :] = True
    return PromptBatch([index for index, _ in group], rows, valid, new_tokens)
