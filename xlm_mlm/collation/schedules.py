"""Mask rates that a noise schedule of the host decides (`xlm.noise.NoiseSchedule`)."""

from collections.abc import Collection
from numbers import Number
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Float64
from torch import Tensor

from xlm_mlm.checks import shown


def is_real(noise_schedule: Any) -> bool:
    """Whether a noise schedule decides mask rates: it draws times when it is asked to.

    None does not, nor does what has no `sample_t`, nor what raises `NotImplementedError` there,
    as the host's `DummyNoiseSchedule` does. A real one is tried once, so that one that cannot
    work fails when the collator is made; torch's random state is left as it was.

    Raises:
        ValueError: it fails in another way, or what it gives is no mask rate; see `mask_rates`. Or
            it is a plain value, such as the name or the config of a schedule.
    """
    if isinstance(noise_schedule, Number | Collection | Tensor):
        raise ValueError(
            f"noise_schedule is {shown(noise_schedule)}; it must be a schedule, an object with "
            "sample_t, or None. In YAML a `_target_` makes one"
        )
    if not hasattr(noise_schedule, "sample_t"):
        return False
    state = torch.get_rng_state()
    try:
        mask_rates(noise_schedule, 1)
    except NotImplementedError:
        return False
    finally:
        torch.set_rng_state(state)
    return True


def mask_rates(
    noise_schedule: Any, rows: int
) -> tuple[Float64[np.ndarray, "B"], Float32[np.ndarray, "B"]]:
    """Draw a time for each row and return its mask rate, and its weight in the likelihood's bound.

    With the rate s(t) and total S(t) of the noise, a token is masked with probability
    1 - exp(-S), and the weight is s / (exp(S) - 1), which is -a' / (1 - a) for the share a =
    exp(-S) of tokens not masked (MDLM, arXiv 2406.07524). The bound is one where t ~ U[0, 1] and
    S grows from 0 without end; times come from wherever the schedule takes them, which is torch's
    global generator as a rule, and never a generator of the collator's own.

    Raises:
        NotImplementedError: the schedule draws no times.
        ValueError: it fails in another way, or does not give one time, rate and total for each
            row; a time is not finite, a rate not finite or negative, a total negative or NaN.
    """
    name, drawn = type(noise_schedule).__name__, f"sample_t({rows})"
    with torch.no_grad():
        try:
            times = noise_schedule.sample_t(rows)
        except NotImplementedError:
            raise
        except Exception as error:  # whatever a stranger's schedule may raise
            raise _failed(f"{name}.{drawn}", error) from error
        t = _per_row(f"{name}.{drawn}", times, rows)
        try:
            given_rate, given_total = noise_schedule(times)
        except Exception as error:
            raise _failed(f"{name}(t)", error) from error
    rate = _per_row(f"the rate of {name}", given_rate, rows)
    total = _per_row(f"the total noise of {name}", given_total, rows)
    _refuse(name, t, ~np.isfinite(t), "t", t, "a finite number")
    _refuse(name, t, ~np.isfinite(rate) | (rate < 0), "the rate", rate, "finite and at least 0")
    # A mask rate outside [0, 1] otherwise.
    _refuse(name, t, np.isnan(total) | (total < 0), "the total noise", total, "at least 0")
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        # Without noise nothing is masked, and any weight does.
        weights = np.where(total > 0, rate / np.expm1(total), 0.0)
    most = np.finfo(np.float32).max
    return -np.expm1(-total), np.minimum(weights, most).astype(np.float32)


def _failed(what: str, error: Exception) -> ValueError:
    return ValueError(
        f"the noise schedule fails in {what}: {type(error).__name__}: {error}. One that decides "
        "mask rates draws times with sample_t(rows) and returns (rate, total) for them when "
        "called; None leaves the rates to the collator"
    )


def _per_row(what: str, given: Any, rows: int) -> Float64[np.ndarray, "B"]:
    if not isinstance(given, Tensor) or given.shape != (rows,):
        found = f"of shape {tuple(given.shape)}" if isinstance(given, Tensor) else f"{given!r:.80}"
        raise ValueError(f"{what} is {found}; it must be a tensor of shape ({rows},), one a row")
    return given.detach().cpu().double().numpy()


def _refuse(
    name: str, t: np.ndarray, wrong: np.ndarray, what: str, values: np.ndarray, rule: str
) -> None:
    if wrong.any():
        i = int(wrong.argmax())
        raise ValueError(
            f"the noise schedule {name} gives {what} {values[i]:.6g} at t = {t[i]:.6g}; it must "
            f"be {rule}, so that the mask rate 1 - exp(-total) is a probability"
        )
