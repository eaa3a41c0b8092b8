"""Likelihoods of rows, checked before they are added up."""

from typing import Any

from torch import Tensor

from xlm_mlm.checks import shown


def check_totals(nll: Any, num_tokens: Any) -> None:
    """Refuse what no mean can take. Values are looked at on the CPU only.

    Args:
        nll: of each row, 0 or more; infinite where a token is impossible.
        num_tokens: of each row, whole numbers of at least 0.

    Raises:
        ValueError: they are not; or the two have different shapes, or are no tensors.
    """
    for name, given in (("nll", nll), ("num_tokens", num_tokens)):
        if not isinstance(given, Tensor):
            raise ValueError(f"{name} is {shown(given)}; it must be a tensor, one a row")
        if given.is_complex():
            raise ValueError(f"{name} has dtype {given.dtype}; it must be real numbers")
    if nll.shape != num_tokens.shape:
        raise ValueError(
            f"nll has shape {tuple(nll.shape)} and num_tokens {tuple(num_tokens.shape)}; there "
            "must be one number of tokens for each nll"
        )
    if nll.device.type == "cpu" and not bool((nll >= 0).all()):
        found = "NaN, which no mean can take" if bool(nll.isnan().any()) else float(nll.min())
        raise ValueError(f"nll holds {found}; it must be 0 or more")
    if num_tokens.device.type == "cpu":
        wrong = ~((num_tokens >= 0) & (num_tokens == num_tokens.round()))
        if num_tokens.is_floating_point():
            wrong |= num_tokens.isinf()
        if bool(wrong.any()):
            raise ValueError(
                f"num_tokens holds {num_tokens[wrong][0].item()}; it must be whole numbers, 0 or "
                "more"
            )
