"""The training objective: what stood at the masked positions?

B = rows, L = positions. The host calls `loss(batch, ...)` with a collator's batch; with
`compile=true` it replaces `loss_fn` by its compiled version, so all tensor work belongs there.
"""

from typing import Any

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F
from xlm.harness import Harness, LossFunction

IGNORE = -100


class MinimalLoss(LossFunction[dict[str, Any], dict[str, Any]]):
    """Mean cross-entropy, in nats, over masked positions that have a target.

    Args:
        model: the network; the host sets it where it is None.
        tokenizer: knows the mask token; the host sets it where it is None.
    """

    def __init__(self, model: Any = None, tokenizer: Any = None) -> None:
        self.model = model
        self.tokenizer = tokenizer

    def configure(self, pl_module: Harness) -> None:
        """Called once, when the host knows its device. Nothing to prepare here."""

    def loss_fn(
        self,
        batch: dict[str, Any],
        batch_idx: int | None = None,
        dataloader_idx: int | None = None,
        dataloader_name: str | None = None,
    ) -> dict[str, Float[Tensor, ""]]:
        """Compute `{"loss": scalar}`; 0, with a gradient of 0, for a batch without any target.

        Args:
            batch: `input_ids`, `attention_mask` and `target_ids` (-100 where there is no target),
                each (B, L). It is left as it is: metrics read it afterwards.
        """
        logits = self.model(batch["input_ids"], batch["attention_mask"])
        masked = batch["input_ids"] == self.tokenizer.mask_token_id
        targets = batch["target_ids"].masked_fill(~masked, IGNORE)
        # In fp32: a sum over the vocabulary in half precision loses its tail.
        total = F.cross_entropy(
            logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORE, reduction="sum"
        )
        count = (targets != IGNORE).sum()
        return {"loss": total / count.clamp(min=1)}

    def __call__(
        self,
        batch: dict[str, Any],
        batch_idx: int | None = None,
        dataloader_idx: int | None = None,
        dataloader_name: str | None = None,
    ) -> dict[str, Float[Tensor, ""]]:
        """See `loss_fn`."""
        return self.loss_fn(batch, batch_idx, dataloader_idx, dataloader_name)
