"""The samplers that are compared, each at several costs."""

from collections.abc import Iterator
from typing import Any

Settings = Iterator[tuple[str, dict[str, Any]]]

SHARES = ("top_prob", "prob_diff", "entropy")


def few(masks: int) -> list[int]:
    """Numbers of passes up to one for each mask."""
    return [n for n in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48) if n < masks] + [masks]


def more(masks: int) -> list[int]:
    """Numbers of passes up to three for each mask, for the rules that take tokens back."""
    return [n for n in (4, 8, 16, 32) if n <= masks] + [masks, 2 * masks, 3 * masks]


def settings(masks: int, guided: bool) -> Settings:
    """Name and predictor options of every setting; equal names are points of one curve."""
    for n in few(masks):
        yield "uniform", {"max_steps": n}
        for share in SHARES:
            yield share, {"max_steps": n, "confidence": share}
        if n >= 4:
            yield (
                "top_prob in 4 blocks",
                {
                    "max_steps": n,
                    "confidence": "top_prob",
                    "block_length": -(-masks // 4),
                },
            )
        if guided:
            yield (
                "top_prob, guided (1.0)",
                {
                    "max_steps": n,
                    "confidence": "top_prob",
                    "cfg_scale": 1.0,
                },
            )
    for threshold in (0.01, 0.05, 0.1, 0.3, 1.0, 3.0, 10.0):
        yield "EB (entropy budget)", {"confidence": "entropy", "threshold": threshold}
    for threshold in (0.02, 0.1, 0.5, 1.0):
        yield "budget of top_prob", {"confidence": "top_prob", "threshold": threshold}
    for tau in (0.3, 0.5, 0.7, 0.9, 0.95, 0.99):
        yield "probability_threshold", {"strategy": {"name": "probability_threshold", "tau": tau}}
    for factor in (0.05, 0.2, 0.5, 1.0, 2.0):
        yield "probability_factor", {"strategy": {"name": "probability_factor", "factor": factor}}
    for tau in (0.3, 0.5, 0.7, 0.9):
        for kappa in (0.01, 0.1):
            rule = {"name": "klass", "tau": tau, "kappa": kappa}
            yield "klass", {"strategy": rule}
    for n in more(masks):
        yield "remdm (cap)", {"max_steps": n, "revision": {"name": "remdm", "eta": 0.02}}
        yield "remdm (conf)", {"max_steps": n, "revision": {"name": "remdm", "rule": "conf"}}
        yield (
            "remdm (cap) with top_prob",
            {
                "max_steps": n,
                "confidence": "top_prob",
                "revision": {"name": "remdm", "eta": 0.02},
            },
        )
        yield "p2", {"max_steps": n, "revision": "p2"}
