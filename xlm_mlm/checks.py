"""Checks shared by every floor: each error gives the value, the rule and what would be right."""

import operator
import os
from collections.abc import Collection, Mapping
from numbers import Real
from pathlib import Path
from typing import Any

LARGEST = 2**63 - 1
"""Of the integers that tensors hold."""
_SHOWN = 200
# How the names of the types of real numbers begin, in NumPy and torch.
_NUMBERS = ("int", "uint", "float", "bfloat")


def require_token_id(tokenizer: Any, name: str, why: str) -> int:
    """Return the id of a special token.

    Args:
        tokenizer: any tokenizer with `<name>_token_id` attributes.
        name: the token's short name: `mask`, `pad`, `bos`, `eos` or `cls`.
        why: what the token is needed for, completing "needed to ...".

    Raises:
        ValueError: `tokenizer` is None or has no such token.
    """
    if tokenizer is None:
        raise ValueError(f"no tokenizer was given; one with a {name} token is needed to {why}")
    token_id = getattr(tokenizer, f"{name}_token_id", None)
    if token_id is None:
        raise ValueError(
            f"{type(tokenizer).__name__} has no {name} token ({name}_token_id is None); it is "
            f"needed to {why}. Add one, for example "
            f"tokenizer.add_special_tokens({{'{name}_token': '[{name.upper()}]'}})"
        )
    return require_int(f"{name}_token_id of {type(tokenizer).__name__}", token_id, 0)


def require_int(name: str, value: Any, minimum: int, maximum: int | None = LARGEST) -> int:
    """Return `value` as an int if it is an integer from `minimum` to `maximum`.

    NumPy's integers are integers here, and so are arrays and tensors of one, booleans are not.

    Args:
        name: what it is, for the message.
        value: the number.
        minimum: the least it may be.
        maximum: the most it may be; None for no bound.

    Raises:
        ValueError: it is not.
    """
    rule = f"an integer of at least {minimum}"
    try:
        number = operator.index(value)
    except (TypeError, ValueError, RuntimeError):  # an array or tensor of several numbers
        number = minimum - 1
    if maximum is not None and number > maximum:
        raise ValueError(f"{name} is {shown(value)}; it must be {rule} and at most {maximum}")
    if _holds_booleans(value) or number < minimum:
        raise ValueError(f"{name} is {shown(value)}; it must be {rule}")
    return number


def require_number(name: str, value: Any, minimum: float, rule: str) -> float:
    """Return `value` as a float if it is a finite number of at least `minimum`.

    Fractions, NumPy's numbers, and arrays and tensors without a dimension are numbers here.

    Args:
        name: what it is, for the message.
        value: the number.
        minimum: the least it may be.
        rule: what it must be, completing "it must be ...".

    Raises:
        ValueError: it is not; a NaN is not.
    """
    number = _float_of(value)
    if number is None:
        kind = rule if rule.startswith("a number") else f"a number {rule}"
        raise ValueError(f"{name} is {shown(value)}; it must be {kind}")
    if not minimum <= number < float("inf"):
        raise ValueError(f"{name} is {shown(value)}; it must be {rule}")
    return number


def plain(value: Any) -> Any:
    """A number or boolean of whatever type as Python's own; anything else as it is."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if _is_bool(value):
        return bool(value)
    if _holds_booleans(value):
        return value
    try:
        return operator.index(value)
    except (TypeError, ValueError, RuntimeError):
        number = _float_of(value)
        return value if number is None else number


def require_bool(name: str, value: Any) -> bool:
    """Return `value` as a bool if it is one; NumPy's are.

    The text "false" is none, and would count as true.

    Raises:
        ValueError: it is not.
    """
    if not _is_bool(value):
        raise ValueError(f"{name} is {shown(value)}; it must be true or false")
    return bool(value)


def require_path(name: str, value: Any) -> Path:
    """Return `value` as a path if it is one, or a text that is not empty.

    Raises:
        ValueError: it is not.
    """
    # The empty path is the current folder to the system, which nobody means who writes nothing.
    if not isinstance(value, str | os.PathLike) or value == "":
        raise ValueError(f"{name} is {shown(value)}; it must be a path")
    return Path(value)


def require_mapping(name: str, value: Any, of: str) -> Any:
    """Return `value` if it is a mapping.

    Args:
        name: what it is, for the message.
        value: the mapping.
        of: what it must hold, completing "it must be a mapping of ...".

    Raises:
        ValueError: it is not.
    """
    if not isinstance(value, Mapping):
        raise ValueError(f"{name} is {shown(value)}; it must be a mapping of {of}")
    return value


def require_choice(name: str, value: Any, choices: Collection[Any]) -> Any:
    """Return the one of `choices` that `value` equals.

    Raises:
        ValueError: it is not; the message lists the choices.
    """
    # One by one: `in` on a dict would ask an unhashable value for its hash.
    for choice in choices:
        if _equal(value, choice):
            return choice
    known = ", ".join(repr(choice) for choice in choices)
    raise ValueError(f"{name} is {shown(value)}; it must be one of {known}")


def shown(value: Any) -> str:
    """A value for a message: on one line, and cut where it is long."""
    try:
        text = " ".join(repr(value).split())
    except Exception:  # a number of too many digits; a stranger's class
        return f"a value of type {type(value).__name__}, which can't be shown"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _is_bool(value: Any) -> bool:
    # NumPy's by the name of its type, so that nothing has to be imported: "bool", once "bool_".
    kind = type(value)
    return isinstance(value, bool) or (
        kind.__module__ == "numpy" and kind.__name__.rstrip("_") == "bool"
    )


def _holds_booleans(value: Any) -> bool:
    return _is_bool(value) or _dtype(value) == "bool"


def _dtype(value: Any) -> str:
    """The name of an array's or tensor's type; empty for anything else."""
    return str(getattr(value, "dtype", "")).removeprefix("torch.")


def _float_of(value: Any) -> float | None:
    """A number as a float; None for what is no number."""
    scalar = getattr(value, "ndim", None) == 0 and _dtype(value).startswith(_NUMBERS)
    if _holds_booleans(value) or not (scalar or isinstance(value, Real)):
        return None
    try:
        return float(value)
    except OverflowError:  # an integer beyond all floats
        return float("inf")
    except (TypeError, ValueError, RuntimeError):  # a tensor without a value
        return None


def _equal(value: Any, choice: Any) -> bool:
    try:
        return bool(value == choice)
    except (TypeError, ValueError, RuntimeError):  # an array's many answers
        return False


def require_field(example: Any, name: str, index: int, needed_by: str) -> Any:
    """Return `example[name]`.

    Args:
        example: one row of the dataset.
        name: the field.
        index: the row's number in its batch, for the message.
        needed_by: who asks, for the message.

    Raises:
        KeyError: the row has no such field; the message lists those it has.
        ValueError: it is no row.
    """
    require_mapping(f"row {index} of the batch that {needed_by} was given", example, "fields")
    try:
        return example[name]
    except KeyError:
        fields = ", ".join(sorted(map(str, example))) or "none"
        raise KeyError(
            f"{needed_by} needs the field {name!r}, which row {index} of the batch does not have; "
            f"its fields: {fields}"
        ) from None
