"""A trace as a table, one row for each pass and position."""

from typing import Any

import torch

from xlm_mlm.history.trace import Trace


def to_dataframe(trace: Trace) -> Any:
    """The table that `Trace.to_dataframe` describes."""
    import pandas

    steps, length = trace.x.shape
    sequences = torch.cat((trace.before[None], trace.x))
    columns: dict[str, Any] = {
        "pass": torch.arange(steps).repeat_interleave(length).numpy(),
        "position": torch.arange(length).repeat(steps).numpy(),
        "token_id": trace.x.flatten().numpy(),
        "token": _texts(trace, trace.x),
        "masked": trace.masked.flatten().numpy(),
        "filled": (sequences[1:] != sequences[:-1]).flatten().numpy(),
        "entropy": _widen(trace, trace.entropy, torch.nan).flatten().numpy(),
    }
    unknown = ~trace.masked
    unknown[:, : trace.first] = True
    for rank in range(trace.p.shape[2]):
        ids = _widen(trace, trace.pids[..., rank], -1).masked_fill(unknown, -1)
        p = _widen(trace, trace.p[..., rank], torch.nan).masked_fill(unknown, torch.nan)
        columns[f"top_{rank + 1}"] = _texts(trace, ids)
        columns[f"top_{rank + 1}_id"] = pandas.array(ids.flatten().tolist(), dtype="Int64")
        columns[f"top_{rank + 1}_id"][unknown.flatten().numpy()] = pandas.NA
        columns[f"top_{rank + 1}_p"] = p.flatten().numpy()
    return pandas.DataFrame(columns)


def _widen(trace: Trace, values: Any, missing: float) -> Any:
    """Values of the recorded positions as those of all."""
    outside = values.new_full((trace.steps, trace.first), missing)
    return torch.cat((outside, values), dim=1)


def _texts(trace: Trace, ids: Any) -> Any:
    import pandas

    texts = [None if each < 0 else trace.text_of(each) for each in ids.flatten().tolist()]
    # As they are: pandas' own strings refuse half a surrogate pair.
    return pandas.Series(texts, dtype=object)
