"""Generation: fill the masks of a batch in a few passes of the network.

Shapes: B = rows, P = positions of the input, N = `max_new_tokens`, L = P + N.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Bool, Integer
from torch import Tensor
from xlm.harness import Predictor

from xlm_minimal.collators import pad_rows


@contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Switch every part of `model` to eval mode, and each back to its own mode at the end."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


class MinimalPredictor(torch.nn.Module, Predictor[dict[str, Any], dict[str, Any]]):
    """Fills masks in random order, an equal share in each pass, with tokens it samples.

    Args:
        max_steps: passes at most; at least 1.
        max_new_tokens: masks to append to each row, at least 1; None fills only what is masked.
        tokenizer, model, noise_schedule: set by the host where they are None.

    Raises:
        ValueError: a number is out of range.
    """

    def __init__(
        self,
        max_steps: int,
        max_new_tokens: int | None = None,
        tokenizer: Any = None,
        model: torch.nn.Module | None = None,
        noise_schedule: Any = None,
    ) -> None:
        super().__init__()
        if max_steps < 1:
            raise ValueError(f"max_steps={max_steps} must be at least 1")
        if max_new_tokens is not None and max_new_tokens < 1:
            raise ValueError(f"max_new_tokens={max_new_tokens} must be at least 1, or None")
        self.max_steps = max_steps
        self.max_new_tokens = max_new_tokens
        self.tokenizer = tokenizer
        self.noise_schedule = noise_schedule
        # Past torch's bookkeeping, as the host does it: a model that is a part of the predictor as
        # well would be in every checkpoint twice.
        object.__setattr__(self, "model", model)

    def predict(
        self,
        batch: dict[str, Any],
        batch_idx: int | None = None,
        dataloader_idx: int | None = None,
        dataloader_name: str | None = None,
    ) -> dict[str, Any]:
        """Fill the masks of a batch.

        Args:
            batch: `input_ids` and `attention_mask`, each (B, P). It is left as it is.

        Returns:
            `text` (list of B), `ids`, `attention_mask` and `positions` (B, L), `time_taken`
            (seconds, list of B), `steps_taken` (list of B: passes in which the row had a mask),
            `output_start_idx` (int: where appended tokens begin).
        """
        start = time.perf_counter()
        with evaluating(self.model), torch.no_grad():
            x, attention_mask = self._append_masks(batch["input_ids"], batch["attention_mask"])
            positions = (attention_mask.cumsum(1) - 1).clamp(min=0)
            x, steps_taken = self._fill(x, attention_mask, positions)
        seconds = time.perf_counter() - start
        return {
            "text": self._decode(x, attention_mask),
            "ids": x,
            "attention_mask": attention_mask,
            "positions": positions,
            "time_taken": [seconds] * len(x),
            "steps_taken": steps_taken.tolist(),
            "output_start_idx": batch["input_ids"].shape[1],
        }

    def _append_masks(
        self, input_ids: Integer[Tensor, "B P"], attention_mask: Tensor
    ) -> tuple[Integer[Tensor, "B L"], Bool[Tensor, "B L"]]:
        """Append `max_new_tokens` masks, to be attended, to every row."""
        shape = (len(input_ids), self.max_new_tokens or 0)
        masks = input_ids.new_full(shape, self.tokenizer.mask_token_id)
        x = torch.cat([input_ids, masks], dim=1)
        seen = torch.ones_like(masks, dtype=torch.bool)
        return x, torch.cat([attention_mask.bool(), seen], dim=1)

    def _fill(
        self,
        x: Integer[Tensor, "B L"],
        attention_mask: Bool[Tensor, "B L"],
        positions: Integer[Tensor, "B L"],
    ) -> tuple[Integer[Tensor, "B L"], Integer[Tensor, "B"]]:
        """Return the filled rows, and how many passes each took part in."""
        steps_taken = torch.zeros(len(x), dtype=torch.long, device=x.device)
        for step in range(self.max_steps):
            masked = x == self.tokenizer.mask_token_id
            if not masked.any():
                break
            logits = self.model(x, attention_mask, positions)
            tokens = self._sample(logits)
            chosen = self._choose(masked, passes_left=self.max_steps - step)
            x = torch.where(chosen, tokens, x)
            steps_taken += masked.any(dim=1)
        return x, steps_taken

    def _sample(self, logits: Tensor) -> Integer[Tensor, "B L"]:
        """Draw a token for every position, never the mask."""
        mask_id = torch.tensor([self.tokenizer.mask_token_id], device=logits.device)
        logits = logits.float().index_fill(-1, mask_id, -torch.inf)
        probabilities = logits.softmax(dim=-1)
        return torch.multinomial(probabilities.flatten(0, 1), 1).view(logits.shape[:2])

    def _choose(self, masked: Bool[Tensor, "B L"], passes_left: int) -> Bool[Tensor, "B L"]:
        """Choose each row's share of this pass at random: all its masks in the last one."""
        share = masked.sum(dim=1, keepdim=True).float().div(passes_left).ceil()
        order = torch.rand(masked.shape, device=masked.device).masked_fill(~masked, 2.0)
        rank = order.argsort(dim=1).argsort(dim=1)
        return masked & (rank < share)

    def _decode(self, x: Tensor, attention_mask: Tensor) -> list[str]:
        """Turn rows into text, padding left out."""
        rows = zip(x, attention_mask, strict=True)
        return [self.tokenizer.decode(row[seen].tolist(), True) for row, seen in rows]

    def to_dict(
        self,
        batch: dict[str, Any],
        preds: dict[str, Any],
        batch_idx: int | None = None,
        dataloader_idx: int | None = None,
        dataloader_name: str | None = None,
    ) -> list[dict[str, Any]]:
        """Turn what `predict` returned into one dict a row, for JSON.

        The host adds `metric_*` entries to `preds`, lists of B; they are passed on.
        """
        columns = {
            "text": preds["text"],
            "ids": preds["ids"].tolist(),
            "steps_taken": preds["steps_taken"],
            "time_taken": preds["time_taken"],
        }
        columns.update({k: v for k, v in preds.items() if k.startswith("metric_")})
        return [
            {name: column[i] for name, column in columns.items()} for i in range(len(preds["text"]))
        ]

    def generate(self, prompts: list[str]) -> list[str]:
        """Fill the masks of each prompt and continue it by `max_new_tokens`.

        Returns:
            In the order of `prompts`, each with its prompt.
        """
        if not prompts:
            return []
        rows = [self.tokenizer(text, add_special_tokens=False)["input_ids"] for text in prompts]
        width = max(map(len, rows))
        input_ids, attention_mask = pad_rows(rows, width, self.tokenizer.pad_token_id, left=True)
        device = next(self.model.parameters()).device
        batch = {"input_ids": input_ids.to(device), "attention_mask": attention_mask.to(device)}
        return self.predict(batch)["text"]
