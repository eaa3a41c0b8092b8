"""Logits of a pass: the model, the hook, guidance, and the tokens that may not be produced."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor

from xlm_mlm.decoding.rules import Rules
from xlm_mlm.decoding.state import at_work, generated, masks_left, places_of
from xlm_mlm.model_mlm import call_model, logits_at_positions, pick
from xlm_mlm.sampling.constraints import booleans_at, forbid, token_ids
from xlm_mlm.sampling.tokens import suppress
from xlm_mlm.types_mlm import MLMStepResults


@dataclass(frozen=True)
class Network:
    """A model as the loop sees it.

    Attributes:
        model: anything that meets `MLMModel`.
        hook: the predictor's `logits_hook`.
        tokenizer: looks up tokens that options name.
        mask_id: never produced.
        rules: guidance, suppressed and allowed tokens.
    """

    model: Any
    hook: Callable[[Tensor], Tensor] | None
    tokenizer: Any
    mask_id: int
    rules: Rules

    def logits(
        self,
        state: MLMStepResults,
        rows: Integer[Tensor, "A"],
        flat: Integer[Tensor, "N"],
        committed: Bool[Tensor, "N"] | None = None,
    ) -> Float[Tensor, "N V"]:
        """Logits, fp32 or wider, at flat positions of the batch, from a pass over some rows of it.

        Tokens that may not be produced are at -inf; where a token is `committed`, those that are
        never produced only, for what may stand elsewhere may be decided by what stands there.
        """
        inputs = at_work(state, rows)
        length = state["x"].shape[1]
        local = flat
        if len(inputs["x_t"]) < len(state["x"]):
            line_of = torch.zeros(len(state["x"]), dtype=torch.long)
            line_of[rows] = torch.arange(len(rows))
            local = line_of[flat // length] * length + flat % length
        local = local.to(inputs["x_t"].device)
        given = self._given(state, rows, len(inputs["x_t"])) if self.rules.cfg_scale else None
        plain = given is None
        logits = self._call(inputs, local) if plain else self._guided(inputs, local, given)
        pointwise = plain and getattr(self.hook, "pointwise", False)
        # Made in this pass, and nobody else's: not a view of a parameter, nor kept by a hook.
        ours = logits.is_inference() and logits.is_contiguous() and not pointwise
        logits = suppress(logits, self._never(), in_place=ours)
        if self.rules.allowed is None and state.get("allowed") is None:
            return logits
        if committed is None or not committed.any():
            return self._constrain(logits, state, flat)
        still_open = (~committed).nonzero().squeeze(1)
        at = still_open.to(logits.device)
        logits[at] = self._constrain(logits[at], state, flat[still_open])
        return logits

    def _call(self, inputs: dict[str, Any], flat: Integer[Tensor, "N"]) -> Float[Tensor, "N V"]:
        hook = self.hook
        if hook is None or getattr(hook, "pointwise", False):
            logits = logits_at_positions(self.model, flat=flat, **inputs)
            return logits if hook is None else self._hooked(logits)
        return pick(self._hooked(call_model(self.model, **inputs)), flat, inputs["x_t"])

    def _hooked(self, logits: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """The logits as the hook gives them back, of the same shape: a cut would shift ids."""
        assert self.hook is not None
        found = self.hook(logits)
        if not isinstance(found, Tensor) or found.shape != logits.shape:
            given = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise ValueError(
                f"the logits_hook gave {given} for logits of shape {tuple(logits.shape)}; it must "
                "return a tensor of the same shape"
            )
        return found

    def _given(
        self, state: MLMStepResults, rows: Integer[Tensor, "A"], lines: int
    ) -> Bool[Tensor, "A L"] | None:
        """The given tokens, which guidance hides; None if there are none, and nothing to guide."""
        given = ~generated(state, masks_left(state, self.mask_id))
        if lines < len(given):
            given = given[rows]
        return given.to(state["x"].device) if given.any() else None

    def _guided(
        self, inputs: dict[str, Any], flat: Integer[Tensor, "N"], given: Any
    ) -> Float[Tensor, "N V"]:
        """u + (w + 1) (c - u), u the logits without the given tokens (arXiv 2410.18514)."""
        x = inputs["x_t"]
        bare = x.masked_fill(given, self.mask_id)
        if inputs["block_mask"] is not None:
            # Built for this very batch, so it can't be doubled.
            c, u = (self._call({**inputs, "x_t": each}, flat) for each in (x, bare))
        else:
            both = {name: _doubled(inputs[name], len(x)) for name in inputs}
            both["x_t"] = torch.cat((x, bare))
            c, u = self._call_doubled(both, flat)
        wide = torch.promote_types(c.dtype, torch.float32)
        c, u = c.to(wide), u.to(wide)
        guided = u + (self.rules.cfg_scale + 1) * (c - u)
        # What is impossible stays so; infinities have no difference.
        return guided.masked_fill_(c.isneginf() | u.isneginf(), -torch.inf)

    def _call_doubled(
        self, both: dict[str, Any], flat: Integer[Tensor, "N"]
    ) -> tuple[Float[Tensor, "N V"], Float[Tensor, "N V"]]:
        """The two halves of a doubled batch, in one pass; a hook sees each as a batch."""
        hook, x = self.hook, both["x_t"].chunk(2)
        if hook is None or getattr(hook, "pointwise", False):
            twice = torch.cat((flat, flat + x[0].numel()))
            c, u = logits_at_positions(self.model, flat=twice, **both).chunk(2)
            return (c, u) if hook is None else (self._hooked(c), self._hooked(u))
        c, u = call_model(self.model, **both).chunk(2)
        return pick(self._hooked(c), flat, x[0]), pick(self._hooked(u), flat, x[1])

    def _never(self) -> list[int]:
        named = self.rules.suppress_tokens
        return [self.mask_id, *token_ids(named, self.tokenizer, "suppress_tokens")]

    def _constrain(
        self, logits: Float[Tensor, "N V"], state: MLMStepResults, flat: Integer[Tensor, "N"]
    ) -> Float[Tensor, "N V"]:
        x, size = state["x"], logits.shape[-1]
        columns = flat % x.shape[1]
        if self.rules.allowed is not None:
            places = places_of(state).reshape(-1)[flat]
            logits = forbid(
                logits, self.rules.allowed.at(x, flat, places, self.tokenizer, size), columns
            )
        if (allowed := state.get("allowed")) is not None:
            may = booleans_at(allowed, "allowed_tokens", x.shape, flat, size)
            logits = forbid(logits, may, columns)
        return logits


def _doubled(value: Tensor | None, rows: int) -> Tensor | None:
    """An input for a batch twice over; one line for all rows stays so."""
    return value if value is None or len(value) < rows else torch.cat((value, value))
