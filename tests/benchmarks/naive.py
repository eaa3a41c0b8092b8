"""The plain way to do all this, for comparison where the existing package is not installed.

The host's layers one after another, logits at every position, one list at a time. Constructors
and calls are those of the packages, as far as the benchmarks use them.
"""

from typing import Any

import torch
import torch.nn.functional as F
from xlm.modules.position import RotaryEmbedding
from xlm.modules.rotary_transformer import RotaryTransformerFinalLayer, RotaryTransformerLayer

IGNORED = -100


class NaiveModel(torch.nn.Module):
    """The same weights as the packages' model, all logits at every call."""

    def __init__(
        self,
        num_embeddings: int,
        d_model: int,
        num_layers: int,
        nhead: int,
        padding_idx: int = 0,
        mask_idx: int = 1,
        dropout: float = 0.1,
        max_length: int = 1024,
        **ignored: Any,
    ) -> None:
        super().__init__()
        self.embed_tokens = torch.nn.Embedding(num_embeddings, d_model, padding_idx=padding_idx)
        self.encoder = torch.nn.ModuleList()
        for _ in range(num_layers):
            layer = RotaryTransformerLayer(d_model, nhead, None, dropout)
            layer.set_rotary_emb(RotaryEmbedding(64, cache_size=max_length))
            self.encoder.append(layer)
        self.output_layer = RotaryTransformerFinalLayer(d_model, num_embeddings)

    def forward(
        self,
        x_t: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        positions: torch.Tensor | None = None,
        block_mask: Any = None,
    ) -> torch.Tensor:
        if attention_mask is None:
            attention_mask = torch.ones_like(x_t, dtype=torch.bool)
        if positions is None:
            positions = (attention_mask.long().cumsum(1) - 1).clamp(min=0)
        x = self.embed_tokens(x_t)
        for layer in self.encoder:
            x = layer(x, attention_mask, positions, block_mask)
        return self.output_layer(x)


class NaiveLoss:
    """Cross-entropy over all logits, positions that do not count ignored."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model = model
        self.mask_token_id_tensor = torch.tensor(tokenizer.mask_token_id)

    def __call__(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        return self.loss_fn(batch)

    def loss_fn(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        ids = batch["input_ids"]
        targets = batch["target_ids"].masked_fill(ids != self.mask_token_id_tensor, IGNORED)
        logits = self.model(ids, batch.get("attention_mask"), batch.get("positions"))
        return {"loss": F.cross_entropy(logits.float().flatten(0, 1), targets.flatten())}


class NaivePredictor:
    """One pass for each of `max_steps`, over all rows, until no row has a mask left."""

    def __init__(
        self,
        max_steps: int,
        max_new_tokens: int | None = None,
        tokenizer: Any = None,
        model: Any = None,
        top_k: int | None = None,
        confidence: str | None = None,
        threshold: float | None = None,
    ) -> None:
        self.max_steps = max_steps
        self.new_tokens = max_new_tokens or 0
        self.mask_id = tokenizer.mask_token_id
        self.model = model
        self.top_k = top_k
        self.ranked = confidence is not None
        self.threshold = threshold

    def predict(self, batch: dict[str, Any], *place: Any) -> dict[str, torch.Tensor]:
        x = F.pad(batch["input_ids"], (0, self.new_tokens), value=self.mask_id)
        valid = F.pad(batch["attention_mask"], (0, self.new_tokens), value=True)
        for step in range(self.max_steps):
            masked = x == self.mask_id
            if not masked.any():
                break
            logits = self.model(x, valid)
            logits[..., self.mask_id] = -torch.inf
            probabilities = logits.softmax(-1)
            drawn = self._draw(probabilities)
            for row in range(len(x)):
                places = masked[row].nonzero().flatten()
                if len(places):
                    left = self.max_steps - step
                    chosen = self._choose(probabilities[row, places], left)
                    x[row, places[chosen]] = drawn[row, places[chosen]]
        return {"ids": x}

    def _draw(self, probabilities: torch.Tensor) -> torch.Tensor:
        if self.top_k is not None:
            least = probabilities.topk(self.top_k).values[..., -1:]
            probabilities = probabilities.masked_fill(probabilities < least, 0.0)
        return torch.multinomial(probabilities.flatten(0, 1), 1).view(probabilities.shape[:2])

    def _choose(self, probabilities: torch.Tensor, left: int) -> torch.Tensor:
        """Which of a row's masks to fill, given the distributions at them."""
        count = -(-len(probabilities) // left)
        if not self.ranked:
            return torch.randperm(len(probabilities))[:count]
        uncertainty, order = (1 - probabilities.max(-1).values).sort()
        if self.threshold is not None and left > 1:
            count = max(int((uncertainty.cumsum(0) - uncertainty < self.threshold).sum()), 1)
        return order[:count]


class NaiveCollator:
    """Rows framed and masked one token at a time."""

    def __init__(
        self, tokenizer: Any, block_size: int, noise_schedule: Any, loss_on_padding: bool = True
    ) -> None:
        self.tokenizer = tokenizer
        self.block_size = block_size
        self.loss_on_padding = loss_on_padding

    def __call__(self, examples: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        special = self.tokenizer
        rows = [[special.bos_token_id, *e["input_ids"], special.eos_token_id] for e in examples]
        return self._batch(rows, self.block_size, [0] * len(rows))

    def _batch(
        self, rows: list[list[int]], width: int, prompts: list[int]
    ) -> dict[str, torch.Tensor]:
        inputs, valid, targets = [], [], []
        for row, prompt in zip(rows, prompts, strict=True):
            seen = [self.loss_on_padding or j < len(row) for j in range(width)]
            row = [*row[:width], *[self.tokenizer.pad_token_id] * (width - len(row))]
            rate = torch.rand(()).item()
            hidden = torch.rand(width).tolist()
            inputs.append(
                [
                    self.tokenizer.mask_token_id if j >= prompt and seen[j] and u < rate else token
                    for j, (token, u) in enumerate(zip(row, hidden, strict=True))
                ]
            )
            valid.append(seen)
            targets.append([t if s else IGNORED for t, s in zip(row, seen, strict=True)])
        return {
            "input_ids": torch.tensor(inputs),
            "attention_mask": torch.tensor(valid),
            "target_ids": torch.tensor(targets),
        }


class NaiveSeq2SeqTrainCollator(NaiveCollator):
    """Prompt, BOS, suffix, EOS; only what follows BOS is masked."""

    def __init__(
        self,
        tokenizer: Any,
        noise_schedule: Any,
        block_size: int,
        input_block_size: int,
        loss_on_padding: bool = True,
    ) -> None:
        super().__init__(tokenizer, block_size, noise_schedule, loss_on_padding)
        self.width = input_block_size + 1 + block_size
        self.input_block_size = input_block_size

    def __call__(self, examples: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        special = self.tokenizer
        rows, prompts = [], []
        for example in examples:
            prompt = [*example["prompt_ids"][-self.input_block_size :], special.bos_token_id]
            rows.append([*prompt, *example["input_ids"], special.eos_token_id])
            prompts.append(len(prompt))
        return self._batch(rows, self.width, prompts)
