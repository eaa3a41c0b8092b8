"""Sampling rules by name: ours, and those that other packages register in `xlm_mlm.samplers`."""

import inspect
from collections.abc import Mapping
from typing import Any

from xlm_mlm.entries import describe, read_entries

GROUP = "xlm_mlm.samplers"

_KINDS = {
    "select": ("strategy", "`needs_logits` and `select(candidates)`", "needs_logits"),
    "remask": ("revision", "`needs_scores` and `remask(generated)`", "needs_scores"),
}


def make_rule(given: Any, method: str) -> Any:
    """The rule that an option of the predictor means.

    Args:
        given: None, a rule, a name, or a mapping with the name under `name` and the rule's
            options beside it.
        method: `select` for a position rule, `remask` for a revision.

    Returns:
        The rule; None for None.

    Raises:
        ValueError: no such name, or it is a rule of the other kind; the options don't fit.
    """
    option, members, attribute = _KINDS[method]
    if given is None:
        return None
    rule = given
    if isinstance(given, str | Mapping):
        options: dict[str, Any] = {"name": given} if isinstance(given, str) else {**given}
        name = options.pop("name", None)
        if not isinstance(name, str):
            raise ValueError(
                f"{option} is {dict(given)!r}; a mapping must have the rule's name under `name`, "  # type: ignore[arg-type]
                f"which may be {_known(method)}"
            )
        rule = _made(name, options, method)
    if inspect.isclass(rule):
        raise ValueError(f"{option} is the class {rule.__qualname__}; give an object, or its name")
    if callable(getattr(rule, method, None)) and hasattr(rule, attribute):
        return rule
    for other, (its_option, _, _) in _KINDS.items():
        if other != method and callable(getattr(rule, other, None)):
            raise ValueError(
                f"{option} is {given!r}, which is a rule for the option {its_option}; give it there"
            )
    raise ValueError(
        f"{option} is {given!r}; it must be an object with {members}, or one of {_known(method)}"
    )


def _made(name: str, options: dict[str, Any], method: str) -> Any:
    option = _KINDS[method][0]
    # Those of one name are ordered, ours first.
    entry = next((each for each in read_entries([GROUP]) if each.name == name), None)
    if entry is None:
        raise ValueError(f"{option} is {name!r}; the installed rules are {_known(None)}")
    try:
        factory = entry.load()
    except Exception as error:
        raise ValueError(
            f"{option} is {name!r} of {entry.origin}, which can't be imported: {describe(error)}"
        ) from error
    try:
        inspect.signature(factory).bind(**options)
    except TypeError as error:
        takes = ", ".join(inspect.signature(factory).parameters) or "none"
        raise ValueError(f"{option} {name!r}: {error}; its options: {takes}") from error
    return factory(**options)


def _known(method: str | None) -> str:
    """The names of the rules of one kind, or of both."""
    names = {entry.name for entry in read_entries([GROUP]) if _is_a(entry, method)}
    return ", ".join(map(repr, sorted(names))) or "none"


def _is_a(entry: Any, method: str | None) -> bool:
    if method is None:
        return True
    try:
        return hasattr(entry.load(), method)
    except Exception:
        return False


class Sampler:
    """What the objects of the group `xlm_mlm.samplers` are: one of these two.

    A class, or a callable that returns a rule; its parameters are the options that YAML gives.
    """

    def select(self, candidates: Any) -> Any:
        """Which masks to fill: `PositionStrategy`."""

    def remask(self, generated: Any) -> Any:
        """Which tokens to take back: `Revision`."""
