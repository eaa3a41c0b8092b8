"""One sample's way from masks to tokens, read whole from its history."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Trace:
    """Everything that was recorded of one sample.

    S = passes, L = sequence length, W = the last positions for which probabilities were kept
    (all L of them unless the history was told otherwise), k = tokens kept a position.

    Attributes:
        fid: the name of the sample's folder.
        before: the sequence before the first pass.
        x: the sequence after each pass.
        p: the most probable tokens' probabilities, most probable first; at positions that were
            not masked in a pass, 1 for the token that stands there.
        pids: the ids of those tokens.
        entropy: of the whole distribution, in nats; NaN at positions that were not masked.
        mask_id: the mask token's id; None if whoever wrote the history did not know it.
        texts: what each token id reads as.
        finished: False if the run ended before the sample did.
    """

    fid: str
    before: Integer[Tensor, "L"]
    x: Integer[Tensor, "S L"]
    p: Float[Tensor, "S W k"]
    pids: Integer[Tensor, "S W k"]
    entropy: Float[Tensor, "S W"]
    mask_id: int | None
    texts: dict[int, str]
    finished: bool

    @property
    def steps(self) -> int:
        """Passes recorded."""
        return len(self.x)

    @property
    def first(self) -> int:
        """The first position for which probabilities were kept."""
        return len(self.before) - self.p.shape[1]

    @cached_property
    def masked(self) -> Bool[Tensor, "S L"]:
        """The positions that were masked when each pass began."""
        if self.mask_id is not None:
            begun = torch.cat((self.before[None], self.x))[:-1]
            return begun == self.mask_id
        outside = torch.zeros(self.steps, self.first, dtype=torch.bool)
        return torch.cat((outside, ~self.entropy.isnan()), dim=1)

    @cached_property
    def filled_by(self) -> Integer[Tensor, "L"]:
        """The pass, from 0, that put each final token in its place; -1 where it was given."""
        sequences = torch.cat((self.before[None], self.x))
        changed = (sequences[1:] != sequences[:-1]).long()
        numbers = torch.arange(1, self.steps + 1)[:, None] * changed
        last = numbers.amax(dim=0) if self.steps else torch.zeros_like(self.before)
        return last.long() - 1

    @cached_property
    def masks_left(self) -> Integer[Tensor, "S+1"]:
        """Masks before the first pass and after each; those given back to a mask count again."""
        if self.mask_id is not None:
            return (torch.cat((self.before[None], self.x)) == self.mask_id).sum(dim=1)
        # Without the mask's id: what was masked when each pass began; none is known to be left.
        counts = self.masked.sum(dim=1)
        return torch.cat((counts, counts.new_zeros(1)))

    @cached_property
    def mean_entropy(self) -> Float[Tensor, "S"]:
        """Mean entropy, in nats, of the positions masked when each pass began; NaN if none was."""
        return self.entropy.nanmean(dim=1)

    @cached_property
    def confidence(self) -> Float[Tensor, "L"]:
        """The probability that each final token had in the pass that put it in its place.

        NaN where the token was given, or was not among those kept.
        """
        found = torch.full(self.before.shape, torch.nan)
        for place in range(self.first, len(self.before)):
            step = int(self.filled_by[place])
            if step >= 0:
                kept = self.pids[step, place - self.first] == self.x[step, place]
                at = self.p[step, place - self.first][kept]
                found[place] = at[0] if len(at) else torch.nan
        return found

    def text_of(self, token_id: int) -> str:
        """What a token reads as; its number after a # if the history does not say."""
        return self.texts.get(int(token_id), f"#{int(token_id)}")

    def to_dataframe(self) -> Any:
        """The record as a pandas table: a row for each pass and position.

        Columns: `pass` and `position`, from 0; `token_id` and `token`, after the pass; `masked`,
        whether it was when the pass began; `filled`, whether the pass changed it; `entropy`, in
        nats; and for n from 1 to k `top_n`, a token, `top_n_id` and `top_n_p`, its probability.
        Entropy and tokens are missing where the position was not masked or not recorded.
        """
        from xlm_mlm.history.table import to_dataframe

        return to_dataframe(self)

    def _repr_html_(self) -> str:
        """The trace as a table, for notebooks."""
        from xlm_mlm.history.html import to_html

        return to_html(self)
