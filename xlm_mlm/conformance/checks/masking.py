"""What collators hide and what they ask for: masks and targets."""

import copy
from collections.abc import Sequence

import torch
from omegaconf import OmegaConf
from torch import Tensor

from xlm_mlm.conformance.adapter import overridden
from xlm_mlm.conformance.checks.collating import (
    IGNORED,
    INTEGERS,
    Draw,
    Row,
    draw,
    look_at,
    makes_its_rows,
    prompt_tokens,
    token_fields,
)
from xlm_mlm.conformance.made_up import infill_rows
from xlm_mlm.conformance.rules import Broken, rule
from xlm_mlm.conformance.survey import Part

# A mask rate is often drawn for each row: ten draws show a row both with few and many masks.
DRAWS = 10
BATCHES = "xlm/harness.py, Harness.compute_loss: hands the batches of a loader as they are to the "


@rule(
    "collators-masks",
    part="collator",
    needs=("mask_token",),
    says="Masks stand only where they are allowed: not in prompts, not in padding, not where an "
    "infilling row shows a token, and in a row to predict exactly as many as it asks for.",
    host=f"{BATCHES} loss or to the predictor, which take every mask for a token to be found",
)
def masks(part: Part) -> None:
    """Draw several batches of the same rows."""
    rows = _shortened(part, part.wiring.rows(part.loader))
    batches = [draw(part, rows, seed) for seed in range(DRAWS)]
    _padding_is_bare(part, batches)
    _prompts_are_shown(part, rows, batches)
    if part.loader.role == "prediction":
        _nothing_is_added(part, rows, batches)
        _masked_prompts(part, rows, batches)
    elif part.loader.role == "lm":
        _only_marked_are_masked(part, rows, batches)


def _shortened(part: Part, rows: list[Row]) -> list[Row]:
    """Half of each row that the experiment makes itself, so that a batch has room for padding."""
    if not makes_its_rows(part):
        return rows
    halves = [
        {**row, **{name: ids[: (len(ids) + 1) // 2] for name, ids in token_fields(row).items()}}
        for row in rows
    ]
    try:
        part.wiring.collator(part.loader)(copy.deepcopy(halves))
    except Exception:
        # It may take only rows of the length that was asked for.
        return rows
    return halves


def _padding_is_bare(part: Part, batches: Sequence[Draw]) -> None:
    for one in batches:
        places = (one.masked & ~one.attended).nonzero().tolist()
        if places:
            raise Broken(
                f"masks stand in the padding, where attention_mask is 0: at {places[:3]}",
                look_at(part),
            )


def _shows_prompts(part: Part, rows: list[Row], batches: Sequence[Draw]) -> bool:
    """Whether anything of a prompt is in any batch; collators that know no prompts leave it."""
    return any(
        prompt_tokens(part, row) & set(ids)
        for one in batches
        for row, ids in zip(rows, one.ids.tolist(), strict=True)
    )


def _prompts_are_shown(part: Part, rows: list[Row], batches: Sequence[Draw]) -> None:
    for seed, one in enumerate(batches if _shows_prompts(part, rows, batches) else ()):
        for number, (row, ids) in enumerate(zip(rows, one.ids.tolist(), strict=True)):
            lost = sorted(prompt_tokens(part, row) - set(ids))
            # Two more for BOS and EOS.
            if lost and len(row["prompt_ids"]) + 2 <= len(ids):
                raise Broken(
                    f"in draw {seed} of {len(batches)}, row {number} lacks the tokens {lost} of "
                    f"its prompt {row['prompt_ids']} (it has {int(one.masked[number].sum())} "
                    "masks); all of a prompt that fits must be shown",
                    look_at(part),
                )


def _marks(part: Part, row: Row) -> int:
    """How many masks a row holds; where two fields hold masks, they hold the same."""
    mask = part.wiring.tokenizer.mask_token_id
    return max((ids.count(mask) for ids in token_fields(row).values()), default=0)


def _nothing_is_added(part: Part, rows: list[Row], batches: Sequence[Draw]) -> None:
    """As many masks as the row has. A row without any may be given a block of them to fill."""
    for number, row in enumerate(rows):
        asked = _marks(part, row)
        found = sorted({int(one.masked[number].sum()) for one in batches})
        if len(found) > 1:
            raise Broken(
                f"row {number} has {found[0]} to {found[-1]} masks in {len(batches)} draws, so "
                "they are drawn at random; a row to predict holds those that it asks for",
                look_at(part),
            )
        if asked and found != [asked]:
            raise Broken(
                f"row {number} holds {asked} masks, and {found[0]} in the batch: "
                f"{batches[0].ids[number].tolist()}; as many tokens as were asked for must come "
                "out",
                look_at(part),
            )


def _masked_prompts(part: Part, rows: list[Row], batches: Sequence[Draw]) -> None:
    """Prompts with masks in them, to a collator that takes prompts and appends no masks."""
    plain = all("prompt_ids" in row and not _marks(part, row) for row in rows)
    appends = any(bool(one.masked.any()) for one in batches)
    if not plain or appends or overridden(part.subject.adapter, "rows"):
        return
    if not _shows_prompts(part, rows, batches):
        return
    # Rows of four tokens, which fit wherever a prompt fits; other fields stay as they are.
    short = infill_rows({"block_size": 6}, len(rows))
    marked = [{**row, **few} for row, few in zip(rows, short, strict=True)]
    drawn = [draw(part, marked, seed, "prompts with masks in them") for seed in range(DRAWS)]
    _nothing_is_added(part, marked, drawn)


def _only_marked_are_masked(part: Part, rows: list[Row], batches: Sequence[Draw]) -> None:
    """Of rows that mark what may be masked: the rest is shown, and no mask is added."""
    special = set(part.wiring.tokenizer.all_special_ids)
    for number, row in enumerate(rows):
        asked = _marks(part, row)
        given = set(row.get("prompt_ids") or ()) - special
        for seed, one in enumerate(batches if asked else ()):
            ids, count = one.ids[number].tolist(), int(one.masked[number].sum())
            fits = len(row["prompt_ids"]) + 2 <= len(ids)
            if count > asked or (fits and given - set(ids)):
                raise Broken(
                    f"in draw {seed} of {len(batches)}, row {number} is {ids}, with {count} masks; "
                    f"its prompt_ids {row['prompt_ids']} allow {asked} and show the rest",
                    look_at(part),
                )


@rule(
    "collators-targets",
    part="collator",
    role="lm",
    needs=("target_ids",),
    says="In a training batch every target is -100, a token of the row, or a special token.",
    host=f"{BATCHES} loss; what is no token of the row would be learned as if it were",
)
def targets(part: Part) -> None:
    """Look for tokens that come from nowhere."""
    rows = part.wiring.rows(part.loader)
    allowed = {IGNORED, *part.wiring.tokenizer.all_special_ids}
    for seed in range(DRAWS):
        found = draw(part, rows, seed).targets
        for number, row in enumerate(rows):
            own = {id for ids in token_fields(row).values() for id in ids}
            if strange := set(found[number].tolist()) - own - allowed:
                raise Broken(
                    f"the targets of row {number} hold {sorted(strange)[:8]}; a target is one of "
                    f"the row's tokens {sorted(own)}, a special token, or -100",
                    look_at(part),
                )


@rule(
    "collators-aligned-targets",
    part="collator",
    role="lm",
    needs=("target_ids", "aligned_targets"),
    says="In a training batch targets stand where their tokens stand: the input with its targets "
    "put in is the row again.",
    host=f"{BATCHES} loss, which compares the logits of a position with the target there",
)
def aligned_targets(part: Part) -> None:
    """Put the targets in, and look for the row's tokens; a mask without a target fits any."""
    rows = part.wiring.rows(part.loader)
    for seed in range(DRAWS):
        one = draw(part, rows, seed)
        if one.targets.shape != one.ids.shape:
            shapes = f"{tuple(one.targets.shape)}, input_ids {tuple(one.ids.shape)}"
            raise Broken(f"target_ids is {shapes}; the two must be of one shape", look_at(part))
        whole = torch.where(one.targets == IGNORED, one.ids, one.targets)
        for number, row in enumerate(rows):
            _stands_in(part, row, one, whole[number], number)


def _stands_in(part: Part, row: Row, one: Draw, whole: Tensor, number: int) -> None:
    tokenizer = part.wiring.tokenizer
    ids = whole.tolist()
    for name, tokens in token_fields(row).items():
        told = set(tokens) - set(tokenizer.all_special_ids)
        if tokenizer.mask_token_id in tokens or not told & set(ids):
            continue
        if not _found(tokens, ids, tokenizer.mask_token_id):
            raise Broken(
                f"{name} of row {number} is {tokens}; the input {one.ids[number].tolist()} with "
                f"the targets {one.targets[number].tolist()} put in is {ids}, in which those "
                "tokens do not stand in their order",
                look_at(part),
            )


def _found(tokens: list[int], ids: list[int], mask: int) -> bool:
    """Whether `tokens` stand in `ids` in one piece, the end cut only if BOS and EOS need room."""
    kept = tokens[: max(min(len(tokens), len(ids) - 2), 1)]
    return any(
        all(there in (token, mask) for token, there in zip(kept, ids[start:], strict=False))
        for start in range(len(ids) - len(kept) + 1)
    )


@rule(
    "collators-prediction-targets",
    part="collator",
    role="prediction",
    says="In a batch to predict, what the host decodes as the right answer holds token ids only, "
    "never -100.",
    host="xlm/log_predictions.py, LogPredictions._get_ground_truth_text: decodes the field that "
    "`inject_target` names, and a tokenizer raises for ids that it does not have",
)
def prediction_targets(part: Part) -> None:
    """The field that the experiment has decoded; if it names none, `target_ids`."""
    named = OmegaConf.select(part.wiring.cfg, "log_predictions.inject_target")
    name = named or "target_ids"
    found = draw(part, part.wiring.rows(part.loader)).batch.get(name)
    if not isinstance(found, Tensor) or (not named and found.dtype not in INTEGERS):
        # The host writes an empty answer where there is none.
        return
    size = len(part.wiring.tokenizer)
    if strange := sorted({id for id in found.flatten().tolist() if not 0 <= id < size}):
        raise Broken(
            f"{name} holds {strange[:5]}; it must hold ids from 0 to {size - 1}, padding included",
            look_at(part),
        )
