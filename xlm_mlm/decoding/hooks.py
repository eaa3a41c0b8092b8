"""Hooks that see a model's logits before anything else does."""

import torch
from jaxtyping import Float
from torch import Tensor


class LogitsShiftBy1:
    """A `logits_hook` for models that score the next token: moves each score to its own position.

    The first position has no predecessor and keeps its own scores.
    """

    def __call__(self, logits: Float[Tensor, "B L V"]) -> Float[Tensor, "B L V"]:
        """Logits at t become those the model gave at t - 1.

        Raises:
            ValueError: the logits are not of shape (B, L, V).
        """
        if logits.ndim != 3:
            raise ValueError(
                f"the logits have shape {tuple(logits.shape)}; shifting needs (batch, length, "
                "vocabulary)"
            )
        return torch.cat((logits[:, :1], logits[:, :-1]), dim=1)
