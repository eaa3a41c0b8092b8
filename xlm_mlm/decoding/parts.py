"""Options of the predictor that stand by themselves, checked whenever one is set."""

from typing import Any

from xlm_mlm.checks import require_bool, require_int, shown
from xlm_mlm.decoding.recording import HistoryPluginBase

# So that adding the masks of a row stays within 64 bits.
_MOST = 2**31


def checked_part(name: str, value: Any) -> Any:
    """Return the value of an option as the predictor keeps it; other attributes as they are.

    Raises:
        ValueError: it is out of range, or of another kind.
    """
    check = _CHECKS.get(name)
    return value if check is None else check(name, value)


def _passes(name: str, value: Any) -> int:
    return require_int(name, value, 1, _MOST)


def _new_tokens(name: str, value: Any) -> int | None:
    return None if value is None else require_int(name, value, 0, _MOST)


def _hook(name: str, value: Any) -> Any:
    if value is not None and not callable(value):
        raise ValueError(f"{name} is {shown(value)}; it must be callable")
    return value


def _history(name: str, value: Any) -> Any:
    if value is not None and not isinstance(value, HistoryPluginBase):
        raise ValueError(
            f"{name} is {shown(value)}; it must derive from HistoryPluginBase, as "
            "HistoryTopKPlugin(output_dir) does"
        )
    return value


_CHECKS = {
    "max_steps": _passes,
    "max_new_tokens": _new_tokens,
    "skip_special_tokens": require_bool,
    "logits_hook": _hook,
    "history": _history,
}
