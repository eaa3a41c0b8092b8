"""Where a batch stands between two passes; what decides control flow stays on the CPU."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Bool, Integer
from torch import Tensor

from xlm_mlm.modeling.masks import fault_of_ids, segment_block_mask, validity
from xlm_mlm.modeling.rotary import derived_positions
from xlm_mlm.types_mlm import MLMBatch, MLMStepResults


def begin(batch: MLMBatch, mask_id: int, new_tokens: int) -> MLMStepResults:
    """State before the first pass: the batch, with `new_tokens` masks appended to every row.

    Raises:
        KeyError: the batch has no `input_ids`.
        ValueError: a field that does not fit, or masks to be appended to a packed batch.
    """
    _check_batch(batch)
    block_mask = batch.get("block_mask")
    if block_mask is None and batch.get("segment_ids") is not None:
        block_mask = segment_block_mask(batch["segment_ids"])
    if new_tokens and block_mask is not None:
        raise ValueError(
            f"max_new_tokens is {new_tokens}, but the batch is packed: nothing can be appended "
            "behind several segments; leave max_new_tokens None to fill masks in place"
        )
    x, attention_mask, positions = _append(batch, mask_id, new_tokens)
    masked = (x == mask_id).cpu()
    rows = len(x)
    return {
        "x": x,
        "attention_mask": attention_mask,
        "positions": positions,
        "block_mask": block_mask,
        "logits": None,
        "masked": masked,
        "filled": torch.zeros_like(masked),
        "taken_back": torch.zeros_like(masked),
        "generated": masked.clone(),
        "steps_taken": torch.zeros(rows, dtype=torch.long),
        "done": ~masked.any(dim=1),
        "active": torch.zeros(rows, dtype=torch.bool),
        "current_step": 0,
        "places": _places(x, attention_mask),
        "allowed": batch.get("allowed_tokens"),
    }


def _check_batch(batch: Any) -> None:
    if not isinstance(batch, Mapping):
        raise ValueError(f"the batch is a {type(batch).__name__}; it must be a mapping of tensors")
    if batch.get("input_ids") is None:
        raise KeyError(
            "prediction needs 'input_ids', which the batch does not have (or has as None); its "
            f"fields: {', '.join(sorted(batch)) or 'none'}"
        )
    shapes: dict[str, Any] = {}
    for name in ("input_ids", "attention_mask", "positions", "segment_ids"):
        value = batch.get(name)
        fault = "" if value is None else fault_of_ids(value)
        # A mask may be of booleans; what else may not is said where it is used.
        if fault and (name == "input_ids" or not fault.startswith("a tensor of")):
            kind = "a tensor of integers" if name == "input_ids" else "a tensor"
            raise ValueError(f"{name} is {fault}; it must be {kind}")
        shapes[name] = None if value is None else tuple(value.shape)
    size = shapes["input_ids"]
    if len(size) != 2 or size[0] == 0:
        raise ValueError(
            f"input_ids are {batch['input_ids'].dtype} of shape {size}; they must be integers of "
            "shape (batch, length), batch not 0"
        )
    allowed = {
        "attention_mask": [size, (*size, size[1])],
        "positions": [size, (1, size[1])],
        "segment_ids": [size],
    }
    for name, right in allowed.items():
        if shapes[name] is not None and shapes[name] not in right:
            raise ValueError(
                f"{name} has shape {shapes[name]}; for input_ids of shape {size} it must be "
                f"{' or '.join(map(str, right))}"
            )


def _append(
    batch: MLMBatch, mask_id: int, count: int
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    x = batch["input_ids"]
    valid, positions = batch.get("attention_mask"), batch.get("positions")
    if valid is not None:
        valid = validity(valid, *x.shape)
    if not count:
        return x.clone(), valid, positions
    x = torch.cat((x, x.new_full((len(x), count), mask_id)), dim=1)
    if valid is not None:
        if valid.ndim != 2:
            raise ValueError(
                f"attention_mask has shape {tuple(valid.shape)}; when masks are appended it must "
                "be (batch, length)"
            )
        valid = torch.cat((valid, valid.new_ones(len(x), count)), dim=1)
    if positions is not None and not positions.shape[1]:
        raise ValueError("positions are given for an empty prompt; leave them out")
    if positions is not None:
        following = torch.arange(1, count + 1, device=positions.device)
        positions = torch.cat((positions, positions[:, -1:] + following), dim=1)
    return x, valid, positions


def checked_sample_ids(given: Any, rows: int) -> Integer[Tensor, "{rows}"]:
    """The `sample_ids` of a batch, on the CPU.

    Raises:
        ValueError: they are not one integer of at least 0 for each row.
    """
    wrong = ValueError(
        f"sample_ids are {given}; they must be {rows} integers of at least 0, one a row"
    )
    try:
        ids = given.cpu() if isinstance(given, Tensor) else torch.tensor(list(given))
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise wrong from None
    whole = not (ids.is_floating_point() or ids.dtype == torch.bool)
    if ids.shape != (rows,) or not whole or (ids < 0).any():
        raise wrong
    return ids.long()


def advance(
    state: MLMStepResults,
    before: Bool[Tensor, "B L"],
    chosen: Integer[Tensor, "N"],
    tokens: Integer[Tensor, "N"],
    logits: Tensor | None,
) -> MLMStepResults:
    """State after a pass that put `tokens` at the flat positions `chosen` (on the CPU).

    `before` are the masks that the pass began with.
    """
    x = state["x"].clone()
    x.view(-1)[chosen.to(x.device)] = tokens.to(x.dtype)
    filled = torch.zeros_like(before)
    filled.view(-1)[chosen] = True
    masked = before & ~filled
    active = before.any(dim=1)
    return {
        **state,
        "x": x,
        "logits": logits,
        "masked": masked,
        "filled": filled,
        "taken_back": torch.zeros_like(before),
        "steps_taken": state["steps_taken"] + active.long(),
        "done": ~masked.any(dim=1),
        "active": active,
        "current_step": state["current_step"] + 1,
    }


def take_back(state: MLMStepResults, places: Integer[Tensor, "N"], mask_id: int) -> MLMStepResults:
    """State in which committed tokens, at flat positions on the CPU, are masks again."""
    if not len(places):
        return state
    x, masked = state["x"].clone(), state["masked"].clone()
    x.view(-1)[places.to(x.device)] = mask_id
    taken_back = torch.zeros_like(masked)
    masked.view(-1)[places] = taken_back.view(-1)[places] = True
    done = ~masked.any(dim=1)
    return {**state, "x": x, "masked": masked, "taken_back": taken_back, "done": done}


def generated(state: MLMStepResults, masked: Bool[Tensor, "B L"]) -> Bool[Tensor, "B L"]:
    """The positions that were not given, on the CPU; of a state made by hand, its masks."""
    return state.get("generated", masked)


def places_of(state: MLMStepResults) -> Integer[Tensor, "B L"]:
    """Where each position stands in its sample, on the CPU; its column, in a state made by hand."""
    if "places" in state:
        return state["places"]
    return torch.arange(state["x"].shape[1]).expand(state["x"].shape)


def masks_left(state: MLMStepResults, mask_id: int) -> Bool[Tensor, "B L"]:
    """The masks still to fill, on the CPU; looked up in `x` if no pass has noted them yet."""
    return state["masked"] if "masked" in state else (state["x"] == mask_id).cpu()


def at_work(state: MLMStepResults, rows: Integer[Tensor, "A"]) -> dict[str, Any]:
    """The model's arguments for some rows only, so that finished ones cost nothing.

    A packed batch keeps all its rows: a `BlockMask` is built for a whole batch.
    """
    names = {"x": "x_t", "attention_mask": "attention_mask", "positions": "positions"}
    inputs: dict[str, Any] = {to: state.get(name) for name, to in names.items()}
    inputs["block_mask"] = state.get("block_mask")
    if inputs["block_mask"] is None and len(rows) < len(state["x"]):
        picked = rows.to(state["x"].device)
        for name in names.values():
            value = inputs[name]
            if value is not None and len(value) > 1:
                inputs[name] = value[picked]
    return inputs


def _places(x: Tensor, valid: Tensor | None) -> Integer[Tensor, "B L"]:
    """Where each position stands in its sample, padding not counted, on the CPU.

    Random numbers are looked up by it, so that padding to a longer neighbour changes none.
    """
    if valid is None or valid.ndim != 2:
        return torch.arange(x.shape[1]).expand(x.shape)
    return derived_positions(valid.cpu())
