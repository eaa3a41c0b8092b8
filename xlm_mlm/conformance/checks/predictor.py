"""What the host asks of a predictor, and what it relies on without asking."""

import inspect
import json
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from typing import Any

import hydra
import torch
from torch import Tensor

from xlm_mlm.conformance.made_up import prompt_words
from xlm_mlm.conformance.predicting import (
    attended,
    given,
    hooked,
    ids_of,
    inputs_of,
    love_of,
    network,
    passes,
    predicted,
    run_predict,
)
from xlm_mlm.conformance.rules import Broken, CannotRun, NothingHere, asking, preparing, rule
from xlm_mlm.conformance.snapshots import snapshot
from xlm_mlm.conformance.survey import Part

WIRING = "xlm/harness.py, Harness.instantiate_predictor"
CALLING = "xlm/harness.py, Harness.compute_loss"
STEP = "xlm/harness.py, Harness._step"
PROTOCOL = "xlm/harness.py, Predictor (the protocol)"
LOGGING = "xlm/log_predictions.py, LogPredictions and FilePredictionWriter"


@rule(
    "predictor-protocol",
    part="predictor",
    says="The predictor has `tokenizer`, `model`, `noise_schedule`, `predict` and `to_dict`, and "
    "takes the arguments that the host passes by position.",
    host=f"{WIRING} reads the three attributes and sets those that are None; {CALLING} calls "
    "predict(batch, batch_idx, dataloader_idx, dataloader_name), LogPredictions.__call__ "
    "to_dict(batch, preds)",
)
def protocol(part: Part) -> None:
    """Build it, alone if the host can't, look at its attributes, and call it as the host does."""
    try:
        predictor = part.wiring.harness().predictor
    except CannotRun:
        with suppress(CannotRun):
            _look_for_attributes(_alone(part))
        raise
    _look_for_attributes(predictor)
    for name, arguments in (("predict", 4), ("to_dict", 2), ("to_dict", 5)):
        _look_at_signature(predictor, name, arguments)
    batch = part.wiring.batch(part.loader)
    with asking("predict, called as the host does,", look_at=predictor.predict):
        run_predict(part, predictor, batch)


def _alone(part: Part) -> Any:
    with preparing("building the predictor"), part.wiring.resolvers():
        return hydra.utils.instantiate(part.wiring.cfg.predictor)


def _look_for_attributes(predictor: Any) -> None:
    names = ("tokenizer", "model", "noise_schedule", "predict", "to_dict")
    missing = [name for name in names if not hasattr(predictor, name)]
    if missing:
        raise Broken(
            f"{type(predictor).__name__} has no {', '.join(missing)}; the constructor must set the "
            "attributes, to None where the host is to fill them in",
            look_at=predictor,
        )


def _look_at_signature(predictor: Any, name: str, count: int) -> None:
    method = getattr(predictor, name)
    try:
        signature = inspect.signature(method)
    except ValueError:
        return  # not written in Python
    try:
        signature.bind(*range(count))
    except TypeError as error:
        raise Broken(
            f"{name}{signature} can't be called with {count} arguments by position: {error}; the "
            "protocol has batch, "
            + "preds, " * (name == "to_dict")
            + "then batch_idx, dataloader_idx and dataloader_name, None by default",
            look_at=method,
        ) from error


@rule(
    "predictor-generate",
    part="predictor",
    needs=("generate",),
    says="`generate(prompts)` takes a list of texts and returns a list with one text for each, in "
    "their order.",
    host=f"{PROTOCOL} declares generate(prompts: List[str]) -> List[str]",
)
def generate(part: Part) -> None:
    """Ask for three prompts of different lengths."""
    predictor = part.wiring.harness().predictor
    method = getattr(predictor, "generate", None)
    if not callable(method):
        raise Broken(f"{type(predictor).__name__} has no method `generate`", look_at=predictor)
    prompts, texts = _generated(part, predictor)
    right = "; it must return a list with one text for each prompt"
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise Broken(f"generate({prompts}) gives {texts!r:.200}{right}", look_at=method)
    if len(texts) != len(prompts):
        raise Broken(f"generate gives {len(texts)} texts for {len(prompts)} prompts{right}", method)
    for text, prompt in zip(texts, prompts, strict=True):
        # Not every family repeats the prompt. A whole other one can't be there by accident.
        other = [one for one in prompts if one in text and prompt not in text]
        if other:
            raise Broken(f"the text for {prompt!r} holds the prompt {other[0]!r}: {text!r}", method)


def _generated(part: Part, predictor: Any) -> tuple[list[str], Any]:
    """Prompts, and what is generated from them."""
    words = part.wiring.tokenizer.convert_ids_to_tokens(prompt_words())
    prompts = [" ".join(words[:4]), " ".join(words[4:7]), " ".join(words[7:12])]
    asked = [prompts]
    if "mask_token" not in part.subject.absent:
        # Where an experiment only fills masks, it may refuse prompts without any.
        asked.append([f"{prompt} {part.wiring.tokenizer.mask_token}" for prompt in prompts])
    refusals = []
    for texts in asked:
        torch.manual_seed(0)
        with passes(predictor):
            try:
                return prompts, predictor.generate(list(texts))
            except Exception as error:
                refusals.append(error)
    with asking(f"generate({prompts})", look_at=predictor.generate):
        raise refusals[0]


@rule(
    "predictor-result",
    part="predictor",
    says="`predict` returns a dict with `text`, a list with one str for each row, and `ids`, "
    "integers of shape (rows, length); `loss`, if there, is None or a finite scalar tensor.",
    host=f"{STEP} reads `loss` of what predict returns, adds `metric_*` to it, and hands it to "
    "the metrics; those of xlm/metrics.py read `ids`",
)
def result(part: Part) -> None:
    """Look at what comes back."""
    predictor = part.wiring.harness().predictor
    batch = part.wiring.batch(part.loader)
    rows = len(inputs_of(batch))
    found = predicted(part, predictor, batch)
    for complaint in _complaints(found, rows):
        raise Broken(complaint, look_at=predictor.predict)


def _complaints(found: Any, rows: int) -> list[str]:
    if not isinstance(found, MutableMapping):
        return [f"predict returns {type(found).__name__}; it must be a dict"]
    missing = [key for key in ("text", "ids") if key not in found]
    if missing:
        return [f"predict returns {list(found)}; {' and '.join(missing)} must be among them"]
    text, ids, loss = found["text"], found["ids"], found.get("loss")
    wrong = []
    if not isinstance(text, list) or not all(isinstance(one, str) for one in text):
        wrong.append(f"`text` is {text!r:.80}; it must be a list of str")
    elif len(text) != rows:
        wrong.append(f"`text` has {len(text)} entries for {rows} rows")
    if not isinstance(ids, Tensor):
        return [*wrong, f"`ids` is {type(ids).__name__}; it must be a tensor of integers"]
    if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
        wrong.append(f"`ids` is of {ids.dtype}; it must be of integers")
    if ids.ndim != 2 or len(ids) != rows:
        wrong.append(f"`ids` has shape {tuple(ids.shape)}; it must be ({rows}, length)")
    scalar = isinstance(loss, Tensor) and loss.numel() == 1 and bool(loss.isfinite())
    if loss is not None and not scalar:
        wrong.append(f"`loss` is {loss!r:.80}; it must be None or a finite scalar tensor")
    return wrong


@rule(
    "predictor-vocabulary",
    part="predictor",
    says="All `ids` are ids of the tokenizer.",
    host=f"{STEP} gives `ids` to metrics that compare them with a batch's tokens, and the "
    "tokenizer (xlm/datamodule.py, Tokenizer) can decode no others",
)
def vocabulary(part: Part) -> None:
    """Compare with the size of the vocabulary."""
    predictor = part.wiring.harness().predictor
    ids = ids_of(predicted(part, predictor, part.wiring.batch(part.loader)))
    size = len(part.wiring.tokenizer)
    wrong = (ids < 0) | (ids >= size)
    if wrong.any():
        place = wrong.nonzero()[0].tolist()
        raise Broken(
            f"{int(wrong.sum())} of {ids.numel()} ids are not in the vocabulary, the first at "
            f"{place}: {ids[tuple(place)].item()}; ids must be from 0 to {size - 1}",
            look_at=predictor.predict,
        )


@rule(
    "predictor-no-mask",
    part="predictor",
    needs=("mask_token",),
    says="No mask is left among the tokens that are put out, nor is it sampled as one.",
    host=f"{STEP} compares `ids` with `target_ids`, in which there is no mask, and "
    "LogPredictions writes the text without special tokens: a mask is an answer that is missing",
)
def no_mask(part: Part) -> None:
    """Predict with a model whose likeliest token is always the mask."""
    predictor = part.wiring.harness().predictor
    batch = part.wiring.batch(part.loader)
    mask = part.wiring.tokenizer.mask_token_id
    predicted(part, predictor, snapshot(batch))
    loving = love_of(mask, len(part.wiring.tokenizer))
    what = "predict with a model whose likeliest token is the mask"
    with hooked(network(predictor), after=loving), asking(what, look_at=predictor.predict):
        found = run_predict(part, predictor, batch)
    left = (ids_of(found) == mask) & _put_out(batch, found)
    if left.any():
        raise Broken(
            f"where the mask is the model's likeliest token, {int(left.sum())} masks (id {mask}) "
            f"are left in `ids`, the first at {left.nonzero()[0].tolist()}; there must be none",
            look_at=predictor.predict,
        )


def _put_out(batch: Mapping[str, Any], found: Mapping[str, Any]) -> Tensor:
    """Where `ids` hold output: what was padding in the batch is none."""
    ids, own = ids_of(found), found.get("attention_mask")
    if isinstance(own, Tensor) and own.shape == ids.shape:
        return own.bool()
    put_out = torch.ones_like(ids, dtype=torch.bool)
    seen = attended(dict(batch))[:, : ids.shape[1]]
    put_out[:, : seen.shape[1]] = seen
    return put_out


@rule(
    "predictor-prompt",
    part="predictor",
    needs=("prompt",),
    somewhere=True,
    says="The words that are given stand in the row's `ids`, all of them and in their order.",
    host="xlm/metrics.py, seq2seq_exact_match_update_fn: `ids` are the prompt and what follows it, "
    "and are compared with `input_ids` and `target_ids`",
)
def prompt(part: Part) -> None:
    """Look for the given words of each row, with other tokens allowed between them."""
    predictor = part.wiring.harness().predictor
    batch = part.wiring.batch(part.loader)
    input_ids, words = inputs_of(batch), _given_words(part, batch)
    ids = ids_of(predicted(part, predictor, snapshot(batch))).tolist()
    for number, (row, kept) in enumerate(zip(input_ids, words, strict=True)):
        wanted, rest = row[kept].tolist(), iter(ids[number])
        # `in` goes on from where the last word was found.
        if not all(word in rest for word in wanted):
            raise Broken(
                f"row {number} was given {wanted}; its ids are {ids[number]}, which do not hold "
                "these in this order",
                look_at=predictor.predict,
            )


def _given_words(part: Part, batch: dict[str, Any]) -> Tensor:
    """Where a batch gives words."""
    tokenizer = part.wiring.tokenizer
    special = torch.tensor(tokenizer.all_special_ids)
    words = given(batch, tokenizer) & ~torch.isin(inputs_of(batch), special)
    if not words.any():
        raise NothingHere("its batch gives no words")
    return words


@rule(
    "predictor-fixed-positions",
    part="predictor",
    needs=("prompt", "fixed_positions"),
    somewhere=True,
    says="What is given stands in `ids` where it stands in `input_ids`.",
    host="xlm/metrics.py, seq2seq_exact_match_update_fn: `ids` begin with the batch's `input_ids`, "
    "and are compared with them place by place",
)
def fixed_positions(part: Part) -> None:
    """Compare place by place."""
    predictor = part.wiring.harness().predictor
    batch = part.wiring.batch(part.loader)
    _given_words(part, batch)
    input_ids, kept = inputs_of(batch), given(batch, part.wiring.tokenizer)
    ids = ids_of(predicted(part, predictor, snapshot(batch)))
    if ids.shape[1] < input_ids.shape[1]:
        raise Broken(
            f"`ids` has {ids.shape[1]} positions, `input_ids` {input_ids.shape[1]}; there must be "
            "as many at least",
            look_at=predictor.predict,
        )
    moved = (ids[:, : input_ids.shape[1]] != input_ids) & kept
    if moved.any():
        place = tuple(moved.nonzero()[0].tolist())
        raise Broken(
            f"{int(moved.sum())} given tokens are not where they were, the first at {list(place)}: "
            f"{input_ids[place].item()} was given, `ids` has {ids[place].item()}",
            look_at=predictor.predict,
        )


@rule(
    "predictor-to-dict",
    part="predictor",
    says="`to_dict` returns a list with one dict for each row, which has `text`, and which JSON "
    "can hold.",
    host=f"{LOGGING}: each dict becomes a line, json.dumps(dict), with the row's target by its "
    "place in the list; the post-hoc evaluators of xlm/tasks read `text`",
)
def to_dict(part: Part) -> None:
    """Call it as the host does, and write the dicts as JSON."""
    predictor = part.wiring.harness().predictor
    batch = part.wiring.batch(part.loader)
    rows = _rows_to_log(part, predictor, batch, {})
    for number, row in enumerate(rows):
        if not isinstance(row, dict) or not isinstance(row.get("text"), str):
            raise Broken(
                f"row {number} is {row!r:.200}; it must be a dict with a str as `text`",
                look_at=predictor.to_dict,
            )
        for key, value in row.items():
            try:
                # Python writes and reads NaN and Infinity. They are no JSON; other readers fail.
                json.dumps({key: value}, allow_nan=False)
            except (TypeError, ValueError, RecursionError) as error:
                raise Broken(
                    f"`{key}` of row {number} is {value!r:.80} ({type(value).__name__}), which "
                    f"JSON can't hold: {error}",
                    look_at=predictor.to_dict,
                ) from error


def _rows_to_log(part: Part, predictor: Any, batch: dict[str, Any], more: dict) -> list[dict]:
    found = predicted(part, predictor, batch)
    found.update(more)
    with asking("to_dict(batch, preds)", look_at=predictor.to_dict):
        rows = predictor.to_dict(batch, found)
    count = len(inputs_of(batch))
    if not isinstance(rows, list):
        raise Broken(f"to_dict returns {type(rows).__name__}; it must be a list", predictor.to_dict)
    if len(rows) != count:
        raise Broken(f"to_dict returns {len(rows)} dicts for {count} rows", predictor.to_dict)
    return rows


@rule(
    "predictor-row-metrics",
    part="predictor",
    says="What the host adds to the predictions as `metric_NAME`, one value for each row, is in "
    "the row's dict.",
    host=f"{STEP} puts metrics' values of each sample into what predict returned, and "
    "xlm/log_predictions.py, _PredictionWriter.filter_fields always keeps `metric_*`: to_dict is "
    "the only way between the two",
)
def row_metrics(part: Part) -> None:
    """Add a metric as the host does."""
    predictor = part.wiring.harness().predictor
    batch = part.wiring.batch(part.loader)
    values = [float(number) for number in range(len(inputs_of(batch)))]
    rows = _rows_to_log(part, predictor, batch, {"metric_made_up": list(values)})
    got = [row.get("metric_made_up") if isinstance(row, dict) else None for row in rows]
    if got != values:
        raise Broken(
            f"the host added metric_made_up={values}; the dicts of to_dict have {got}",
            look_at=predictor.to_dict,
        )
