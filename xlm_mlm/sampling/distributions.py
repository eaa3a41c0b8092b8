"""Work on rows of probabilities: in pieces that fit a cache, the draw, and the nucleus.

On the CPU what a row gives does not depend on the rows beside it, to the last bit, if there are
any: torch adds up a lone row in another order.
"""

import torch
from jaxtyping import Float, Float32, Float64, Integer
from torch import Tensor

# Values that a piece holds: on the CPU what fits the cache, elsewhere what keeps a device busy.
_CPU_PIECE, _DEVICE_PIECE = 2**17, 2**24
# Tokens that are ranked first; where they hold the nucleus, nothing else is looked at.
_LIKELY = 256


def row_pieces(rows: Float[Tensor, "N V"]) -> tuple[Tensor, ...]:
    """Views of successive rows, so that what is computed from one piece never leaves the cache.

    At least two rows each if there are two: torch adds up a lone row in another order.
    """
    values = _CPU_PIECE if rows.device.type == "cpu" else _DEVICE_PIECE
    at_once = max(values // rows.shape[1], 4)
    return rows.tensor_split(max(-(-len(rows) // at_once), 1))


def invert(p: Float[Tensor, "N K"], uniform: Float64[Tensor, "N"]) -> Integer[Tensor, "N"]:
    """Index of the first entry at which the cumulative probability passes the random number.

    Args:
        p: probabilities, up to a factor a row; they are summed in double precision.
        uniform: in [0, 1).
    """
    cumulative = p.cumsum(dim=-1, dtype=torch.float64)
    total = cumulative[:, -1:]
    # Rounding must not carry the number up to the total, where no entry passes it.
    target = torch.minimum(uniform[:, None] * total, total * (1 - torch.finfo(torch.float64).eps))
    found = torch.searchsorted(cumulative, target, right=True)
    return found.clamp_max(p.shape[-1] - 1).squeeze(1)


def draw_from_nucleus(
    p: Float32[Tensor, "N V"], uniform: Float64[Tensor, "N"], top_p: float
) -> Integer[Tensor, "N"]:
    """Draw among the fewest most probable tokens that hold `top_p`, of equals the first.

    Args:
        p: probabilities.
        uniform: in [0, 1).
        top_p: above 0 and below 1.
    """
    wanted = top_p * p.cumsum(dim=-1, dtype=torch.float64)[:, -1:]
    wanted = wanted.clamp_min(torch.finfo(torch.float64).tiny)
    if p.device.type != "cpu":
        # To ask which rows are settled would synchronise.
        return invert(_keep_nucleus(p, wanted), uniform)
    kept, ids = p.topk(min(_LIKELY, p.shape[-1]), dim=-1)
    before = kept.cumsum(dim=-1, dtype=torch.float64) - kept
    # A token stays if those before it have not reached p yet: so the one that crosses it stays.
    inside = before < wanted
    size = inside.sum(dim=1, keepdim=True)
    # Whichever way it was found, a nucleus is drawn from in the order of its ids.
    ids, order = ids.sort(dim=1)
    found = invert((kept * inside).gather(1, order), uniform)
    tokens = ids.gather(1, found[:, None]).squeeze(1)
    # Unless a less probable token is next, it is open which equals of the last belong.
    next_one = kept.gather(1, size.clamp_max(kept.shape[1] - 1))
    rest = (kept.gather(1, size - 1) <= next_one).squeeze(1).nonzero().squeeze(1)
    for part in rest.split(2):
        tokens[part] = invert(_keep_nucleus(p[part], wanted[part]), uniform[part])
    return tokens


def _keep_nucleus(
    p: Float32[Tensor, "N V"], wanted: Float64[Tensor, "N 1"]
) -> Float32[Tensor, "N V"]:
    """Zero the tokens outside the nucleus, at a cost that does not depend on its size."""
    least, above = _edge(p, wanted)
    tied = p == least
    before = above + (tied.cumsum(dim=1) - 1) * least.double()
    return p * ((p > least) | (tied & (before < wanted)))


def _edge(
    p: Float32[Tensor, "N V"], wanted: Float64[Tensor, "N 1"]
) -> tuple[Float32[Tensor, "N 1"], Float64[Tensor, "N 1"]]:
    """The least probability in the nucleus, and the mass of all greater ones.

    Radix selection: floats that are not negative are ordered as their bits are, so the least
    one's bits are found ten at a time from a histogram of mass; those of 1.0 have thirty.
    """
    bits, mass = p.view(torch.int32), p.double()
    above, least = torch.zeros_like(wanted), torch.zeros_like(bits[:, :1])
    for shift in (20, 10, 0):
        digits = (bits >> shift) & 1023
        held = mass.new_zeros(len(p), 1025).scatter_add_(1, digits.long(), mass)
        held = held.flip(1).cumsum(dim=1).flip(1) + above
        digit = ((held >= wanted).sum(dim=1, keepdim=True) - 1).clamp_min(0)
        above = held.gather(1, digit + 1)
        least += (digit << shift).int()
        mass = mass * (digits == digit)
    return least.view(torch.float32), above
