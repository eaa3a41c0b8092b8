"""What to put at a position: temperature, top-k, top-p and the draw."""

from collections.abc import Collection

import torch
from jaxtyping import Float, Float64, Integer
from torch import Tensor

from xlm_mlm.checks import require_int, require_number
from xlm_mlm.sampling.distributions import draw_from_nucleus, invert, row_pieces


def suppress(
    logits: Float[Tensor, "N V"], token_ids: Collection[int], *, in_place: bool = False
) -> Float[Tensor, "N V"]:
    """Logits, fp32 or wider, in which some tokens have probability 0.

    Args:
        logits: of any floating type.
        token_ids: the tokens.
        in_place: whether logits that are wide enough may be changed instead of copied.

    Raises:
        ValueError: a token is outside the vocabulary, or (looked for on the CPU only) nothing is
            left to produce somewhere: the logits hold NaN, or no other token has a finite one.
    """
    if max(token_ids, default=-1) >= logits.shape[-1]:
        raise ValueError(
            f"token id {max(token_ids)}, the mask token's or one of suppress_tokens, is outside "
            f"the model's vocabulary of {logits.shape[-1]}; do model and tokenizer belong together?"
        )
    out = logits.to(torch.promote_types(logits.dtype, torch.float32), copy=not in_place)
    out[:, list(token_ids)] = -torch.inf
    if out.device.type == "cpu" and out.numel() and not out.amax(dim=-1).isfinite().all():
        raise ValueError(
            "the model's logits hold NaN or +inf, or they and suppress_tokens leave no token to "
            "produce; "
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
        rule = "finite and at least 0 (0 is greedy)"
        self.temperature = require_number("temperature", temperature, 0, rule)
        if top_k is not None and top_p is not None:
            raise ValueError(
                f"top_k={top_k} and top_p={top_p} are both set; choose one and leave the other None"
            )
        if top_k is not None:
            top_k = require_int("top_k", top_k, 1)
        if top_p is not None:
            top_p = require_number("top_p", top_p, 0, "above 0 and at most 1")
            if not 0 < top_p <= 1:
                raise ValueError(f"top_p is {top_p}; it must be above 0 and at most 1")
        self.top_k = top_k
        self.top_p = top_p

    @property
    def greedy(self) -> bool:
        """Whether the most probable token is taken, so that no random number is needed."""
        return self.temperature == 0 or self.top_k == 1

    def __call__(
        self, logits: Float[Tensor, "N V"], uniform: Float64[Tensor, "N"] | None = None
    ) -> Integer[Tensor, "N"]:
        """Draw by inversion: one uniform number a position, so equal numbers give equal tokens.

        Args:
            logits: fp32 or wider.
            uniform: in [0, 1); None, if `greedy`.
        """
        if self.greedy or uniform is None:
            return logits.argmax(dim=-1)
        pieces = row_pieces(logits)
        numbers = uniform.to(logits.device).split([len(piece) for piece in pieces])
        return torch.cat([self._draw(*pair) for pair in zip(pieces, numbers, strict=True)])

    def _draw(
        self, logits: Float[Tensor, "n V"], uniform: Float64[Tensor, "n"]
    ) -> Integer[Tensor, "n"]:
        if self.top_k is not None:
            kept, ids = logits.topk(min(self.top_k, logits.shape[-1]), dim=-1)
            return ids.gather(1, invert(self._cool(kept), uniform)[:, None]).squeeze(1)
        if self.top_p is not None and self.top_p < 1:
            return draw_from_nucleus(self._cool(logits).float(), uniform, self.top_p)
        return invert(self._cool(logits), uniform)

    def _cool(self, logits: Float[Tensor, "n K"]) -> Float[Tensor, "n K"]:
        """Probabilities at the temperature; any positive double gives some, never NaN."""
        if self.temperature != 1:
            # Beyond these bounds fp32 logits give one token, or all of them equally, anyway.
            temperature = min(max(self.temperature, 1e-37), 1e37)
            logits = (logits - logits.amax(dim=-1, keepdim=True)) / temperature
        return logits.softmax(dim=-1)
