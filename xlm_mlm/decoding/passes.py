"""One forward pass of decoding: choose, draw, commit, take back."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Float64, Integer
from torch import Tensor

from xlm_mlm.decoding.network import Network
from xlm_mlm.decoding.results import dense_logits
from xlm_mlm.decoding.rules import Rules
from xlm_mlm.decoding.state import advance, generated, masks_left, places_of, take_back
from xlm_mlm.sampling.candidates import Candidates
from xlm_mlm.sampling.revise import Generated
from xlm_mlm.sampling.scores import token_log_probability
from xlm_mlm.sampling.streams import Purpose, Streams
from xlm_mlm.types_mlm import MLMStepResults


@dataclass(frozen=True)
class Pass:
    """What one pass needs besides the state.

    Attributes:
        rules: which positions and tokens.
        network: gives the logits.
        streams: gives the random numbers.
        keep_logits: put the logits of all masks into the state.
    """

    rules: Rules
    network: Network
    streams: Streams
    keep_logits: bool

    def run(self, state: MLMStepResults, left: int) -> MLMStepResults:
        """The state after a pass over the rows that have a mask.

        Args:
            state: before it.
            left: passes left, this one included.
        """
        masked = masks_left(state, self.network.mask_id)
        if not masked.any():
            return {**state, "active": torch.zeros_like(state["active"])}
        if self.rules.by_scores:
            return self._by_scores(state, masked, left)
        after, p = self._fill(state, masked, left)
        if self.rules.revision is None or left == 1:
            return after
        after = self._revise(after, masked, p, left)
        # Complete rows go on being revised, and need no network where nothing is to be filled.
        while left > 2 and after["done"].all():
            left -= 1
            after = {**after, "current_step": after["current_step"] + 1}
            p = after["p"].cpu() if "p" in after else None
            after = self._revise(after, after["masked"], p, left)
        if after["done"].all():
            return after
        # Until the last pass, every row that has a token of ours may lose it again.
        return {**after, "done": ~generated(state, masked).any(dim=1)}

    def _fill(
        self, state: MLMStepResults, masked: Bool[Tensor, "B L"], left: int
    ) -> tuple[MLMStepResults, Float64[Tensor, "B L"] | None]:
        """The state with some masks filled, and the probabilities of the tokens before."""
        every = Candidates.of(masked)
        candidates = self._candidates(state, every, left)
        kept = None
        if self.rules.strategy.needs_logits or self.keep_logits:
            asked = every if self.keep_logits else candidates
            flat = asked.flat(asked.valid)
            logits = self.network.logits(state, every.rows, flat)
            if self.keep_logits:
                kept = dense_logits(logits, flat, masked.shape)
            if asked.valid is not candidates.valid:
                logits = _pick(logits, candidates.valid[asked.valid])
            chosen, p = self._select(state, candidates, logits)
            logits = _pick(logits, chosen[candidates.valid])
            flat = candidates.flat(chosen)
        else:
            chosen, p = self._select(state, candidates, None)
            flat = candidates.flat(chosen)
            logits = self.network.logits(state, every.rows, flat)
        tokens = self._draw(state, candidates, chosen, logits)
        after = advance(state, masked, flat, tokens, kept)
        if candidates.memory:
            after["memory"] = candidates.memory
        if self.rules.needs_p:
            after["p"] = _with_p(state, flat, token_log_probability(logits, tokens).exp())
        return after, p

    def _candidates(self, state: MLMStepResults, every: Candidates, left: int) -> Candidates:
        """What the position rule chooses from."""
        candidates = dataclasses.replace(
            every,
            passes_left=left,
            passes_done=state["current_step"],
            memory=dict(state.get("memory", {})),
        )
        if self.rules.blocks is not None:
            rows = every.rows[:, None]
            places = places_of(state)
            first = generated(state, masks_left(state, self.network.mask_id)).int().argmax(dim=1)
            offsets = places[rows, every.columns] - places[every.rows, first[every.rows]][:, None]
            candidates = self.rules.blocks.open(candidates, offsets)
        if getattr(self.rules.strategy, "needs_noise", True):
            noise = self._noise(state, candidates, Purpose.POSITION)
            candidates = dataclasses.replace(candidates, noise=noise)
        return candidates

    def _select(
        self, state: MLMStepResults, candidates: Candidates, logits: Tensor | None
    ) -> tuple[Bool[Tensor, "A K"], Float64[Tensor, "B L"] | None]:
        """Ask the strategy, and hold it to its promise; the pass's one synchronisation."""
        seen: Any = {} if logits is None else {"logits": logits}
        chosen: Any = self.rules.strategy.select(dataclasses.replace(candidates, **seen))
        fits = isinstance(chosen, Tensor) and chosen.shape == candidates.valid.shape
        p = None
        if fits and chosen.dtype == torch.bool:
            chosen, p = _fetch(chosen, state.get("p"))
            fits = bool(chosen.any(dim=1).all() and not (chosen & ~candidates.valid).any())
        else:
            fits = False
        if not fits:
            raise ValueError(
                f"{type(self.rules.strategy).__name__}.select must return booleans of the shape of "
                "`valid` that mark at least one candidate of every line and only valid ones; it "
                "did not"
            )
        if isinstance(candidates.passes_left, int):
            return candidates.valid if candidates.passes_left == 1 else chosen, p
        return torch.where(candidates.last[:, None], candidates.valid, chosen), p

    def _draw(
        self, state: MLMStepResults, grid: Candidates, chosen: Bool[Tensor, "A K"], logits: Tensor
    ) -> Integer[Tensor, "N"]:
        """A token for each chosen place, from its logits."""
        uniform = None
        if not self.rules.sampler.greedy:
            uniform = self._noise(state, grid, Purpose.TOKEN)[chosen]
        return self.rules.sampler(logits, uniform)

    def _noise(
        self, state: MLMStepResults, candidates: Candidates, purpose: Purpose
    ) -> Float64[Tensor, "A K"]:
        places = places_of(state)[candidates.rows].gather(1, candidates.columns)
        # In a state made by hand a row is its own sample.
        ids = candidates.rows
        if "sample_ids" in state:
            ids = state["sample_ids"][ids]
        return self.streams.uniform(ids, state["current_step"], purpose, places)

    def _revise(
        self,
        state: MLMStepResults,
        masked: Bool[Tensor, "B L"],
        p: Float64[Tensor, "B L"] | None,
        left: int,
    ) -> MLMStepResults:
        """Take back tokens that were committed before the pass, which began with `masked`.

        The pass is the last that `state` counts.
        """
        grid = Candidates.of(generated(state, masked))
        step = state["current_step"] - 1
        back = self._remask({**state, "current_step": step}, grid, masked, left, p=p)
        at = grid.rows[:, None], grid.columns
        return take_back(state, grid.flat(back & ~masked[at]), self.network.mask_id)

    def _remask(
        self,
        state: MLMStepResults,
        grid: Candidates,
        masked: Bool[Tensor, "B L"],
        left: int,
        p: Float64[Tensor, "B L"] | None = None,
        scores: Float64[Tensor, "A G"] | None = None,
    ) -> Bool[Tensor, "A G"]:
        """Ask the revision, and hold it to its promise."""
        revision, at = self.rules.revision, (grid.rows[:, None], grid.columns)
        assert revision is not None
        done = state["current_step"]
        view = Generated(
            grid.rows,
            grid.columns,
            grid.valid,
            masked[at] & grid.valid,
            done,
            done + left,
            self._noise(state, grid, Purpose.REVISION),
            None if p is None else p[at],
            scores,
        )
        back: Any = revision.remask(view)
        if not isinstance(back, Tensor) or back.dtype != torch.bool or back.shape != at[1].shape:
            raise ValueError(
                f"{type(revision).__name__}.remask must return booleans of the shape of `valid`; "
                "it did not"
            )
        return back.cpu() & grid.valid

    def _by_scores(
        self, state: MLMStepResults, masked: Bool[Tensor, "B L"], left: int
    ) -> MLMStepResults:
        """Draw a token for every mask, and let the revision say which places are masks after."""
        ours = generated(state, masked) & masked.any(dim=1, keepdim=True)
        grid = Candidates.of(ours)
        flat, open_places = grid.flat(grid.valid), masked[ours]
        at_masks = masked[grid.rows[:, None], grid.columns] & grid.valid
        logits = self.network.logits(state, grid.rows, flat, ~open_places)
        of_masks = _pick(logits, open_places)
        drawn = self._draw(state, grid, at_masks, of_masks)
        tokens = state["x"].reshape(-1)[flat.to(drawn.device)].long()
        tokens[open_places.nonzero().squeeze(1).to(drawn.device)] = drawn.long()
        scores = grid.grid(token_log_probability(logits, tokens).double(), 0.0)
        back = self._remask(state, grid, masked, left, scores=scores)[grid.valid]
        if left == 1:
            back = torch.zeros_like(back)
        filled = open_places & ~back
        rows = torch.zeros(len(masked), dtype=torch.bool)
        rows[flat[filled] // masked.shape[1]] = True
        if not rows[grid.rows].all():
            raise ValueError(
                f"{type(self.rules.revision).__name__}.remask must leave at least one mask of "
                "every line to be filled; it did not"
            )
        kept = None
        if self.keep_logits:
            kept = dense_logits(of_masks, flat[open_places], masked.shape)
        at = filled.nonzero().squeeze(1).to(tokens.device)
        after = advance(state, masked, flat[filled], tokens[at], kept)
        return take_back(after, flat[~open_places & back], self.network.mask_id)


def _pick(logits: Float[Tensor, "N V"], kept: Bool[Tensor, "N"]) -> Float[Tensor, "n V"]:
    # Indices from the CPU: a boolean index would synchronise on CUDA.
    return logits[kept.nonzero().squeeze(1).to(logits.device)]


def _with_p(
    state: MLMStepResults, flat: Integer[Tensor, "N"], p: Float[Tensor, "N"]
) -> Float64[Tensor, "B L"]:
    """The probabilities of committed tokens, with those of this pass."""
    x = state["x"]
    known = state["p"].clone() if "p" in state else torch.zeros_like(x, dtype=torch.float64)
    known.view(-1)[flat.to(x.device)] = p.double()
    return known


def _fetch(
    chosen: Bool[Tensor, "A K"], p: Float64[Tensor, "B L"] | None
) -> tuple[Bool[Tensor, "A K"], Float64[Tensor, "B L"] | None]:
    """Bring two tensors to the CPU, together if both are on a device."""
    if p is None or "cpu" in (chosen.device.type, p.device.type):
        return chosen.cpu(), None if p is None else p.cpu()
    both = torch.cat((chosen.double().flatten(), p.flatten())).cpu()
    first, second = both.split([chosen.numel(), p.numel()])
    return first.bool().view(chosen.shape), second.view(p.shape)
