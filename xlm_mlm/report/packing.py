"""A trace in the form that the page carries: one compressed run of arrays a sample.

The arrays of a sample, little-endian, in this order, where an entry is an index into the page's
table of tokens:

    starts      u32 (S + 1,)   where the changes of each pass begin, and where the last end
    mean        u32 (S,)       mean entropy of each pass, thousandths of a nat
    where       u32 (C,)       position of each change of the sequence
    entropy     u16 (N,)       thousandths of a nat
    sure        u16 (C,)       probability of what was put there, in units of 1/10,000
    p           u16 (k, N)     probabilities, in units of 1/10,000
    before      entry (L,)     the sequence before the first pass
    what        entry (C,)     token of each change
    tokens      entry (k, N)   the tokens of `p`
    masks       bits (S + 1, L)  what is masked before the first pass and after each

N counts the positions that a pass saw masked and for which probabilities were kept, pass by pass.
Numbers are rounded here, to the digits that the page shows; all ones stands for "not known".
"""

import base64
import zlib
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor

from xlm_mlm.boards import board_of
from xlm_mlm.history.trace import Trace
from xlm_mlm.visible import quoted, readable, visible

PARTS = 10_000  # a probability of 1
_THOUSANDTHS = 1_000
_LONGEST = 4_000  # characters of a token's text; each may take twelve bytes of the page
_UNKNOWN = {"u2": 0xFFFF, "u4": 0xFFFFFFFF}


class TokenTable:
    """The tokens that the page's samples hold, each once."""

    def __init__(self) -> None:
        self._entries: dict[tuple[int, str], int] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def entries(self, trace: Trace, ids: Integer[Tensor, "*shape"]) -> np.ndarray:
        """The entry of each token, added if it is new."""
        kinds, inverse = torch.unique(ids, return_inverse=True)
        known = [self._entry(token, trace.text_of(token)) for token in kinds.tolist()]
        return np.array(known, dtype="u4")[inverse.numpy()]

    def _entry(self, token: int, text: str) -> int:
        return self._entries.setdefault((token, text), len(self._entries))

    def to_list(self) -> list[list[Any]]:
        """By entry: the id, the text to show, and the exact one unless that in quotes is it.

        A text that is too long is cut, and its length told.
        """
        rows: list[list[Any]] = []
        for token, text in self._entries:
            shown, exact = visible(text[:_LONGEST]), quoted(text[:_LONGEST])
            if len(text) > _LONGEST:
                shown, exact = f"{shown}…", f"{exact}… ({len(text):,} characters)"
            rows.append([token, shown] if exact == f'"{shown}"' else [token, shown, exact])
        return rows


def pack(trace: Trace, table: TokenTable, top: int) -> dict[str, Any]:
    """A sample for the page.

    Args:
        trace: the sample.
        table: takes the sample's tokens.
        top: the most probable tokens to keep a position, if the trace holds as many.

    Returns:
        What JSON can hold: facts, and under "arrays" the arrays, by name, that `seal` encodes
        once the table is complete.
    """
    sequences = torch.cat((trace.before[None], trace.x)).long()
    masks = masked_at(trace)
    changed = sequences[1:] != sequences[:-1]
    passes, where = changed.nonzero(as_tuple=True)
    seen = masks[:-1, trace.first :]
    p, ids = (tensor[seen][:, :top] for tensor in (trace.p, trace.pids))
    arrays = {
        "starts": _whole(torch.searchsorted(passes, torch.arange(trace.steps + 1))),
        "mean": _rounded(_means(trace.entropy, seen), _THOUSANDTHS, "u4"),
        "where": _whole(where),
        "entropy": _rounded(trace.entropy[seen], _THOUSANDTHS),
        "sure": _rounded(_chances(trace, passes, where), PARTS),
        "p": _rounded(p.T, PARTS),
        "before": table.entries(trace, trace.before),
        "what": table.entries(trace, sequences[1:][changed]),
        "tokens": table.entries(trace, ids.T),
        "masks": np.packbits(masks.numpy(), bitorder="little"),
    }
    return {
        "fid": readable(trace.fid),
        "length": len(trace.before),
        "passes": trace.steps,
        "first": trace.first,
        "top": p.shape[1],
        "finished": trace.finished,
        "board": _board(trace, sequences[-1]),
        "arrays": arrays,
    }


def seal(sample: dict[str, Any], table: TokenTable) -> dict[str, Any]:
    """The sample with its arrays as text, entries no wider than the table asks for."""
    entry = "u2" if len(table) <= 0x10000 else "u4"
    arrays = {
        name: array.astype(entry) if name in ("before", "what", "tokens") else array
        for name, array in sample["arrays"].items()
    }
    # Wide numbers first, so that each array begins where its numbers may.
    order = sorted(arrays, key=lambda name: -arrays[name].itemsize)
    data = b"".join(_little(arrays[name]).tobytes() for name in order)
    return {
        **{key: value for key, value in sample.items() if key != "arrays"},
        "layout": [[name, arrays[name].itemsize, arrays[name].size] for name in order],
        "data": base64.b64encode(zlib.compress(data, 9)).decode(),
    }


def masked_at(trace: Trace) -> Bool[Tensor, "S+1 L"]:
    """What is masked before the first pass and after each."""
    last = trace.x[-1] if trace.steps else trace.before
    end = torch.zeros_like(last, dtype=torch.bool)
    if trace.mask_id is not None:
        end = last.eq(trace.mask_id)
    return torch.cat((trace.masked.reshape(trace.steps, len(last)), end[None]))


def _board(trace: Trace, last: Integer[Tensor, "L"]) -> list[int] | None:
    blanks = [] if trace.mask_id is None else [trace.text_of(trace.mask_id)]
    return board_of([trace.text_of(token) for token in last.tolist()], blanks)


def _means(entropy: Float[Tensor, "S W"], seen: Bool[Tensor, "S W"]) -> Float[Tensor, "S"]:
    """Of each pass, over the positions that it saw masked; NaN if there were none."""
    return entropy.double().masked_fill(~seen, torch.nan).nanmean(dim=1)


def _chances(
    trace: Trace, passes: Integer[Tensor, "C"], where: Integer[Tensor, "C"]
) -> Float[Tensor, "C"]:
    """The probability that each new token had; NaN where it is not among those kept."""
    inside = where >= trace.first
    masked = trace.masked[passes, where]
    place = (where - trace.first).clamp(min=0)
    hits = trace.pids[passes, place] == trace.x[passes, where][:, None]
    chances = (trace.p[passes, place].double() * hits).sum(dim=1)
    return torch.where(inside & masked & hits.any(dim=1), chances, torch.nan)


def _whole(numbers: Integer[Tensor, "n"]) -> np.ndarray:
    return numbers.numpy().astype("u4")


def _little(numbers: np.ndarray) -> np.ndarray:
    return numbers.astype(numbers.dtype.newbyteorder("<"))


def _rounded(numbers: Float[Tensor, "*shape"], parts: int, kind: str = "u2") -> np.ndarray:
    exact = numbers.double().numpy() * parts
    known = ~np.isnan(exact)
    whole = np.rint(np.where(known, exact, 0)).clip(0, _UNKNOWN[kind] - 1)
    return np.where(known, whole, _UNKNOWN[kind]).astype(kind)
