"""Checks shared by every floor: each error gives the value, the rule and what would be right."""

import operator
from collections.abc import Collection
from numbers import Real
from typing import Any


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


def require_int(name: str, value: Any, minimum: int) -> int:
    """Return `value` as an int if it is an integer of at least `minimum`.

    NumPy's integers are integers here, booleans are not.

    Raises:
        ValueError: it is not.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = minimum - 1
    if isinstance(value, bool) or number < minimum:
        raise ValueError(f"{name} is {value!r}; it must be an integer of at least {minimum}")
    return number


def require_number(name: str, value: Any, minimum: float, rule: str) -> float:
    """Return `value` as a float if it is a finite number of at least `minimum`.

    Args:
        name: what it is, for the message.
        value: the number.
        minimum: the least it may be.
        rule: what it must be, completing "it must be ...".

    Raises:
        ValueError: it is not; a NaN is not.
    """
    if (
        isinstance(value, bool)
        or not isinstance(value, Real)
        or not minimum <= float(value) < float("inf")
    ):
        raise ValueError(f"{name} is {value!r}; it must be {rule}")
    return float(value)


def require_choice(name: str, value: Any, choices: Collection[Any]) -> Any:
    """Return `value` if it is one of `choices`.

    Raises:
        ValueError: it is not; the message lists the choices.
    """
    # One by one: `in` on a dict would ask an unhashable value for its hash.
    if not any(value == choice for choice in choices):
        known = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"{name} is {value!r}; it must be one of {known}")
    return value


def require_field(example: Any, name: str, index: int, needed_by: str) -> Any:
    """Return `example[name]`.

    Args:
        example: one row of the dataset.
        name: the field.
        index: the row's number in its batch, for the message.
        needed_by: who asks, for the message.

    Raises:
        KeyError: the row has no such field; the message lists those it has.
    """
    try:
        return example[name]
    except KeyError:
        fields = ", ".join(sorted(map(str, example))) or "none"
        raise KeyError(
            f"{needed_by} needs the field {name!r}, which row {index} of the batch does not have; "
            f"its fields: {fields}"
        ) from None
