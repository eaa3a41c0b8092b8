"""Rows and batches for the rules of collators."""

import copy
import random
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy
import torch
from jaxtyping import Bool, Integer
from torch import Tensor
from torch.overrides import TorchFunctionMode

from xlm_mlm.conformance.rules import Broken, CannotRun, asking
from xlm_mlm.conformance.survey import Part
from xlm_mlm.conformance.wiring import tensors
from xlm_mlm.entries import describe

IGNORED = -100
INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)

Row = dict[str, Any]


@dataclass(frozen=True)
class Draw:
    """A batch, and what is in it. B = rows, L = positions."""

    part: Part
    batch: dict[str, Any]

    @cached_property
    def ids(self) -> Integer[Tensor, "B L"]:
        """`input_ids`."""
        return self._matrix("input_ids", "see collators-shapes")

    @cached_property
    def targets(self) -> Integer[Tensor, "B L"]:
        """`target_ids`."""
        return self._matrix(
            "target_ids", "a family that has no such targets declares `target_ids` absent"
        )

    def _matrix(self, name: str, advice: str) -> Integer[Tensor, "B L"]:
        found = self.batch.get(name)
        if not isinstance(found, Tensor) or found.dim() != 2 or found.dtype not in INTEGERS:
            raise CannotRun(f"{name} is {form(found)}, not a matrix of integers; {advice}")
        return found

    @property
    def masked(self) -> Bool[Tensor, "B L"]:
        """Where the mask token stands."""
        return self.ids == self.part.wiring.tokenizer.mask_token_id

    @property
    def attended(self) -> Bool[Tensor, "B L"]:
        """Where the attention mask is set; everywhere if there is none of that shape."""
        mask = self.batch.get("attention_mask")
        if isinstance(mask, Tensor) and mask.shape == self.ids.shape:
            return mask.bool()
        return torch.ones_like(self.ids, dtype=torch.bool)


def form(thing: Any) -> str:
    """The type of something, and the shape of a tensor."""
    if isinstance(thing, Tensor):
        return f"{thing.dtype} {tuple(thing.shape)}"
    return type(thing).__name__


def look_at(part: Part) -> Any:
    """Where the collator of a part is called."""
    collator = part.wiring.collator(part.loader)
    return next(
        (vars(kind)["__call__"] for kind in type(collator).__mro__ if "__call__" in vars(kind)),
        collator,
    )


def seed_everything(seed: int) -> None:
    """Seed what the host and the workers of a DataLoader seed."""
    random.seed(seed)
    numpy.random.seed(seed)
    torch.manual_seed(seed)


def draw(part: Part, rows: list[Row], seed: int = 0, what: str = "made-up rows") -> Draw:
    """Collate copies of rows; whatever is raised breaks the rule."""
    collator, copies = part.wiring.collator(part.loader), copy.deepcopy(rows)
    with asking(f"collating {what}", look_at(part)):
        batch = call(collator, copies, seed)
    return checked(part, batch)


class _CheckedSparse(TorchFunctionMode):
    """Has the indices of sparse tensors checked, whatever their maker says.

    One that is out of range ends the process when the tensor is made dense, and the kit with it.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.sparse_coo_tensor:
            kwargs = {**(kwargs or {}), "check_invariants": True}
        return func(*args, **(kwargs or {}))


def call(collator: Callable[[list[Row]], Any], rows: list[Row], seed: int = 0) -> Any:
    """Call a collator after seeding."""
    seed_everything(seed)
    with _CheckedSparse():
        return collator(rows)


def checked(part: Part, batch: Any) -> Draw:
    """A batch, if it is one."""
    if not isinstance(batch, Mapping):
        raise Broken(f"a batch is a {type(batch).__name__}, not a mapping", look_at(part))
    return Draw(part, dict(batch))


def draw_or_refusal(part: Part, rows: list[Row], what: str, seed: int = 0) -> Draw | None:
    """Collate rows that a collator may refuse: a sound batch, or None for a plain ValueError.

    Whether a collator copes or refuses is its author's choice; an error that it did not mean to
    raise tells a user nothing of the row that is to blame.
    """
    collator, copies = part.wiring.collator(part.loader), copy.deepcopy(rows)
    try:
        batch = call(collator, copies, seed)
    except ValueError as error:
        if _is_meant(error):
            return None
        raise Broken(
            f"{what} ends by accident in {describe(error)}; either a batch or a ValueError raised "
            "on purpose, which says what is wrong with the rows, would be right",
            look_at(part),
        ) from error
    except Exception as error:
        raise Broken(
            f"{what} ends in {describe(error)}; either a batch or a ValueError that says what is "
            "wrong with the rows would be right",
            look_at(part),
        ) from error
    found = checked(part, batch)
    if wrong := fault(part, found.batch, len(rows)):
        raise Broken(f"{what} gives a batch in which {wrong}", look_at(part))
    return found


def _is_meant(error: ValueError) -> bool:
    """Whether a statement raised it, rather than `max([])` or `torch.tensor` of ragged lists."""
    frames = traceback.extract_tb(error.__traceback__)
    line = (frames[-1].line or "raise").lstrip()
    return line.startswith("raise") and len(str(error)) >= 10


def fault(part: Part, batch: dict[str, Any], rows: int) -> str:
    """What is wrong with the form of a batch; empty if nothing is."""
    ids = batch.get("input_ids")
    if not isinstance(ids, Tensor) or ids.dim() != 2 or ids.dtype != torch.int64:
        return f"input_ids is {form(ids)}; it must be an int64 tensor (rows, positions)"
    size = len(part.wiring.tokenizer)
    if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < size:
        low, high = int(ids.min()), int(ids.max())
        return f"input_ids go from {low} to {high}; the vocabulary has the ids 0 to {size - 1}"
    # One-dimensional tensors may be of tokens laid end to end, so they have no set length.
    for name, tensor in tensors(batch).items():
        if tensor.dim() >= 2 and len(tensor) != rows:
            return f"{name} is {form(tensor)}; its first size must be the {rows} rows"
    if "attention_mask" in part.subject.absent or batch.get("attention_mask") is None:
        return ""
    return _mask_fault(batch["attention_mask"], ids)


def _mask_fault(mask: Any, ids: Tensor) -> str:
    if not isinstance(mask, Tensor) or mask.dtype not in (torch.bool, *INTEGERS):
        return f"attention_mask is {form(mask)}; it must be of booleans, or of integers 0 and 1"
    if mask.shape != ids.shape:
        shapes = f"{tuple(mask.shape)}, input_ids {tuple(ids.shape)}"
        return f"attention_mask is {shapes}; the two must be of one shape"
    if not bool(((mask == 0) | (mask == 1)).all()):
        return f"attention_mask holds {sorted(set(mask.flatten().tolist()))}; only 0 and 1 may be"
    if not bool(mask.bool().any(dim=1).all()):
        row = int(mask.bool().any(dim=1).int().argmin())
        return f"row {row} has no position that is attended; at least one must be"
    return ""


def token_fields(row: Row) -> dict[str, list[int]]:
    """The fields of a row that are lists of integers."""
    return {
        name: list(value)
        for name, value in row.items()
        if isinstance(value, list | tuple) and all(isinstance(item, int) for item in value)
    }


def prompt_tokens(part: Part, row: Row) -> set[int]:
    """The tokens by which a row's prompt is known in a batch."""
    special = set(part.wiring.tokenizer.all_special_ids)
    return set(row.get("prompt_ids") or ()) - set(row.get("input_ids") or ()) - special


def makes_its_rows(part: Part) -> bool:
    """Whether the experiment itself makes the rows, so that they are as long as it wants."""
    managers = part.wiring.datamodule.dataset_managers
    return hasattr(managers[part.loader.split][part.loader.name], "dataset_constructor")
