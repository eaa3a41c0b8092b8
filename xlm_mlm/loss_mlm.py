"""The objective: cross-entropy of the original tokens at masked positions."""

from typing import Any

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor
from xlm.harness import LossFunction

from xlm_mlm.checks import (
    require_bool,
    require_choice,
    require_int,
    require_mapping,
    require_token_id,
    shown,
)
from xlm_mlm.collation.samples import Process
from xlm_mlm.likelihood.bound import mlm_nll
from xlm_mlm.likelihood.draws import content_ids
from xlm_mlm.model_mlm import call_model, logits_at_positions, takes
from xlm_mlm.modeling.asking import check_target_ids
from xlm_mlm.modeling.head import plain_cross_entropy
from xlm_mlm.modeling.masks import (
    fault_of_ids,
    host_checkable,
    segment_block_mask,
    validity,
)
from xlm_mlm.modeling.rotary import checked_positions
from xlm_mlm.sampling.streams import SampleStreams
from xlm_mlm.types_mlm import IGNORE_INDEX, MLMBatch, MLMLossDict, MLMModel

LOSS_WEIGHTING = ("mean", "elbo")
"""What the option `loss_weighting` of `MLMLoss` may be."""

ACROSS_RANKS = ("mean", "tokens")
"""What the option `across_ranks` of `MLMLoss` may be."""


class MLMLoss(LossFunction[MLMBatch, MLMLossDict]):
    """Mean cross-entropy, in nats, over the masked positions of a batch (BERT, arXiv 1810.04805).

    A position counts if the model sees the mask token there and its target is not -100. A batch
    in which nothing counts has loss 0 and a zero gradient for every parameter.

    With `loss_weighting="elbo"` the loss is instead, on average over the masks, a bound on the
    negative log-likelihood, in nats a maskable token (Ou et al., arXiv 2406.03736): the sum over
    rows of w times the cross-entropies at the row's n masked tokens, divided by the maskable
    tokens N of all rows. Maskable are the tokens whose target is not -100 and that
    `fixed_positions_mask`, where there is one, does not name; w is the batch's `elbo_weights`, or
    else (N + 1) / n of the row, which fits an n uniform on 0..N.

    On several processes each has the loss of its own rows, and the average of their gradients, as
    DDP and FSDP make it, is that of a mean of means: terms of a process with few masks weigh more.
    With `across_ranks="tokens"` the divisor, in training, is instead the mean over processes of
    their counted positions (of their maskable tokens for "elbo"), so that gradients, and losses,
    average to those of one process with all rows. That takes a sum of one number over the default
    process group in every forward pass, in which every process must therefore take part.

    Args:
        loss_on_padding: accepted so that configs of the field load, without an effect of its
            own: the collator decides, by giving padding the target -100 or not.
        loss_on_visible_tokens: count the positions that are not masked as well.
        model: the network; the host sets it when it is None.
        tokenizer: where the mask token's id comes from; the host sets it when it is None.
        use_num_masked_factor: multiply every term by 1 / (masked tokens of its row + 1) before
            the mean, so that rows with few masks weigh more.
        loss_weighting: "mean" or "elbo".
        num_mc_samples: in eval mode, estimate each row's negative log-likelihood as well, in so
            many further passes (`xlm_mlm.likelihood_mlm.mlm_nll`); None for not.
        likelihood_seed: of that estimate. A row's random numbers come from the seed and from what
            the row holds, so that every validation, in whatever order and batches, gives it the
            same masks.

    Raises:
        ValueError: an option is out of range, or `loss_weighting="elbo"` is given together with
            `loss_on_visible_tokens` or `use_num_masked_factor`, with which it is no bound.
    """

    model: Any
    tokenizer: Any

    def __init__(
        self,
        loss_on_padding: bool = False,
        loss_on_visible_tokens: bool = False,
        model: MLMModel | None = None,
        tokenizer: Any | None = None,
        use_num_masked_factor: bool = False,
        *,
        loss_weighting: str = "mean",
        num_mc_samples: int | None = None,
        likelihood_seed: int = 0,
        across_ranks: str = "mean",
    ) -> None:
        self.loss_on_padding = require_bool("loss_on_padding", loss_on_padding)
        self.loss_on_visible_tokens = require_bool("loss_on_visible_tokens", loss_on_visible_tokens)
        self.model = model
        self.tokenizer = tokenizer
        self.use_num_masked_factor = require_bool("use_num_masked_factor", use_num_masked_factor)
        self.loss_weighting = require_choice("loss_weighting", loss_weighting, LOSS_WEIGHTING)
        if self.loss_weighting == "elbo":
            _refuse_with_elbo("loss_on_visible_tokens", loss_on_visible_tokens)
            _refuse_with_elbo("use_num_masked_factor", use_num_masked_factor)
        if num_mc_samples is not None:
            num_mc_samples = require_int("num_mc_samples", num_mc_samples, 1)
        self.num_mc_samples = num_mc_samples
        self.likelihood_seed = SampleStreams(likelihood_seed).seed
        self.across_ranks = require_choice("across_ranks", across_ranks, ACROSS_RANKS)
        self.mask_token_id_tensor: Integer[Tensor, ""] | None = None

    def configure(self, pl_module: Any) -> None:
        """Called by the host once the device is known; takes the mask id from the tokenizer.

        Raises:
            ValueError: there is no tokenizer, or it has no mask token.
        """
        mask_id = require_token_id(self.tokenizer, "mask", "find the positions of the loss")
        self.mask_token_id_tensor = torch.tensor(mask_id, device=pl_module.device)

    def __call__(
        self,
        batch: MLMBatch,
        batch_idx: int | None = None,
        dataloader_idx: int | None = None,
        dataloader_name: str | None = None,
    ) -> MLMLossDict:
        """Compute the loss of a batch; see `loss_fn`.

        What depends on values (the `BlockMask` of packed batches, the indices of the positions
        that count) is worked out here, outside `loss_fn`, which the host may compile. So are, with
        `num_mc_samples` and a model in eval mode, `nll` and `num_tokens`.

        Raises:
            KeyError: as in `loss_fn`.
            ValueError: as in `loss_fn`; or (looked for on the CPU only) the loss is not finite.
        """
        prepared = self._prepare(batch)
        found = self.loss_fn(prepared, batch_idx, dataloader_idx, dataloader_name)
        _check_finite(found["loss"], prepared["loss_at"])
        if self.num_mc_samples is None or getattr(self.model, "training", False):
            return found
        return {**found, **self._likelihood(prepared)}

    def loss_fn(
        self,
        batch: MLMBatch,
        batch_idx: int | None = None,
        dataloader_idx: int | None = None,
        dataloader_name: str | None = None,
    ) -> MLMLossDict:
        """Compute the loss of a batch, which is left as it is.

        Args:
            batch: `input_ids` and `target_ids` (B, L), with `attention_mask`, `positions`,
                `segment_ids` or `block_mask` where there are any; for "elbo" also
                `fixed_positions_mask` and `elbo_weights`.
            batch_idx: unused, part of the host's protocol; so are the next two.
            dataloader_idx: unused.
            dataloader_name: unused.

        Returns:
            `{"loss": scalar}`, in fp32 whatever the model computes in.

        Raises:
            KeyError: a field is missing.
            ValueError: there is no model, a shape does not fit, a target is out of range, or an
                ELBO weight is negative or not finite.
        """
        given: Any = batch if "loss_at" in batch else self._prepare(batch)
        inputs, flat = given["input_ids"], given["loss_at"]
        targets = given["target_ids"].reshape(-1)[flat]
        weights = self._weights(given)
        rest = {name: given.get(name) for name in ("attention_mask", "positions", "block_mask")}
        if takes(self.model, "targets"):
            asked = {"logits_at": flat, "targets": targets, "target_weights": weights}
            return {"loss": call_model(self.model, inputs, **rest, **asked)}
        logits = logits_at_positions(self.model, inputs, flat, **rest)
        check_target_ids(targets, logits.shape[-1])
        return {"loss": plain_cross_entropy(logits, targets, weights)}

    def _weights(self, given: Any) -> Float[Tensor, "N"]:
        """What the cross-entropy of each position that counts is multiplied by."""
        inputs, flat = given["input_ids"], given["loss_at"]
        if self.loss_weighting == "elbo":
            return given["loss_row_weights"][flat // inputs.shape[1]]
        # Divided as a tensor: a number made of N would tie a compiled loss to this N.
        ones = torch.full(flat.shape, 1.0, device=flat.device)
        weights = ones / given.get("loss_total", max(flat.numel(), 1))
        if self.use_num_masked_factor:
            per_row = 1.0 / (self._masked(inputs).sum(dim=1) + 1.0)
            weights = weights * per_row[flat // inputs.shape[1]]
        return weights

    def _prepare(self, batch: MLMBatch) -> Any:
        """Return a copy of the batch with the positions that count and the `BlockMask`."""
        if self.model is None:
            raise ValueError("MLMLoss has no model; pass model=..., or let the host set it")
        if not callable(self.model):
            raise ValueError(f"model is {shown(self.model)}; it must be a network")
        require_mapping("the batch", batch, "tensors")
        inputs, targets = _ids(batch)
        self._check_values(batch, inputs, targets)
        counted = targets != IGNORE_INDEX
        if not self.loss_on_visible_tokens:
            counted = counted & self._masked(inputs)
        prepared: dict[str, Any] = {**batch, "target_ids": targets.long()}
        if self.loss_weighting == "elbo":
            maskable = _maskable(batch, targets)
            counted = counted & maskable
            weights = _elbo_weights(batch, maskable, counted)
            asked = self._asks_ranks()
            total = _total_of_ranks(maskable) if asked else maskable.sum().clamp(min=1)
            prepared["loss_row_weights"] = weights / total
        elif self._asks_ranks():
            prepared["loss_total"] = _total_of_ranks(counted)
        prepared["loss_at"] = counted.flatten().nonzero().squeeze(1)
        segments = batch.get("segment_ids")
        if segments is not None and batch.get("block_mask") is None:
            _check_segments(segments, inputs)
            prepared["block_mask"] = segment_block_mask(segments)
        return prepared

    def _asks_ranks(self) -> bool:
        """Whether other processes count: never in evaluation, where they may have fewer batches."""
        training = torch.is_grad_enabled() and getattr(self.model, "training", True)
        return self.across_ranks == "tokens" and training and Process.this().world > 1

    def _likelihood(self, batch: Any) -> Any:
        """`nll` (nats) and `num_tokens` of each row: of the tokens that may be masked."""
        inputs, targets = batch["input_ids"], batch["target_ids"]
        maskable, valid = _maskable(batch, targets), batch.get("attention_mask")
        if batch.get("block_mask") is not None:
            valid = None  # as the model takes it
        if valid is not None:
            valid = validity(valid, *inputs.shape)
        in_row = valid if valid is not None and valid.ndim == 2 else None
        if in_row is not None:
            maskable = maskable & in_row
        tokens = torch.where(targets == IGNORE_INDEX, inputs, targets)
        nll = mlm_nll(
            self.model,
            tokens,
            maskable,
            self._mask_id(),
            attention_mask=valid,
            positions=batch.get("positions"),
            block_mask=batch.get("block_mask"),
            num_mc_samples=self.num_mc_samples or 1,
            seed=self.likelihood_seed,
            sample_ids=content_ids(tokens, maskable, in_row),
        )
        return {"nll": nll.float().to(inputs.device), "num_tokens": maskable.sum(dim=1)}

    def _check_values(self, batch: MLMBatch, inputs: Tensor, targets: Tensor) -> None:
        """What the model checks itself, but cannot once it is compiled; on the CPU only."""
        vocabulary = getattr(self.model, "num_embeddings", None)
        if vocabulary is None or not host_checkable(inputs):
            return
        mask_id = self._mask_id()
        if not int(mask_id) < vocabulary:
            raise ValueError(
                f"the mask token's id is {int(mask_id)}, but the model's vocabulary is "
                f"{vocabulary}; model and tokenizer do not belong together"
            )
        known = targets[targets != IGNORE_INDEX]
        check_target_ids(known, vocabulary)
        if hasattr(self.model, "checked_ids"):
            self.model.checked_ids(inputs)
        positions = batch.get("positions")
        if positions is not None and hasattr(self.model, "max_length"):
            rows, length = inputs.shape
            checked_positions(positions, rows, length, self.model.max_length)

    def _masked(self, input_ids: Integer[Tensor, "B L"]) -> Tensor:
        return input_ids == self._mask_id()

    def _mask_id(self) -> Any:
        if self.mask_token_id_tensor is None:
            return require_token_id(self.tokenizer, "mask", "find the positions of the loss")
        return self.mask_token_id_tensor


def _refuse_with_elbo(name: str, value: bool) -> None:
    if value:
        raise ValueError(
            f"loss_weighting is 'elbo' and {name} is {value}; the bound counts masked tokens with "
            f"weights of its own. Use {name}=False, or loss_weighting='mean'"
        )


def _total_of_ranks(counted: Bool[Tensor, "B L"]) -> Float[Tensor, ""]:
    """Mean over all processes of how many positions each counts; at least 1 of them all."""
    total = counted.sum()
    torch.distributed.all_reduce(total)
    return total.clamp(min=1) / Process.this().world


def _maskable(batch: MLMBatch, targets: Tensor) -> Bool[Tensor, "B L"]:
    """Where a token could have been masked and is known."""
    known = targets != IGNORE_INDEX
    fixed: Any = batch.get("fixed_positions_mask")
    if fixed is None:
        return known
    if not isinstance(fixed, Tensor) or fixed.dtype != torch.bool or fixed.shape != known.shape:
        raise ValueError(
            f"fixed_positions_mask is {_kind(fixed)}; it must be a tensor of booleans, one for "
            f"each target, of shape {tuple(known.shape)}"
        )
    return known & ~fixed


def _elbo_weights(
    batch: MLMBatch, maskable: Bool[Tensor, "B L"], masked: Bool[Tensor, "B L"]
) -> Float[Tensor, "B"]:
    """What each row's cross-entropies are multiplied by, before the division by all tokens."""
    maskable_count, count = maskable.sum(dim=1), masked.sum(dim=1)
    given: Any = batch.get("elbo_weights")
    if given is None:
        # A row without masks has no term to multiply.
        weights = (maskable_count + 1.0) / count.clamp(min=1)
    else:
        fits = isinstance(given, Tensor) and given.is_floating_point()
        if not fits or given.shape != count.shape:
            raise ValueError(
                f"elbo_weights are {_kind(given)}; they must be a tensor of floating-point "
                f"numbers, one a row, of shape {tuple(count.shape)}"
            )
        # The look costs little here: which positions are masked is asked for in any case.
        if not torch.compiler.is_compiling() and not (given.isfinite() & (given >= 0)).all():
            raise ValueError(f"elbo_weights are {given.tolist()}; they must be finite, 0 or more")
        weights = given.float()
    return weights


def _check_segments(segments: Any, inputs: Tensor) -> None:
    if not isinstance(segments, Tensor) or segments.shape != inputs.shape:
        raise ValueError(
            f"segment_ids are {_kind(segments)}; they must be a tensor, one for each token, of "
            f"shape {tuple(inputs.shape)}"
        )


def _check_finite(loss: Tensor, at: Tensor) -> None:
    if not host_checkable(loss) or bool(loss.isfinite()):
        return
    why = "the model's logits hold NaN or +inf, or nothing but -inf, at one of them"
    if not loss.isnan():
        why = "the model gives a target probability 0, or logits are too far apart"
    raise ValueError(
        f"the loss over {at.numel()} positions is {loss.item()}; it must be finite: {why}. If "
        "training diverged, lower the learning rate or clip gradients"
    )


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of {value.dtype} and shape {tuple(value.shape)}"
    return f"{value!r:.80}"


def _ids(batch: MLMBatch) -> tuple[Tensor, Tensor]:
    """Inputs and targets of a batch, checked."""
    for name in ("input_ids", "target_ids"):
        if batch.get(name) is None:
            raise KeyError(
                f"the loss needs {name!r}, which the batch does not have (or has as None); its "
                f"fields: {', '.join(sorted(batch))}"
            )
        value: Any = batch[name]
        if fault := fault_of_ids(value):
            raise ValueError(f"{name} is {fault}; it must be a tensor of integers")
    inputs: Tensor = batch["input_ids"]
    targets: Any = batch["target_ids"]
    if inputs.shape != targets.shape:
        raise ValueError(
            f"input_ids have shape {tuple(inputs.shape)} and target_ids {tuple(targets.shape)}; "
            "the loss needs one target for each input token"
        )
    return inputs, targets
