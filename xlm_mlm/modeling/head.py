"""Vocabulary projection and cross-entropy in one, without the logits of all positions at once."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Integer
from torch import Tensor

from xlm_mlm.modeling.masks import host_checkable

# Elements of the logits held at once, and of their probabilities. On the CPU 32 MB each: half as
# many or twice as many took longer. Accelerators need more to be busy.
_CHUNK, _CHUNK_ON_ACCELERATORS = 2**23, 2**27
# Fewer rows, or an odd number of them, make slow matrix products.
_ROWS = 128
# Entries of the vocabulary projected at once where no gradient is wanted: 3 MB for d = 384.
_BLOCK = 2048


def project(hidden: Float[Tensor, "N D"], weight: Float[Tensor, "V D"]) -> Float[Tensor, "N V"]:
    """Logits of some positions: `hidden` times `weight` transposed.

    Without a gradient, on the CPU, block by block of the vocabulary, each product laid out the
    quick way round and turned while it is in the cache: 1.3 times as fast for many positions,
    3 times for a few.
    """
    quick = host_checkable(hidden) and hidden.dtype == torch.float32 and len(weight) > _BLOCK
    if not quick or torch.is_grad_enabled() or torch.is_autocast_enabled("cpu"):
        return F.linear(hidden, weight)
    logits = hidden.new_empty(len(hidden), len(weight))
    _project_into(logits, hidden, weight)
    return logits


def _project_into(out: Tensor, hidden: Tensor, weight: Tensor) -> None:
    """Write the logits into `out`, which may be wider in type than the products."""
    if hidden.device.type != "cpu":
        _product(hidden, weight.T, out)
        return
    for block, part in zip(weight.split(_BLOCK), out.split(_BLOCK, dim=1), strict=True):
        part.copy_((block @ hidden.T).T)


def weighted_cross_entropy(
    hidden: Float[Tensor, "N D"],
    weight: Float[Tensor, "V D"],
    targets: Integer[Tensor, "N"],
    weights: Float[Tensor, "N"],
) -> Float[Tensor, ""]:
    """Sum of the cross-entropies of some positions, in nats, each times its weight; in fp32.

    Where the logits are many, goes through the positions in chunks and works the gradient out on
    the way, as Liger Kernel's fused linear cross-entropy does (arXiv 2410.10989): the memory does
    not grow with N x V, and no product is done twice. Differentiable once.

    Args:
        hidden: states, normalised.
        weight: of the projection.
        targets: from 0 to V - 1.
        weights: of the terms; constants.
    """
    weights = weights.detach()
    # A compiler fuses these itself, and a loop over chunks would tie it to one N.
    if torch.compiler.is_compiling() or len(hidden) <= rows_at_once(weight):
        return plain_cross_entropy(project(hidden, weight), targets, weights)
    if not torch.is_grad_enabled():
        # Asked here: a `Function` is told which inputs require gradients, not whether any is made.
        return _sum_up(hidden, weight, targets, weights, _product_dtype(hidden), False)[0]
    chunked: Any = _ChunkedCrossEntropy.apply(hidden, weight, targets, weights)
    return chunked


def plain_cross_entropy(
    logits: Float[Tensor, "N V"], targets: Integer[Tensor, "N"], weights: Float[Tensor, "N"]
) -> Float[Tensor, ""]:
    """The same from the logits themselves; 0, with a gradient, where there are none."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return (F.cross_entropy(logits, targets, reduction="none") * weights).sum()


def rows_at_once(weight: Float[Tensor, "V D"]) -> int:
    """Positions of a chunk."""
    elements = _CHUNK if weight.device.type == "cpu" else _CHUNK_ON_ACCELERATORS
    return max(elements // len(weight) // _ROWS, 1) * _ROWS


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Gradients are made beside the loss and handed over by the first backward pass."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, weights: Tensor
    ) -> Tensor:
        """The loss; with it the gradients, if they will be asked for."""
        ctx.save_for_backward(hidden, weight, targets, weights)
        ctx.kind = _product_dtype(hidden)
        wanted = any(ctx.needs_input_grad[:2])
        loss, *ctx.gradients = _sum_up(hidden, weight, targets, weights, ctx.kind, wanted)
        return loss

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor, Tensor, None, None]:
        """Scale the gradients; a second pass over a retained graph has to make them again."""
        if torch.is_grad_enabled():
            # Torch's own `once_differentiable` would let second derivatives be 0 in silence.
            raise RuntimeError(
                "the loss in chunks has no second derivative, so no create_graph=True; ask the "
                "model for logits and compute the loss from them"
            )
        hidden, weight, targets, weights = ctx.saved_tensors
        if ctx.gradients is None:
            _, *ctx.gradients = _sum_up(hidden, weight, targets, weights, ctx.kind, True)
        (scale, grad_hidden, grad_weight), ctx.gradients = ctx.gradients, None
        scale = scale * grad_loss
        return grad_hidden.mul_(scale), grad_weight.mul_(scale).to(weight.dtype), None, None


def _product_dtype(hidden: Tensor) -> torch.dtype:
    device = hidden.device.type
    if torch.is_autocast_enabled(device) and hidden.dtype != torch.float64:
        return torch.get_autocast_dtype(device)
    return hidden.dtype


def _sum_up(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    weights: Tensor,
    kind: torch.dtype,
    with_gradients: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Loss; a scale; gradients of `hidden` and `weight`, both still to be multiplied by it.

    Products are in `kind`, sums in fp32.
    """
    wide = torch.promote_types(kind, torch.float32)
    # Half precision has no room for small weights.
    weights = weights.to(wide)
    scale = weights.abs().max().clamp_min(torch.finfo(wide).tiny)
    relative = weights / scale
    narrow, states, rows = weight.to(kind), hidden.to(kind), rows_at_once(weight)
    loss = torch.zeros((), dtype=wide, device=hidden.device)
    grad_hidden = torch.empty_like(hidden)
    grad_weight = torch.empty_like(weight, dtype=wide) if with_gradients else loss
    # Made once: fresh memory of this size costs as much as the work on it.
    room = hidden.new_empty(2, min(rows, len(hidden)), len(weight), dtype=wide)
    for start in range(0, len(hidden), rows):
        part = slice(start, start + rows)
        target, factor = targets[part, None], relative[part, None]
        logits, p = room[:, : len(target)]
        _project_into(logits, states[part], narrow)
        torch.softmax(logits, 1, out=p)
        # From the largest entry, where p cannot be 0; of log-sum-exp, large logits would leave none
        # of its digits.
        behind = logits.amax(dim=1) - logits.gather(1, target).squeeze(1)
        # No dot product: autocast would take that in half precision.
        loss += ((behind - p.amax(dim=1).log()) * weights[part]).sum()
        if not with_gradients:
            continue
        p.scatter_add_(1, target, p.new_full(target.shape, -1.0))
        slopes = p.to(kind)
        _product(slopes, narrow, grad_hidden[part])
        grad_hidden[part] *= factor
        weighted = states[part] * factor.to(kind)
        _add_product(slopes.T, weighted, grad_weight, fresh=start == 0)
    return loss, scale, grad_hidden, grad_weight


def _product(a: Tensor, b: Tensor, out: Tensor) -> None:
    if out.dtype == a.dtype:
        torch.mm(a, b, out=out)
    else:
        out.copy_(a @ b)


def _add_product(a: Tensor, b: Tensor, total: Tensor, *, fresh: bool) -> None:
    """Add to `total`, or begin it."""
    if total.dtype == a.dtype:
        total.addmm_(a, b, beta=0 if fresh else 1)
    elif fresh:
        total.copy_(a @ b)
    else:
        total += a @ b
