"""Parameters of public classes are described where they are; ruff sees to functions' (D1, D417)."""

import inspect
import re
from importlib.metadata import entry_points

import pytest

import xlm_mlm

GROUPS = ("models", "losses", "predictors", "collators", "history")


def components() -> dict[str, type]:
    """Every class that the package registers or exports."""
    found = [
        entry.load()
        for group in [*(f"xlm.{group}" for group in GROUPS), "xlm_mlm.samplers"]
        for entry in entry_points(group=group)
        if entry.value.startswith("xlm_mlm.")
    ]
    found += [getattr(xlm_mlm, name) for name in xlm_mlm.__all__]
    return {cls.__qualname__: cls for cls in found if inspect.isclass(cls)}


def ours(cls: type) -> list[type]:
    return [base for base in cls.__mro__ if base.__module__.startswith("xlm_mlm.")]


def options(cls: type) -> list[str]:
    """What is passed to make one, as far as this package takes it."""
    for base in ours(cls):
        if "__init__" in vars(base) and not issubclass(base, dict):
            parameters = [*inspect.signature(vars(base)["__init__"]).parameters.values()][1:]
            stars = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
            return [parameter.name for parameter in parameters if parameter.kind not in stars]
    return []


def documentation(cls: type) -> str:
    """Of the class and of those that it inherits from here: an option is described once."""
    docs = [vars(base).get("__doc__") or "" for base in ours(cls)]
    docs += [vars(base)["__init__"].__doc__ or "" for base in ours(cls) if "__init__" in vars(base)]
    return "\n".join(docs)


@pytest.mark.parametrize("name", sorted(components()))
def test_every_option_of_a_class_is_described(name):
    said = documentation(components()[name])
    assert said.strip()
    taken = options(components()[name])
    missing = [option for option in taken if not re.search(rf"\b{re.escape(option)}\b", said)]
    assert missing == [], f"{name} does not say what {missing} are"


def test_the_options_are_found():
    taken = {name: options(cls) for name, cls in components().items()}
    assert taken["MLMLoss"][:2] == ["loss_on_padding", "loss_on_visible_tokens"]
    assert sum(len(names) for names in taken.values()) > 100
