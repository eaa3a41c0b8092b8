"""Dropout with cheaper random numbers: on the CPU, torch's are most of what it costs."""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from xlm_mlm.modeling.masks import host_checkable

_WORD = 2**32


def dropout(x: Float[Tensor, "*shape"], p: float, training: bool) -> Float[Tensor, "*shape"]:
    """Zero each element with probability `p` and scale the others by 1 / (1 - p).

    On the CPU two thirds of the time of `torch.nn.functional.dropout`, and one byte an element
    kept for the backward pass instead of four. `p` is rounded to a multiple of 2**-32.
    """
    if not training or p == 0:
        return x
    if not host_checkable(x):
        return F.dropout(x, p)
    return (x * _keep(x.shape, p)).mul_(1 / (1 - p))


def _keep(shape: torch.Size, p: float) -> Bool[Tensor, "*shape"]:
    """True with probability 1 - p: halves of 64-bit numbers, of a generator seeded by torch's."""
    count = shape.numel()
    seed = int(torch.randint(2**63 - 1, ()))
    words = np.random.Generator(np.random.SFC64(seed)).integers(
        2**64, size=(count + 1) // 2, dtype=np.uint64
    )
    below = min(round(p * _WORD), _WORD - 1) - _WORD // 2
    return (torch.from_numpy(words.view(np.int32)[:count]) >= below).view(shape)
