"""Rows of known tokens, and the masked copies of them that a model is shown."""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Bool, Float64, Integer
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask

from xlm_mlm.checks import require_int
from xlm_mlm.model_mlm import logits_at_positions, takes
from xlm_mlm.modeling.asking import check_target_ids
from xlm_mlm.modeling.masks import segment_block_mask, segments_of, validity
from xlm_mlm.modeling.rotary import derived_positions
from xlm_mlm.sampling.scores import token_log_probability
from xlm_mlm.types_mlm import MLMModel

# Values of the logits held at once: 512 MB in fp32.
_MOST_LOGITS = 2**27
# Of a model that doesn't say how large its vocabulary is.
_VOCABULARY = 2**16


class Rows:
    """Rows to be scored, checked, with what the model is told of them.

    Args:
        input_ids: the tokens, none of them hidden where `maskable`.
        maskable: True where a token is to be scored; the others are always visible.
        mask_id: the mask token.
        attention_mask: as in the batch, ignored if it is packed; nothing that it hides may be
            maskable.
        positions: as in the batch.
        segment_ids: of packed batches.
        block_mask: instead of `segment_ids`. One that was not made from segments, and differs
            from row to row, can be asked about whole batches only.

    Attributes:
        counts: maskable positions of each row, on the CPU.
        places: where each position stands in its row, padding not counted, on the CPU.

    Raises:
        ValueError: a shape or type that does not fit, a mask token or a hidden position among the
            maskable ones, or both `segment_ids` and `block_mask`.
    """

    def __init__(
        self,
        input_ids: Integer[Tensor, "B L"],
        maskable: Bool[Tensor, "B L"],
        mask_id: int | Tensor,
        *,
        attention_mask: Tensor | None = None,
        positions: Integer[Tensor, "B L"] | None = None,
        segment_ids: Integer[Tensor, "B L"] | None = None,
        block_mask: Any | None = None,
    ) -> None:
        self.ids, self.mask_id = _checked_ids(input_ids), _checked_mask_id(mask_id)
        shape = tuple(self.ids.shape)
        check_shape("maskable", maskable, [shape])
        if maskable.dtype != torch.bool:
            raise ValueError(f"maskable has dtype {maskable.dtype}; it must be bool")
        if positions is not None:
            check_shape("positions", positions, [shape, (1, shape[1])])
        if segment_ids is not None:
            check_shape("segment_ids", segment_ids, [shape])
            if block_mask is not None:
                raise ValueError("segment_ids and block_mask are both given; give one of them")
        packed = segment_ids is not None or block_mask is not None
        self.valid = None
        if attention_mask is not None and not packed:
            self.valid = validity(attention_mask, *shape)
        self.positions, self.segment_ids, self.block_mask = positions, segment_ids, block_mask
        if isinstance(block_mask, BlockMask):
            segments = segments_of(block_mask)
            if segments is not None and tuple(segments.shape) == shape:
                self.segment_ids, self.block_mask = segments, None
        self.maskable = maskable.cpu()
        self.counts = self.maskable.sum(dim=1)
        self.places = torch.arange(shape[1]).expand(shape)
        if self.valid is not None and self.valid.ndim == 2:
            self.places = derived_positions(self.valid.cpu())
            self._check(~self.valid, "attention_mask hides it: its token can't be scored")
        self._check(self.ids == self.mask_id, "it holds the mask token, which is no known token")

    def _check(self, wrong: Bool[Tensor, "B L"], why: str) -> None:
        found = (wrong.cpu() & self.maskable).nonzero()
        if len(found):
            row, column = found[0].tolist()
            raise ValueError(f"position {column} of row {row} is maskable, but {why}")

    @property
    def whole(self) -> bool:
        """Whether the model has to be shown all rows, in order, in every pass."""
        return self.block_mask is not None and getattr(self.block_mask, "shape", (0,))[0] != 1

    def copies(self, passes: Integer[Tensor, "B"]) -> tuple[Tensor, Tensor]:
        """Row and pass of each masked copy, where row b is to have `passes[b]` of them.

        Row by row; pass by pass, with every row in each, if the batch can't be taken apart.
        """
        most = int(passes.max()) if len(passes) else 0
        if self.whole:
            number = torch.arange(most).repeat_interleave(len(passes))
            return torch.arange(len(passes)).repeat(most), number
        row, number = (torch.arange(most) < passes[:, None]).nonzero().unbind(1)
        return row, number

    def groups(
        self, model: MLMModel, scored: Integer[Tensor, "M"], batch_size: int | None
    ) -> Iterator[slice]:
        """Which copies are shown in one forward pass.

        Args:
            model: the network.
            scored: how many positions of each copy are scored.
            batch_size: copies in a pass at most; None: as many as there are rows. Fewer where
                the logits would be many.

        Raises:
            ValueError: a batch that can't be taken apart has more rows.
        """
        if not callable(model):
            raise ValueError(f"model is {model!r}; it must be a network of the MLMModel protocol")
        rows = len(self.ids)
        if batch_size is not None:
            batch_size = require_int("batch_size", batch_size, 1)
        if self.whole:
            if batch_size is not None and batch_size < rows:
                raise ValueError(
                    f"batch_size is {batch_size}, and the block_mask is for {rows} rows at once; "
                    "give segment_ids instead, or leave batch_size None"
                )
            yield from (slice(i, i + rows) for i in range(0, len(scored), rows))
            return
        vocabulary = getattr(model, "num_embeddings", None) or _VOCABULARY
        sizes = scored.tolist()
        if not takes(model, "logits_at"):
            sizes = [self.ids.shape[1]] * len(sizes)
        start = total = 0
        for i, size in enumerate(sizes):
            full = i - start == (batch_size or rows)
            if i > start and (full or (total + size) * vocabulary > _MOST_LOGITS):
                yield slice(start, i)
                start, total = i, 0
            total += size
        if start < len(sizes):
            yield slice(start, len(sizes))

    def log_probs(
        self,
        model: MLMModel,
        rows: Integer[Tensor, "M"],
        hidden: Bool[Tensor, "M L"],
        scored: Bool[Tensor, "M L"],
    ) -> Float64[Tensor, "N"]:
        """Log-probability, in nats, of each scored token, in row-major order, on the CPU.

        Args:
            model: the network, in eval mode.
            rows: of which row each copy is.
            hidden: where it is masked.
            scored: of which tokens; some of the hidden ones.

        Raises:
            ValueError: the model gives no distribution somewhere, its logits being NaN, +inf, or
                -inf alone.
        """
        flat = scored.flatten().nonzero().squeeze(1)
        if not len(flat):
            return torch.zeros(0, dtype=torch.float64)
        device = self.ids.device
        picked, flat = rows.to(device), flat.to(device)
        tokens = self.ids[picked]
        inputs = tokens.masked_fill(hidden.to(device), self.mask_id)
        logits = logits_at_positions(model, inputs, flat, **self._context(picked))
        targets = tokens.flatten()[flat]
        check_target_ids(targets, logits.shape[-1])
        found = token_log_probability(logits, targets).cpu().double()
        if found.isnan().any():
            column = int(flat[found.isnan().to(device)][0]) % tokens.shape[1]
            raise ValueError(
                f"the model's logits hold NaN or +inf, or nothing but -inf, at "
                f"{int(found.isnan().sum())} of {len(found)} positions, the first in column "
                f"{column}; its weights may hold NaN, or the computation overflow"
            )
        return found

    def _context(self, picked: Integer[Tensor, "M"]) -> dict[str, Any]:
        """What the model is told beside the tokens."""
        positions = self.positions
        if positions is not None and len(positions) > 1:
            positions = positions[picked]
        mask = self.block_mask
        if self.segment_ids is not None:
            mask = segment_block_mask(self.segment_ids[picked])
        valid = None if self.valid is None else self.valid[picked]
        return {"attention_mask": valid, "positions": positions, "block_mask": mask}


def _checked_ids(input_ids: Any) -> Integer[Tensor, "B L"]:
    if not isinstance(input_ids, Tensor) or input_ids.ndim != 2:
        found = tuple(input_ids.shape) if isinstance(input_ids, Tensor) else type(input_ids)
        raise ValueError(f"input_ids are {found}; they must be a tensor (rows, tokens)")
    if input_ids.is_floating_point() or input_ids.dtype == torch.bool:
        raise ValueError(f"input_ids have dtype {input_ids.dtype}; token ids must be integers")
    return input_ids.long()


def _checked_mask_id(mask_id: Any) -> int:
    """One number, or a tensor of one, as the loss holds it."""
    one = isinstance(mask_id, Tensor) and mask_id.numel() == 1 and not mask_id.is_floating_point()
    return require_int("mask_id", mask_id.item() if one else mask_id, 0)


def check_shape(name: str, value: Any, allowed: list[tuple[int, ...]]) -> None:
    """Refuse a value that is no tensor of one of the shapes.

    Raises:
        ValueError: it is none.
    """
    found = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
    if found not in allowed:
        right = " or ".join(map(str, dict.fromkeys(allowed)))
        raise ValueError(f"{name} is {found}; for these input_ids it must be a tensor of {right}")
