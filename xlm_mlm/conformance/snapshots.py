"""What a dict held, to be compared with what it holds later."""

from collections.abc import Mapping
from typing import Any

import torch


def snapshot(value: Any) -> Any:
    """A copy of tensors and of the containers they are in; anything else as it is."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, Mapping):
        return {key: snapshot(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [snapshot(inner) for inner in value]
    return value


def changes(before: Any, after: Any, name: str = "") -> list[str]:
    """What differs from a snapshot, in words; empty if nothing does."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        found = [f"{_entry(name, key)} is gone" for key in before if key not in after]
        found += [f"{_entry(name, key)} is new" for key in after if key not in before]
        for key in before:
            if key in after:
                found += changes(before[key], after[key], _entry(name, key))
        return found
    if isinstance(before, list) and isinstance(after, list | tuple):
        if len(before) != len(after):
            return [f"{name} has {len(after)} entries, before {len(before)}"]
        pairs = enumerate(zip(before, after, strict=True))
        return [one for i, (x, y) in pairs for one in changes(x, y, f"{name}[{i}]")]
    if isinstance(before, torch.Tensor):
        return _tensor_changes(before, after, name)
    return [] if _same(before, after) else [f"{name} is {after!r:.80}, before {before!r:.80}"]


def _entry(name: str, key: Any) -> str:
    return f"{name}[{key!r}]" if name else str(key)


def _tensor_changes(before: torch.Tensor, after: Any, name: str) -> list[str]:
    if not isinstance(after, torch.Tensor):
        return [f"{name} is {type(after).__name__}, before a tensor"]
    if (before.shape, before.dtype) != (after.shape, after.dtype):
        now, then = (f"{t.dtype} {tuple(t.shape)}" for t in (after, before))
        return [f"{name} is {now}, before {then}"]
    old, new = (t.detach().to_dense() if t.layout != torch.strided else t for t in (before, after))
    # NaN is not equal to itself, though nothing changed.
    different = (old != new) & ~((old != old) & (new != new))
    if not different.any():
        return []
    place = tuple(different.nonzero()[0].tolist())
    values = f"{old[place].item()!r} became {new[place].item()!r}"
    count = int(different.sum())
    return [f"{name} changed at {count} of {old.numel()} places, first at {list(place)}: {values}"]


def _same(before: Any, after: Any) -> bool:
    if before is after:
        return True
    try:
        return bool(before == after)
    except Exception:  # what can't be compared is not the same object either
        return False
