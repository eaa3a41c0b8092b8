"""What the host, and the DataLoader that it makes, ask of a collator."""

import copy
import pickle
from collections.abc import Mapping
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor

from xlm_mlm.conformance.checks.collating import (
    IGNORED,
    Draw,
    Row,
    call,
    checked,
    draw,
    draw_or_refusal,
    fault,
    form,
    look_at,
    makes_its_rows,
    prompt_tokens,
    token_fields,
)
from xlm_mlm.conformance.rules import Broken, asking, rule
from xlm_mlm.conformance.survey import Part
from xlm_mlm.conformance.wiring import tensors

COLLATE_FN = (
    "xlm/datamodule.py, DatasetManager.get_dataloader: makes it the DataLoader's collate_fn"
)
BASE_BATCH = "xlm/datamodule.py, BaseBatch: what every batch holds, and of which shapes"


@rule(
    "collators-protocol",
    part="collator",
    says="A collator is called with a list of rows and returns a mapping with `input_ids`.",
    host="xlm/datamodule.py, Collator: the protocol; get_dataloader makes it the collate_fn. "
    "xlm/log_predictions.py, LogPredictions._get_ground_truth_text reads `input_ids`",
)
def protocol(part: Part) -> None:
    """Call it. What else the host's protocol declares, the host reads nowhere."""
    collator = part.wiring.collator(part.loader)
    if not callable(collator):
        raise Broken(f"the collator is a {type(collator).__name__} that can't be called", collator)
    batch = draw(part, part.wiring.rows(part.loader)).batch
    if odd := [key for key in batch if not isinstance(key, str)]:
        raise Broken(f"the keys {odd!r} of a batch are no strings", look_at(part))
    if "input_ids" not in batch:
        raise Broken(f"a batch holds {', '.join(batch)}, but no input_ids", look_at(part))


@rule(
    "collators-picklable",
    part="collator",
    says="A collator can be pickled, and its copy makes batches of the same kind.",
    host=f"{COLLATE_FN}; with num_workers > 0 workers that are spawned get it pickled",
)
def picklable(part: Part) -> None:
    """Pickle it as a whole, tokenizer and noise schedule included."""
    collator, rows = part.wiring.collator(part.loader), part.wiring.rows(part.loader)
    before = _kinds(draw(part, rows).batch)
    with asking("pickling the collator and reading it back", look_at(part)):
        other = pickle.loads(pickle.dumps(collator))
    with asking("collating with a copy that was pickled", look_at(part)):
        batch = call(other, copy.deepcopy(rows))
    _same_kinds(
        before, _kinds(checked(part, batch).batch), "in the batch of a copy that was pickled", part
    )


def _kinds(batch: Mapping[str, Any]) -> dict[str, str]:
    """What must not change from batch to batch; widths may be drawn at random."""
    return {
        key: f"{value.dtype} with {value.dim()} dimensions" if isinstance(value, Tensor) else ""
        for key, value in batch.items()
    }


def _same_kinds(one: dict[str, str], other: dict[str, str], what: str, part: Part) -> None:
    for key in sorted(one.keys() | other.keys()):
        first, then = (kinds.get(key, "not there") or "no tensor" for kinds in (one, other))
        if first != then:
            raise Broken(f"{key} was {first}; {what} it is {then}", look_at(part))


@rule(
    "collators-shapes",
    part="collator",
    says="`input_ids` is int64 (rows, positions) within the vocabulary; `attention_mask`, if there "
    "is one, has its shape, holds 0 and 1, and leaves each row a position; all have B rows.",
    host=BASE_BATCH,
)
def shapes(part: Part) -> None:
    """Batches of four rows and of one."""
    for count in (4, 1):
        rows = part.wiring.rows(part.loader, count)
        batch = draw(part, rows).batch
        if wrong := fault(part, batch, len(rows)):
            raise Broken(f"in a batch of {len(rows)} rows, {wrong}", look_at(part))


@rule(
    "collators-inputs-unchanged",
    part="collator",
    says="Collating leaves the rows as they are, so that they can be collated again.",
    host=f"{COLLATE_FN}; a dataset that keeps its rows in memory gives the same objects in every "
    "epoch",
)
def inputs_unchanged(part: Part) -> None:
    """Collate the same objects twice."""
    rows, collator = part.wiring.rows(part.loader), part.wiring.collator(part.loader)
    kinds = []
    for _ in range(2):
        before = [repr(row) for row in rows]
        with asking("collating the same rows twice", look_at(part)):
            kinds.append(_kinds(checked(part, call(collator, rows)).batch))
        for number, (text, row) in enumerate(zip(before, rows, strict=True)):
            if text != repr(row):
                raise Broken(f"row {number} was {text} and is {row!r} afterwards", look_at(part))
    _same_kinds(kinds[0], kinds[1], "the second time", part)


@rule(
    "collators-random",
    part="collator",
    says="With the generators of torch, numpy and Python seeded alike, a collator makes the same "
    "batch of the same rows.",
    host="xlm/commands/lightning_train.py, train: seeds those three with `seed`, as a DataLoader "
    "does in its workers; a generator of the collator's own is never seeded",
)
def random_draws(part: Part) -> None:
    """Two draws for each of three seeds."""
    rows = part.wiring.rows(part.loader)
    for seed in range(3):
        one, other = (_dense(draw(part, rows, seed).batch) for _ in range(2))
        for name in one.keys() & other.keys():
            if not _equal(one[name], other[name]):
                raise Broken(
                    f"{name} differs between two batches of the same rows, both drawn with the "
                    f"seed {seed}: {_beside(one[name], other[name])}",
                    look_at(part),
                )


def _dense(batch: Mapping[str, Any]) -> dict[str, Tensor]:
    return {
        name: tensor if tensor.layout == torch.strided else tensor.to_dense()
        for name, tensor in tensors(batch).items()
    }


def _equal(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are the same; a NaN equals a NaN."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return bool(((one == other) | ((one != one) & (other != other))).all())


def _beside(one: Tensor, other: Tensor) -> str:
    if form(one) != form(other):
        return f"{form(one)} and {form(other)}"
    place = tuple((one != other).nonzero()[-1].tolist())
    return f"{one[place].item()} and {other[place].item()} at {list(place)}"


@rule(
    "collators-empty",
    part="collator",
    says="A row without tokens, and a row without a prompt, give a sound batch, or a ValueError "
    "that says what is wrong.",
    host="xlm/datamodule.py, Seq2SeqCollatorInput and DefaultEmptyDataset: fields of rows may be "
    "empty",
)
def empty(part: Part) -> None:
    """Empty everything of one row, then its prompt alone. No loader gives a batch of no rows."""
    rows = (part.wiring.rows(part.loader) * 2)[:4]
    bare = {**rows[1], **{name: [] for name in token_fields(rows[1])}}
    cases = {"a row without tokens": bare}
    if all("prompt_ids" in row for row in rows):
        cases["a row with an empty prompt"] = {**rows[1], "prompt_ids": []}
    for what, row in cases.items():
        draw_or_refusal(part, [rows[0], row, *rows[2:]], f"collating {what}")


@rule(
    "collators-over-long",
    part="collator",
    says="Rows that are longer than the blocks give a batch that the model takes, in which every "
    "training row keeps a target and every row to predict some of its prompt; or a ValueError "
    "that says that they are too long.",
    host="xlm/datamodule.py, DatasetManager._preprocess: cuts no rows, so that texts of any length "
    "come to the collator, which has `block_size` to cut them to",
)
def over_long(part: Part) -> None:
    """Rows that go on past everything; a refusal is allowed, since it loses no data unseen."""
    usual = part.wiring.rows(part.loader)
    limit = _most_positions(part)
    # What the experiment makes itself is as long as it wants: only the model's limit counts.
    length = 0 if makes_its_rows(part) else 8 + max(limit or 0, 3 * sum(part.wiring.sizes.values()))
    rows = [_stretched(row, length) for row in usual]
    what = f"collating rows of {length} tokens" if length else "collating the experiment's rows"
    drawn = [draw_or_refusal(part, rows, what, seed) for seed in range(5)]
    batches = [one for one in drawn if one is not None]
    for one in batches:
        width = one.ids.shape[1]
        if limit is not None and width > limit:
            raise Broken(f"{what} gives {width} positions; the model takes {limit}", look_at(part))
        if limit is None and length and width >= length:
            raise Broken(f"{what} gives {width} positions; nothing was cut", look_at(part))
    if batches and part.loader.role == "lm" and "target_ids" not in part.subject.absent:
        _targets_left(part, rows, batches, what)
    if batches and part.loader.role == "prediction":
        _prompts_left(part, rows, batches[0], draw(part, usual), what)


def _most_positions(part: Part) -> int | None:
    """The model's `max_length`, if its config has one."""
    try:
        return int(OmegaConf.select(part.wiring.cfg, "model.max_length"))
    except Exception:
        return None


def _stretched(row: Row, length: int) -> Row:
    """A row whose fields of tokens go round until they have `length` of them."""
    fields = token_fields(row)
    longer = {name: (ids * length)[:length] for name, ids in fields.items() if len(ids) < length}
    return {**row, **longer}


def _targets_left(part: Part, rows: list[Row], batches: list[Draw], what: str) -> None:
    """One draw with a target is enough: in another, nothing may be masked."""
    for number, row in enumerate(rows):
        tokens = set(row.get("input_ids") or row.get("target_ids") or ())
        seen = {id for one in batches for id in one.targets[number].tolist()} - {IGNORED}
        if tokens and not seen & tokens:
            raise Broken(
                f"{what}: in {len(batches)} draws the targets of row {number} hold none of its "
                f"own tokens (they hold {sorted(seen)[:8] or 'only -100'}); a prompt that is too "
                "long must leave room for what is to be learned",
                look_at(part),
            )


def _prompts_left(part: Part, rows: list[Row], long: Draw, usual: Draw, what: str) -> None:
    """Only of collators that show the prompts of rows that fit."""
    for number, row in enumerate(rows):
        tokens = prompt_tokens(part, row)
        if tokens & set(usual.ids[number].tolist()) and not tokens & set(long.ids[number].tolist()):
            raise Broken(f"{what}: nothing of row {number}'s prompt is left", look_at(part))
