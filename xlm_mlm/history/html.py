"""A trace as a small static table, for notebooks; `xlm-mlm report` draws it whole."""

from html import escape

import torch

from xlm_mlm.history.trace import Trace
from xlm_mlm.visible import readable, visible

PASSES, TOKENS = 24, 160
"""At most so many passes and tokens are shown; the middle is left out, and the caption says so."""
_LONGEST = 200  # characters of a token's text

# Of early and of late passes, dark enough to be told apart and light enough for black text.
_EARLY, _LATE = (187, 222, 251), (255, 204, 128)
_CELL = "text-align:left;vertical-align:top;padding:2px 8px"


def to_html(trace: Trace) -> str:
    """One row a pass: its number, the masks left, the mean entropy, and the sequence after it.

    Tokens are coloured by the pass that filled them. All that comes from the record is escaped.
    """
    passes, places = (
        _ends(count, most)
        for count, most in ((trace.steps + 1, PASSES), (len(trace.before), TOKENS))
    )
    sequences = torch.cat((trace.before[None], trace.x))
    entropy = ["", *(f"{each:.3f}" for each in trace.mean_entropy.tolist())]
    rows = []
    for number in passes:
        if number is None:
            rows.append(f'<tr><td colspan="4" style="{_CELL}">…</td></tr>')
            continue
        cells = (
            str(number) if number else "given",
            str(int(trace.masks_left[number])),
            entropy[number],
        )
        row = "".join(f'<td style="{_CELL}">{cell}</td>' for cell in cells)
        tokens = " ".join(_token(trace, sequences[number], number, place) for place in places)
        rows.append(f'<tr>{row}<td style="{_CELL};font-family:monospace">{tokens}</td></tr>')
    heads = "".join(
        f'<th style="{_CELL}">{head}</th>'
        for head in ("pass", "masks left", "mean entropy (nats)", "sequence")
    )
    return f"<table><caption>{_caption(trace)}</caption><tr>{heads}</tr>{''.join(rows)}</table>"


def _caption(trace: Trace) -> str:
    shown = f"{escape(readable(trace.fid))}: {trace.steps} passes, {len(trace.before)} tokens"
    if trace.steps + 1 > PASSES or len(trace.before) > TOKENS:
        shown += f"; at most {PASSES} rows and {TOKENS} tokens are shown"
    return shown if trace.finished else f"{shown}; unfinished"


def _ends(count: int, most: int) -> list[int | None]:
    """0 to count - 1, with None for what is left out of the middle."""
    if count <= most:
        return list(range(count))
    head = (most + 1) // 2
    return [*range(head), None, *range(count - (most - head), count)]


def _token(trace: Trace, sequence: torch.Tensor, number: int, place: int | None) -> str:
    if place is None:
        return "…"
    token = int(sequence[place])
    if token == trace.mask_id:
        return '<span style="opacity:.45">·</span>'
    text = trace.text_of(token)
    text = escape(visible(text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"))
    filled = int(trace.filled_by[place])
    if not 0 <= filled < number:
        return f"<span>{text}</span>"
    share = filled / max(trace.steps - 1, 1)
    colour = ",".join(str(round(a + (b - a) * share)) for a, b in zip(_EARLY, _LATE, strict=True))
    return f'<span style="background:rgb({colour});color:#000">{text}</span>'
