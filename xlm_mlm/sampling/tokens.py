"""What to put at a position: temperature, top-k, top-p and the draw."""

from collections.abc import Collection

import torch
from jaxtyping import Float, Float64, Integer
from torch import Tensor

from xlm_mlm.checks import require_int, require_number


def suppress(logits: Float[Tensor, "N V"], token_ids: Collection[int]) -> Float[Tensor, "N V"]:
    """Copy of the logits, fp32 or wider, in which some tokens have probability 0.

    Raises:
        ValueError: a token is outside the vocabulary, or (looked for on the CPU only) nothing is
            left to produce somewhere: the logits hold NaN, or no other token has a finite one.
    """
    if max(token_ids, default=-1) >= logits.shape[-1]:
        raise ValueError(
            f"token id {max(token_ids)} (the mask token's?) is outside the model's vocabulary of "
            f"{logits.shape[-1]}; model and tokenizer do not belong together"
        )
    out = logits.to(torch.promote_types(logits.dtype, torch.float32), copy=True)
    out[:, list(token_ids)] = -torch.inf
    if out.device.type == "cpu" and out.numel() and not out.amax(dim=-1).isfinite().all():
        raise ValueError(
            "the model's logits hold NaN or +inf, or leave no token to produce; "
            f"{int((~out.amax(dim=-1).isfinite()).sum())} of {len(out)} positions are affected"
        )
    return out


class TokenSampler:
    """Draws a token for each position from its filtered distribution.

    Args:
        temperature: the logits are divided by it; 0 takes the most probable token.
        top_k: keep the k most probable tokens (Fan et al., arXiv 1805.04833).
        top_p: keep the fewest most probable tokens whose probabilities reach p, the one that
            crosses it included (Holtzman et al., arXiv 1904.09751).

    Raises:
        ValueError: a value out of range, or `top_k` and `top_p` together.
    """

    def __init__(
        self, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
    ) -> None:
        require_number("temperature", temperature, 0, "finite and at least 0 (0 is greedy)")
        if top_k is not None and top_p is not None:
            raise ValueError(
                f"top_k={top_k} and top_p={top_p} are both set; choose one and leave the other None"
            )
        if top_k is not None:
            require_int("top_k", top_k, 1)
        if top_p is not None:
            require_number("top_p", top_p, 0, "above 0 and at most 1")
            if not 0 < top_p <= 1:
                raise ValueError(f"top_p is {top_p}; it must be above 0 and at most 1")
        self.temperature = temperature
        self.top_k = top_k
        self.top_p = top_p

    def __call__(
        self, logits: Float[Tensor, "N V"], uniform: Float64[Tensor, "N"]
    ) -> Integer[Tensor, "N"]:
        """Draw by inversion: one uniform number a position, so equal numbers give equal tokens.

        Args:
            logits: fp32 or wider.
            uniform: in [0, 1).
        """
        if self.temperature == 0 or self.top_k == 1:
            return logits.argmax(dim=-1)
        if self.top_k is not None:
            kept, ids = logits.topk(min(self.top_k, logits.shape[-1]), dim=-1)
            return ids.gather(1, _invert(self._cool(kept), uniform)).squeeze(1)
        logits = self._cool(logits)
        if self.top_p is not None and self.top_p < 1:
            kept, ids = logits.sort(dim=-1, descending=True, stable=True)
            return ids.gather(1, _invert(_keep_nucleus(kept, self.top_p), uniform)).squeeze(1)
        return _invert(logits, uniform).squeeze(1)

    def _cool(self, logits: Float[Tensor, "N K"]) -> Float64[Tensor, "N K"]:
        """Divide by the temperature; any positive double gives 0 or less, never NaN."""
        shifted = (logits - logits.amax(dim=-1, keepdim=True)).double()
        return shifted / self.temperature


def _keep_nucleus(ordered: Float64[Tensor, "N V"], top_p: float) -> Float64[Tensor, "N V"]:
    p = ordered.softmax(dim=-1)
    # A token stays if those before it have not reached p yet: so the one that crosses it stays.
    reached_before = p.cumsum(dim=-1) - p >= top_p
    reached_before[:, 0] = False
    return ordered.masked_fill(reached_before, -torch.inf)


def _invert(
    logits: Float64[Tensor, "N K"], uniform: Float64[Tensor, "N"]
) -> Integer[Tensor, "N 1"]:
    """Index of the first entry at which the cumulative probability passes the random number."""
    cumulative = logits.softmax(dim=-1).cumsum(dim=-1)
    total = cumulative[:, -1:]
    # Rounding must not carry the number up to the total, where no entry passes it.
    target = torch.minimum(
        uniform.to(logits.device)[:, None] * total, total * (1 - torch.finfo(torch.float64).eps)
    )
    return torch.searchsorted(cumulative, target, right=True).clamp_max(logits.shape[-1] - 1)
