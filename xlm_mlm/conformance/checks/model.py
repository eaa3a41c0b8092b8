"""What the host asks of a model: what goes in and what comes out.

Shapes: B = rows, L = positions, V = vocabulary size.
"""

import inspect

import torch
import xlm.model
from hydra.utils import get_object
from torch import Tensor

from xlm_mlm.conformance.adapter import overridden
from xlm_mlm.conformance.calling import (
    ADVICE,
    arguments,
    call,
    expect_same,
    expect_usable,
    forward_parameters,
    fresh_model,
    lengths,
    logits,
    words,
)
from xlm_mlm.conformance.rules import Broken, CannotRun, asking, rule
from xlm_mlm.conformance.survey import Part
from xlm_mlm.conformance.wiring import tensors

HOST_MODEL = "xlm/model.py, Model: the harness asks it for its parameters and the hub for weights"
TEMPLATE = "xlm/commands/scaffold_model.py, the Model protocol of its template of a family: "
PREDICTION = "xlm/harness.py, Harness.on_validation_epoch_start: predictions are made in eval mode"


@rule(
    "model-base-class",
    part="model",
    says="The model is a torch module and derives from the host's `xlm.model.Model`.",
    host=HOST_MODEL,
)
def base_class(part: Part) -> None:
    """Look at the class."""
    with asking("importing the model"):
        target = get_object(part.wiring.plain.model._target_)
    if missing := sorted(getattr(target, "__abstractmethods__", ())):
        raise Broken(
            f"{target.__name__} is abstract: it lacks {', '.join(missing)}; the host builds it",
            target,
        )
    model = part.wiring.harness().model
    for base in (torch.nn.Module, xlm.model.Model):
        if not isinstance(model, base):
            raise Broken(f"{type(model).__name__} does not derive from {base.__qualname__}", model)


@rule(
    "model-logits-shape",
    part="model",
    says="The model gives a finite logit for every token of the vocabulary at every position.",
    host=TEMPLATE + "ids (batch, seq_len) give logits (batch, seq_len, vocab_size)",
)
def logits_shape(part: Part) -> None:
    """Call it on rows of one length, and look at shape, dtype and values."""
    model, vocabulary = fresh_model(part), len(part.wiring.tokenizer)
    ids = words(4, lengths(part)[0])
    with torch.no_grad():
        found = call(part, model, ids, torch.ones_like(ids, dtype=torch.bool), "rows of one length")
    if not isinstance(found, Tensor):
        raise CannotRun(
            f"calling the model gives a {type(found).__name__}, not a tensor of logits; {ADVICE}"
        )
    right = f"(4, {ids.shape[1]}, V) with V at least {vocabulary}, the length of the tokenizer"
    fits = found.ndim == 3 and found.shape[:2] == ids.shape and found.shape[2] >= vocabulary
    if not fits:
        raise Broken(
            f"ids (4, {ids.shape[1]}) give logits {tuple(found.shape)}; they must be {right}",
            model.forward,
        )
    if not found.is_floating_point():
        raise Broken(f"the logits are {found.dtype}; they must be floating", model.forward)
    expect_usable(found, "of rows without padding", model.forward)


@rule(
    "model-optional-arguments",
    part="model",
    says="An argument of `forward` that has a default may be left out.",
    host=TEMPLATE + "`attention_mask` and `positions` are None by default",
)
def optional_arguments(part: Part) -> None:
    """Repeat a call without padding, leaving out each optional argument, then all of them."""
    model = fresh_model(part)
    ids = words(4, lengths(part)[0])
    calls: list[tuple[tuple, dict]] = []
    hook = model.register_forward_pre_hook(
        lambda _, args, kwargs: calls.append((args, kwargs)), with_kwargs=True
    )
    try:
        expected = logits(part, model, ids)
    finally:
        hook.remove()
    if not calls:
        raise CannotRun("the adapter's call_model does not call the model itself; it should")
    _, *further = forward_parameters(model).values()
    bound = inspect.signature(model.forward).bind(*calls[0][0], **calls[0][1])
    optional = [
        parameter.name
        for parameter in further
        if parameter.name in bound.arguments and parameter.default is not inspect.Parameter.empty
    ]
    for dropped in [*((name,) for name in optional), tuple(optional)]:
        kept = {name: value for name, value in bound.arguments.items() if name not in dropped}
        call_again = inspect.BoundArguments(bound.signature, kept)  # type: ignore[arg-type]
        how = f"calling {type(model).__name__} without {' and '.join(dropped) or 'options'}"
        with torch.no_grad(), asking(how, model.forward):
            found = model(*call_again.args, **call_again.kwargs)
        # What an adapter passes may mean something: a causal mask, for example.
        if not overridden(part.subject.adapter, "call_model"):
            what = f"{how}, and with all tokens attended and positions counted from 0"
            expect_same(found, expected, what, model.forward)


def _needs_mask(part: Part, model: torch.nn.Module) -> None:
    """Say so if a model takes no mask."""
    if overridden(part.subject.adapter, "call_model"):
        return
    if "attention_mask" not in arguments(model, torch.ones(1, 1, dtype=torch.bool)):
        raise CannotRun(
            f"`forward` of {type(model).__name__} has no parameter `attention_mask`. If it takes "
            f"a mask otherwise, {ADVICE}; if none, declare `attention_mask` absent there"
        )


def _masks(part: Part) -> list[Tensor]:
    """The attention masks of the batches that the experiment's collators make, of shape (B, L)."""
    found = []
    for loader in part.wiring.loaders:
        try:
            mask = tensors(part.wiring.batch(loader)).get("attention_mask")
        except CannotRun:  # collators have rules of their own
            continue
        if mask is not None and mask.ndim == 2:
            found.append(mask)
    return found


def _partial_masks(length: int) -> Tensor:
    """Padding on the right, on the left, a hole, and everything attended (4, L)."""
    seen = torch.ones(4, length, dtype=torch.bool)
    seen[0, length - length // 3 :] = False
    seen[1, : length // 3] = False
    seen[2, length // 2 : length // 2 + max(length // 4, 1)] = False
    return seen


@rule(
    "model-attention-mask",
    part="model",
    needs=("attention_mask",),
    says="Logits at attended positions are finite, and don't depend on what is masked out.",
    host=TEMPLATE + "`attention_mask` is true for tokens that are not padding",
)
def attention_mask(part: Part) -> None:
    """Put other tokens where a partial mask is false; try the dtypes that collators emit."""
    model = fresh_model(part)
    _needs_mask(part, model)
    length = lengths(part)[0]
    seen, ids = _partial_masks(length), words(4, length)
    others = torch.where(seen, ids, words(4, length, seed=1))
    on = "a batch with a partial attention mask"
    expected = logits(part, model, ids, seen, on)[seen]
    expect_usable(expected, f"at attended positions of {on}", model.forward)
    found = logits(part, model, others, seen, on)[seen]
    what = "attended positions, with two choices of tokens where the attention mask is false"
    expect_same(found, expected, what, model.forward)
    if overridden(part.subject.adapter, "call_model"):
        return
    for dtype in sorted({mask.dtype for mask in _masks(part)} - {torch.bool}, key=str):
        on = f"a partial attention mask of {dtype}, which the experiment's collators emit"
        found = logits(part, model, ids, seen.to(dtype), on)[seen]
        expect_same(found, expected, f"{on}, and the same mask of torch.bool", model.forward)


def _pads_left(part: Part, model: torch.nn.Module) -> bool:
    """Whether the model can be told positions, or some collator pads on the left."""
    if "positions" in forward_parameters(model):
        return True
    return any(bool((~mask.bool()[:, 0]).any()) for mask in _masks(part))


@rule(
    "model-padding",
    part="model",
    needs=("attention_mask",),
    says="A padded row has the logits that it has without padding.",
    host="xlm/datamodule.py, pad_truncate and pad_left_truncate: rows of a batch are padded, and "
    "prompts often on the left",
)
def padding(part: Part) -> None:
    """Compare rows of several lengths in one batch with each of them alone."""
    model = fresh_model(part)
    _needs_mask(part, model)
    rows = [words(1, length, seed=number)[0] for number, length in enumerate(lengths(part))]
    width, fill = max(map(len, rows)), part.wiring.tokenizer.pad_token_id
    for left in (False, True) if _pads_left(part, model) else (False,):
        side = "left" if left else "right"
        ids = torch.full((len(rows), width), fill)
        for number, row in enumerate(rows):
            ids[number, width - len(row) if left else 0 :][: len(row)] = row
        seen = ids != fill
        found = logits(part, model, ids, seen, f"a batch padded on the {side}")
        for number, row in enumerate(rows):
            expected = logits(part, model, row[None], on="one row without padding")[0]
            what = f"a row of {len(row)} tokens padded on the {side} to {width}, and without"
            expect_same(found[number][seen[number]], expected, what, model.forward)


@rule(
    "model-batch",
    part="model",
    says="A row has the same logits whatever else is in its batch.",
    host="xlm/harness.py, Harness.predict_step: rows are predicted in batches of whatever size",
)
def batch(part: Part) -> None:
    """Compare rows of one length in a batch with each of them alone."""
    model = fresh_model(part)
    ids = words(4, lengths(part)[0])
    found = logits(part, model, ids)
    for row, its_logits in zip(ids, found, strict=True):
        expected = logits(part, model, row[None], on="one row")[0]
        expect_same(its_logits, expected, "a row in a batch of 4, and alone", model.forward)


@rule(
    "model-deterministic",
    part="model",
    says="In eval mode the same ids give the same logits, whatever was drawn or called before.",
    host=PREDICTION,
)
def deterministic(part: Part) -> None:
    """Call it twice with two states of torch's generator, and other rows in between."""
    model = fresh_model(part)
    length = lengths(part)[0]
    ids, others = words(4, length), words(2, max(length // 2, 1), seed=1)
    torch.manual_seed(0)
    expected = logits(part, model, ids)
    torch.manual_seed(1)
    found = logits(part, model, ids)
    expect_same(found, expected, "two calls in eval mode, from two seeds", model.forward)
    logits(part, model, others)
    torch.manual_seed(0)
    found = logits(part, model, ids)
    what = "two calls in eval mode, with shorter rows in between"
    expect_same(found, expected, what, model.forward)
