"""What the host's metrics are fed: named in YAML as the `update_fn` of a `MetricWrapper`.

Each function takes the batch, the output of the loss or predictor, and the tokenizer (the host
passes all three) and returns the arguments of the metric's `update`. Shapes: B = batch, L =
length of a row, S = length of the answer.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor
from torchmetrics import Metric
from xlm.metrics import TokenAccuracy

from xlm_mlm.checks import require_mapping, require_token_id, shown
from xlm_mlm.likelihood.totals import check_totals
from xlm_mlm.types_mlm import IGNORE_INDEX

NO_TOKEN = -1
"""Fills up the narrower side where there is no pad token: equal to no id."""


def mean_metric_update_fn(
    batch: Mapping[str, Any], loss_dict: Mapping[str, Any], tokenizer: Any = None
) -> dict[str, Any]:
    """The loss, for a mean: `batch_loss` if there is one, else `loss`.

    Raises:
        KeyError: there is neither.
    """
    value = require_mapping("the output of the loss", loss_dict, "tensors").get("batch_loss")
    if value is None:
        value = _field(loss_dict, "loss", "the output of the loss")
    return {"value": value.detach() if isinstance(value, Tensor) else value}


def exact_match_update_fn(
    batch: Mapping[str, Any], loss_dict: Mapping[str, Any], tokenizer: Any = None
) -> dict[str, Any]:
    """Whole rows against whole targets, for an `ExactMatch`; all B rows are kept.

    Args:
        batch: `target_ids` (B, S).
        loss_dict: `ids` (B, L).
        tokenizer: with one, both sides read as padding after their first EOS.

    Returns:
        `pred` and `target`, of the wider of the two widths; the lengths are None.

    Raises:
        KeyError: a field is missing.
        ValueError: the two have different numbers of rows, or are not rows of ids.
    """
    pred, target = _ids(loss_dict), _targets(batch)
    leading = _begins_with_eos(tokenizer)
    return _exact(pred, target, tokenizer, leading)


def seq2seq_exact_match_update_fn(
    batch: Mapping[str, Any], loss_dict: Mapping[str, Any], tokenizer: Any = None
) -> dict[str, Any]:
    """The generated part against the answer, for an `ExactMatch`; all B rows are kept.

    Args:
        batch: `target_ids` (B, S).
        loss_dict: `ids` (B, L) and `output_start_idx`, where the generated part begins: an int,
            or Integer[B] with equal entries.
        tokenizer: with one, both sides read as padding after their first EOS.

    Returns:
        `pred` and `target`, of the wider of the two widths; the lengths are None.

    Raises:
        KeyError: a field is missing.
        ValueError: the starts differ or are outside the rows, the two sides have different
            numbers of rows, or are not rows of ids.
    """
    pred, target = _generated(loss_dict), _targets(batch)
    return _exact(pred, target, tokenizer, leading=False)


def infill_token_accuracy_update_fn(
    batch: Mapping[str, Any], loss_dict: Mapping[str, Any], tokenizer: Any = None
) -> dict[str, Any]:
    """Tokens filled in where the input had a mask, for a `MaskedTokenAccuracy`.

    Args:
        batch: `input_ids` (B, L), with the masks, and `target_ids` (B, S).
        loss_dict: `ids` (B, L).
        tokenizer: with a mask token. Positions after the target's first EOS do not count.

    Returns:
        `pred`, `target` and `pred_mask`, True where a token counts.

    Raises:
        KeyError: a field is missing.
        ValueError: there is no mask token, the sides have different numbers of rows, or are not
            rows of ids.
    """
    pred, target = _ids(loss_dict), _targets(batch)
    inputs = _rows(_field(batch, "input_ids", "the batch"), "input_ids")
    mask_id = require_token_id(tokenizer, "mask", "find the positions that were filled in")
    width = max(pred.shape[1], target.shape[1], inputs.shape[1])
    asked = _widen(inputs, width, NO_TOKEN) == mask_id
    return _accuracy(pred, target, asked, tokenizer, _begins_with_eos(tokenizer))


def seq2seq_token_accuracy_update_fn(
    batch: Mapping[str, Any], loss_dict: Mapping[str, Any], tokenizer: Any = None
) -> dict[str, Any]:
    """Tokens of the generated part against the answer, for a `MaskedTokenAccuracy`.

    Args:
        batch: `target_ids` (B, S).
        loss_dict: `ids` (B, L) and `output_start_idx`, as in `seq2seq_exact_match_update_fn`.
        tokenizer: with one, positions up to the target's first EOS count, or up to its last token
            where it has no EOS; without, all do.

    Returns:
        `pred`, `target` and `pred_mask`, True where a token counts.

    Raises:
        KeyError: a field is missing.
        ValueError: as in `seq2seq_exact_match_update_fn`.
    """
    pred, target = _generated(loss_dict), _targets(batch)
    asked = torch.ones(
        (len(target), max(pred.shape[1], target.shape[1])), dtype=torch.bool, device=target.device
    )
    return _accuracy(pred, target, asked, tokenizer, leading=False)


def likelihood_update_fn(
    batch: Mapping[str, Any], loss_dict: Mapping[str, Any], tokenizer: Any = None
) -> dict[str, Any]:
    """Each row's negative log-likelihood, for a `SequenceNLL`, `BitsPerToken` or `Perplexity`.

    Args:
        batch: not looked at.
        loss_dict: `nll` and `num_tokens` (B).
        tokenizer: not looked at.

    Returns:
        `nll` and `num_tokens`.

    Raises:
        KeyError: the loss did not estimate them.
    """
    require_mapping("the output of the loss", loss_dict, "tensors")
    for name in ("nll", "num_tokens"):
        if loss_dict.get(name) is None:
            raise KeyError(
                f"the output of the loss has no {name!r}, which the metric needs; set "
                "loss.num_mc_samples, for example to 8 (+likelihood=mc_mlm does), and use the "
                "metric in validation and test only"
            )
        if not isinstance(loss_dict[name], Tensor):
            raise ValueError(f"{name} is {shown(loss_dict[name])}; it must be a tensor, one a row")
    return {"nll": loss_dict["nll"].detach(), "num_tokens": loss_dict["num_tokens"]}


class SequenceNLL(Metric):
    """Mean negative log-likelihood, in nats, of the rows in which a token counts."""

    nll: Tensor
    tokens: Tensor
    sequences: Tensor
    full_state_update = False
    higher_is_better = False

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        # A sum over an epoch outgrows what single precision can add to; MPS has no other.
        kind = torch.float32 if torch.backends.mps.is_available() else torch.float64
        for name in ("nll", "tokens", "sequences"):
            self.add_state(name, torch.zeros((), dtype=kind), dist_reduce_fx="sum")

    def update(self, nll: Float[Tensor, "B"], num_tokens: Integer[Tensor, "B"]) -> None:
        """Add the rows of a batch.

        Args:
            nll: of each row, in nats; 0 for a row without tokens.
            num_tokens: that it counts.

        Raises:
            ValueError: the two have different shapes, or are no tensors; or (looked for on the
                CPU only) one is negative or NaN. An nll may be infinite.
        """
        check_totals(nll, num_tokens)
        self.nll += nll.sum(dtype=self.nll.dtype)
        self.tokens += num_tokens.sum()
        self.sequences += (num_tokens > 0).sum()

    def compute(self) -> Float[Tensor, ""]:
        """Over all rows so far; NaN if none counted."""
        return self.nll / self.sequences


class BitsPerToken(SequenceNLL):
    """Negative log-likelihood of all rows in bits, a token."""

    def compute(self) -> Float[Tensor, ""]:
        """Over all rows so far; NaN if none counted."""
        return self.nll / self.tokens / math.log(2)


class Perplexity(SequenceNLL):
    """exp(negative log-likelihood of all rows / their tokens)."""

    def compute(self) -> Float[Tensor, ""]:
        """Over all rows so far; NaN if none counted."""
        return (self.nll / self.tokens).exp()


class MaskedTokenAccuracy(TokenAccuracy):
    """The host's `TokenAccuracy` over the rows that have something to count.

    A row's accuracy is the share of its counted tokens that are right; the metric is the mean
    over rows. The host's class gives NaN as soon as one row has nothing to count; here the mean is
    NaN only if no row had anything, as for every torchmetrics mean of nothing.
    """

    def update(  # type: ignore[override]  # as in the host's class
        self,
        pred: Integer[Tensor, "B L"],
        target: Integer[Tensor, "B L"],
        pred_mask: Bool[Tensor, "B L"] | None = None,
    ) -> None:
        """Add the rows of a batch.

        Args:
            pred: predicted tokens.
            target: right tokens.
            pred_mask: True where a token counts; all do if it is None.

        Raises:
            ValueError: the shapes differ, or something is no tensor.
        """
        for name, given in (("pred", pred), ("target", target), ("pred_mask", pred_mask)):
            if not isinstance(given, Tensor) and (name != "pred_mask" or given is not None):
                raise ValueError(f"{name} is {shown(given)}; it must be a tensor (rows, tokens)")
        if pred_mask is None:
            pred_mask = torch.ones_like(pred, dtype=torch.bool)
        if not pred.shape == target.shape == pred_mask.shape:
            raise ValueError(
                f"pred, target and pred_mask have shapes {tuple(pred.shape)}, "
                f"{tuple(target.shape)} and {tuple(pred_mask.shape)}; they must be equal"
            )
        counted = pred_mask.any(dim=-1)
        if counted.any():
            super().update(pred[counted], target[counted], pred_mask[counted])


def _exact(pred: Tensor, target: Tensor, tokenizer: Any, leading: bool) -> dict[str, Any]:
    pred, target = _same_rows(pred, target)
    fill = _fill(tokenizer)
    eos_id = getattr(tokenizer, "eos_token_id", None)
    if tokenizer is not None:
        target = target.masked_fill(target == IGNORE_INDEX, fill)
    if eos_id is not None:
        pred = pred.masked_fill(_after_eos(pred, eos_id, leading), fill)
        target = target.masked_fill(_after_eos(target, eos_id, leading), fill)
    width = max(pred.shape[1], target.shape[1])
    return {
        "pred": _widen(pred, width, fill),
        "target": _widen(target, width, fill),
        "pred_length": None,
        "target_length": None,
    }


def _accuracy(
    pred: Tensor, target: Tensor, asked: Bool[Tensor, "B W"], tokenizer: Any, leading: bool
) -> dict[str, Any]:
    pred, target = _same_rows(pred, target)
    _same_rows(asked, target)
    fill = _fill(tokenizer)
    width = asked.shape[1]
    pred, target = _widen(pred, width, fill), _widen(target, width, fill)
    asked = asked & (target != IGNORE_INDEX)
    if tokenizer is not None:
        asked = asked & _answer(target, tokenizer, fill, leading)
    return {"pred": pred, "target": target, "pred_mask": asked}


def _answer(target: Tensor, tokenizer: Any, fill: int, leading: bool) -> Bool[Tensor, "B W"]:
    """True up to the first EOS, or up to the last token in rows that have none."""
    known = (target != fill) & (target != IGNORE_INDEX)
    later = known.flip(1).cumsum(dim=1).flip(1) > 0
    eos_id = getattr(tokenizer, "eos_token_id", None)
    if eos_id is None:
        return later
    ended = _ends(target, eos_id, leading).any(dim=1, keepdim=True)
    return torch.where(ended, ~_after_eos(target, eos_id, leading), later)


def _after_eos(ids: Tensor, eos_id: int, leading: bool) -> Bool[Tensor, "B W"]:
    ends = _ends(ids, eos_id, leading).long()
    return (ends.cumsum(dim=1) - ends) > 0


def _ends(ids: Tensor, eos_id: int, leading: bool) -> Bool[Tensor, "B W"]:
    """Where a row ends; `leading` says that an EOS in the first column is a BOS instead."""
    ends = ids == eos_id
    if leading:
        ends[:, :1] = False
    return ends


def _begins_with_eos(tokenizer: Any) -> bool:
    """Whether BOS and EOS are one token, as in GPT-2, so that a whole row begins with EOS."""
    eos_id = getattr(tokenizer, "eos_token_id", None)
    return eos_id is not None and eos_id == getattr(tokenizer, "bos_token_id", None)


def _generated(loss_dict: Mapping[str, Any]) -> Tensor:
    """The part of `ids` from `output_start_idx` on."""
    ids = _ids(loss_dict)
    start = _field(loss_dict, "output_start_idx", "the prediction")
    starts = _distinct(start)
    if len(starts) != 1:
        raise ValueError(
            f"output_start_idx is {shown(start)}; it must be one integer, or equal ones for "
            "all rows (left-pad the prompts, so that all answers begin in one column)"
        )
    if not 0 <= starts[0] <= ids.shape[1]:
        raise ValueError(
            f"output_start_idx is {starts[0]}; it must be from 0 to the length of the rows, "
            f"{ids.shape[1]}"
        )
    return ids[:, starts[0] :]


def _distinct(start: Any) -> list[int]:
    """The integers among which a value stands for; none if it is no integer or tensor of them."""
    if not isinstance(start, Tensor):
        return [start] if type(start) is int else []
    if start.is_floating_point() or start.is_complex() or start.dtype == torch.bool:
        return []
    return start.reshape(-1).unique().tolist()


def _ids(loss_dict: Mapping[str, Any]) -> Tensor:
    return _rows(_field(loss_dict, "ids", "the prediction"), "ids")


def _targets(batch: Mapping[str, Any]) -> Tensor:
    return _rows(_field(batch, "target_ids", "the batch"), "target_ids")


def _field(values: Mapping[str, Any], name: str, holder: str) -> Any:
    if require_mapping(holder, values, "tensors").get(name) is None:
        raise KeyError(
            f"{holder} has no {name!r}, which the metric needs; it has {', '.join(sorted(values))}"
        )
    return values[name]


def _rows(ids: Any, name: str) -> Tensor:
    if not isinstance(ids, Tensor) or ids.ndim != 2 or ids.is_floating_point():
        found = f"{ids.dtype} {tuple(ids.shape)}" if isinstance(ids, Tensor) else type(ids).__name__
        raise ValueError(f"{name} is {found}; it must be an integer tensor of shape (rows, tokens)")
    return ids


def _same_rows(pred: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    if len(pred) != len(target):
        raise ValueError(
            f"there are {len(pred)} predicted rows and {len(target)} targets; each row needs one"
        )
    return pred, target


def _fill(tokenizer: Any) -> int:
    pad_id = getattr(tokenizer, "pad_token_id", None)
    return NO_TOKEN if pad_id is None else pad_id


def _widen(ids: Tensor, width: int, fill: int) -> Tensor:
    return torch.nn.functional.pad(ids, (0, width - ids.shape[1]), value=fill)
