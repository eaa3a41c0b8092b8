"""Which positions are masked in which pass, from random numbers that belong to a row alone."""

from enum import IntEnum
from hashlib import blake2b

import torch
from jaxtyping import Bool, Float64, Integer
from torch import Tensor

from xlm_mlm.sampling.streams import SampleStreams


class Purpose(IntEnum):
    """What a random number decides, apart from those of sampling: a text that was sampled with a
    seed must not meet the numbers that put it together when it is scored with the same seed."""

    COUNT = 64
    ORDER = 65


def stratified_counts(
    maskable: Integer[Tensor, "B"], passes: int, streams: SampleStreams, ids: Integer[Tensor, "B"]
) -> Integer[Tensor, "B K"]:
    """How many of N maskable positions each pass masks: 1 + floor(N (u + k) / K), one u a row.

    Each count alone is uniform on 1..N; the K of a row are spread evenly. 0 where N is 0.
    """
    u = streams.uniform(ids, 0, Purpose.COUNT, torch.zeros(len(ids), 1, dtype=torch.long))  # type: ignore[arg-type]
    shares: Float64[Tensor, "B K"] = (u + torch.arange(passes)) / passes
    counts = 1 + (maskable[:, None] * shares).floor().long()
    # Rounding may carry the share up to 1.
    return torch.minimum(counts, maskable[:, None])


def masks_of_pass(
    number: int,
    counts: Integer[Tensor, "B"],
    maskable: Bool[Tensor, "B L"],
    places: Integer[Tensor, "B L"],
    streams: SampleStreams,
    ids: Integer[Tensor, "B"],
) -> Bool[Tensor, "B L"]:
    """So many maskable positions of each row, every subset of that size as probable as another.

    Args:
        number: of the pass.
        counts: positions to mask.
        maskable: where one may be.
        places: of each position in its row, padding not counted.
        streams: source of the random numbers.
        ids: number of each row.
    """
    noise = streams.uniform(ids, number, Purpose.ORDER, places)  # type: ignore[arg-type]
    ranks = noise.masked_fill(~maskable, torch.inf).argsort(dim=1, stable=True).argsort(dim=1)
    return ranks < counts[:, None]


def content_ids(
    ids: Integer[Tensor, "B L"],
    maskable: Bool[Tensor, "B L"],
    valid: Bool[Tensor, "B L"] | None = None,
) -> Integer[Tensor, "B"]:
    """Number each row by a hash of what it holds, so that it has the same number wherever it is.

    Args:
        ids: the tokens.
        maskable: which of them are to be scored.
        valid: which of them are no padding; all if None.
    """
    codes = (2 * ids.long() + maskable).cpu().numpy().astype("<i8")
    kept = [slice(None)] * len(codes) if valid is None else list(valid.cpu().numpy())
    digests = (
        blake2b(row[each].tobytes(), digest_size=8).digest()
        for row, each in zip(codes, kept, strict=True)
    )
    return torch.tensor([int.from_bytes(each, "big") >> 1 for each in digests], dtype=torch.long)
