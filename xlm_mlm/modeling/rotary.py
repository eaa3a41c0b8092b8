"""Rotary position embeddings (RoFormer, arXiv 2104.09864), gathered once a forward pass."""

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor

from xlm_mlm.modeling.masks import host_checkable

RotaryTables = tuple[Float[Tensor, "T R"], Float[Tensor, "T R"]]
"""Cosines and sines of T positions: of one row where all share them, or of every token."""


def derived_positions(valid: Bool[Tensor, "B L"]) -> Integer[Tensor, "B L"]:
    """Positions that count valid tokens only, so that padding on the left shifts nothing."""
    return (valid.long().cumsum(dim=1) - 1).clamp_min(0)


def checked_positions(
    positions: Tensor, batch: int, length: int, max_length: int
) -> Integer[Tensor, "B L"]:
    """Return positions as int64, refusing those that the tables do not hold.

    Positions of shape (1, L) are shared by all rows.

    Raises:
        ValueError: wrong shape or dtype, or a position below 0 or past `max_length`.
    """
    if not isinstance(positions, Tensor):
        raise ValueError(f"positions are a {type(positions).__name__}; they must be a tensor")
    if tuple(positions.shape) not in ((batch, length), (1, length)):
        raise ValueError(
            f"positions have shape {tuple(positions.shape)}; they must have the input's, "
            f"({batch}, {length})"
        )
    if positions.is_floating_point() or positions.dtype == torch.bool:
        raise ValueError(f"positions have dtype {positions.dtype}; they must be integers")
    if not host_checkable(positions):
        return positions.long()
    low, high = int(positions.min()), int(positions.max())
    if low < 0 or high >= max_length:
        raise ValueError(
            f"position {high if high >= max_length else low} is outside the model's max_length of "
            f"{max_length} (valid: 0 to {max_length - 1}); build the model with a larger max_length"
        )
    return positions.long()


def gather_tables(
    cos: Float[Tensor, "M R"],
    sin: Float[Tensor, "M R"],
    length: int,
    positions: Integer[Tensor, "*T"] | None,
) -> RotaryTables:
    """Look the angles up once; every layer shares them."""
    if positions is None:
        return cos[:length], sin[:length]
    flat = positions.flatten()
    lookup = torch.nn.functional.embedding
    return lookup(flat, cos), lookup(flat, sin)


def rotate(x: Float[Tensor, "*rows T D"], tables: RotaryTables) -> Float[Tensor, "*rows T D"]:
    """Turn the first 2R channels by the position's angles; the rest passes.

    Computed in the tables' precision and returned in that of `x`.
    """
    cos, sin = tables
    half = cos.shape[-1]
    first, second, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    turned = torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
    turned = turned.type_as(x)
    return torch.cat((turned, rest), dim=-1) if rest.shape[-1] else turned
