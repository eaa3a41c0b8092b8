"""What a plugin may say about itself, where its configs don't say it.

A plugin names an object in the hook `xlm_conformance_adapter`, or the user on the command line
with `--xlm-adapter`. Any object will do that has some of the attributes of `Adapter`; it need not
derive from it, so that a plugin does not depend on this package.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from typing import Any

from xlm_mlm.entries import attempt

# What a family of models may lack: the checks that need it are then left out, and the report
# says so. Whatever is not declared absent is checked.
CAPABILITIES = {
    "entry_points": "is registered through entry points",
    "experiment": "brings experiments",
    "model": "brings a model",
    "loss": "brings a loss",
    "predictor": "brings a predictor",
    "collator": "brings collators",
    "metric": "brings update functions of metrics",
    "attention_mask": "its model takes an attention mask over tokens",
    "weight_decay_split": "its model splits its parameters by weight decay",
    "bf16": "its model runs in bfloat16",
    "compile": "its loss can be compiled",
    "ignored_targets": "a target of -100 in `target_ids` takes a position out of its loss",
    "target_ids": "its training batches hold token ids as targets in `target_ids`",
    "aligned_targets": "its targets stand at the positions of the tokens that they are for",
    "mask_token": "its predictor fills mask tokens",
    "prompt": "its predictor continues or fills what is given",
    "fixed_positions": "its predictor leaves what is given at its positions",
    "max_steps": "its predictor takes `max_steps`, the most passes of the model",
    "generate": "its predictor continues texts with `generate`",
}


class Adapter:
    """The defaults: nothing is absent, and everything is derived from the configs.

    Attributes:
        absent: capability -> why the family does not have it; the names are in `CAPABILITIES`.
        overrides: Hydra overrides for every experiment, after the kit's own that make it small.
        experiments: experiment -> further overrides, for those that need some. The key may be
            written `experiment@label`: a second setup of the experiment, of which those parts are
            checked whose config it changes.
        optional_modules: module -> the extra that brings it. Names that can't be imported for
            want of one of these are left out.
    """

    absent: Mapping[str, str] = {}
    overrides: Sequence[str] = ()
    experiments: Mapping[str, Sequence[str]] = {}
    optional_modules: Mapping[str, str] = {}

    def call_model(self, model: Any, input_ids: Any, attention_mask: Any) -> Any:
        """The logits (B, L, V) of `input_ids` (B, L) under `attention_mask` (B, L), True = token.

        Needed if `forward` takes more than ids, `attention_mask` and `positions`, or returns
        anything but logits.
        """
        raise NotImplementedError

    def rows(self, loader: str, tokenizer: Any, sizes: Mapping[str, int]) -> list[dict] | None:
        """At least four rows for the collator of a loader, as its dataset would give them.

        Needed if neither of the host's kinds of rows suits: `input_ids`, or those with
        `prompt_ids`; or `prompt_ids` with masks in them; or packed blocks. None leaves it to
        the kit.

        Args:
            loader: `split.name`, such as `val.prediction`.
            tokenizer: the kit's.
            sizes: `block_size` and `input_block_size` of the experiment.
        """
        return None


_KNOWN = {name for name in vars(Adapter) if not name.startswith("_")}


def load_adapter(target: str | None) -> Any:
    """The adapter at `module:object`, checked; a class is called without arguments.

    Raises:
        ValueError: it can't be found, or says something that the kit does not know.
    """
    if target is None:
        return Adapter()
    module, _, name = target.partition(":")
    if not (module and name):
        raise ValueError(f"the adapter is {target!r}; it must be 'module:object'")
    adapter, problem = attempt(partial(_make, module, name))
    if problem:
        raise ValueError(f"the adapter {target} can't be imported: {problem}")
    _check(target, adapter)
    return adapter


def _make(module: str, name: str) -> Any:
    found = import_module(module)
    for attribute in name.split("."):
        found = getattr(found, attribute)
    return found() if inspect.isclass(found) else found


def _check(target: str, adapter: Any) -> None:
    public = {name for name in dir(adapter) if not name.startswith("_")}
    if unknown := sorted(public - _KNOWN):
        raise ValueError(
            f"the adapter {target} has {', '.join(unknown)}, which the kit does not know; "
            f"it knows {', '.join(sorted(_KNOWN))}"
        )
    absent = _names_to("absent", "{capability: reason}", _is_text, target, adapter)
    _names_to("optional_modules", "{module: extra}", _is_text, target, adapter)
    _names_to("experiments", "{experiment: list of overrides}", _are_texts, target, adapter)
    overrides = setting(adapter, "overrides")
    if not _are_texts(overrides):
        raise ValueError(f"`overrides` of {target} is {overrides!r}; it must be a list of str")
    if unknown := sorted(set(absent) - set(CAPABILITIES)):
        raise ValueError(
            f"`absent` of {target} names {', '.join(map(repr, unknown))}; "
            f"the capabilities are {', '.join(CAPABILITIES)}"
        )


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _are_texts(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(map(_is_text, value))


def _names_to(
    name: str, form: str, fits: Callable[[Any], bool], target: str, adapter: Any
) -> Mapping[str, Any]:
    value = setting(adapter, name)
    if not isinstance(value, Mapping) or not all(map(fits, value.values())):
        raise ValueError(f"`{name}` of {target} is {value!r}; it must be {form}")
    return value


def setting(adapter: Any, name: str) -> Any:
    """An attribute of an adapter, or the default."""
    return getattr(adapter, name, getattr(Adapter, name))


def overridden(adapter: Any, name: str) -> bool:
    """Whether an adapter brings a method of its own."""
    own = getattr(type(adapter), name, None) or getattr(adapter, name, None)
    return own is not None and own is not getattr(Adapter, name)
