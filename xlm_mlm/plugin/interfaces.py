"""The kinds of components, each with its entry-point group and the interface it has to fill."""

import inspect
from dataclasses import dataclass
from importlib import import_module
from typing import Any


@dataclass(frozen=True)
class Interface:
    """What the classes of one entry-point group must be.

    Attributes:
        kind: the short name of the group.
        target: the interface, as `module:class`; imported only to check a class.
        subclass: whether classes must derive from it; otherwise having its methods is enough.
        any_of: whether one of its methods is enough.
    """

    kind: str
    target: str
    subclass: bool
    any_of: bool = False

    def check(self, candidate: Any) -> type:
        """Return `candidate` if it is a class that fills the interface.

        Raises:
            ValueError: it is not; the message says what is missing.
        """
        module, _, name = self.target.partition(":")
        base = getattr(import_module(module), name)
        asked = f"a {self.kind} must be a class that {self._asks(base)}"
        if not inspect.isclass(candidate):
            raise ValueError(f"{candidate!r} is no class; {asked}")
        where = f"{candidate.__module__}.{candidate.__qualname__}"
        if self.subclass and not issubclass(candidate, base):
            raise ValueError(f"{where} does not derive from {self.target}; {asked}")
        missing = _missing(candidate, base, self.subclass)
        if missing and not (self.any_of and len(missing) < len(_methods(base))):
            raise ValueError(f"{where} does not define {', '.join(missing)}; {asked}")
        return candidate

    def _asks(self, base: type) -> str:
        if self.subclass:
            return f"derives from {self.target} and leaves nothing abstract"
        joint = " or " if self.any_of else ", "
        return f"defines {joint.join(_methods(base))} ({self.target})"


INTERFACES = {
    "xlm.models": Interface("model", "xlm.model:Model", subclass=True),
    "xlm.losses": Interface("loss", "xlm.harness:LossFunction", subclass=False),
    "xlm.predictors": Interface("predictor", "xlm.harness:Predictor", subclass=False),
    "xlm.collators": Interface("collator", "xlm.datamodule:Collator", subclass=False),
    "xlm.history": Interface("history", "xlm_mlm.history_mlm:HistoryPluginBase", subclass=True),
    "xlm_mlm.samplers": Interface(
        "sampler", "xlm_mlm.sampling.named:Sampler", subclass=False, any_of=True
    ),
}


def _methods(protocol: type) -> list[str]:
    """The methods a protocol asks for; its private and generated ones aside."""
    return [
        name
        for name, value in vars(protocol).items()
        if inspect.isfunction(value) and (name == "__call__" or not name.startswith("_"))
    ]


def _missing(candidate: type, base: type, subclass: bool) -> list[str]:
    if subclass:
        return sorted(getattr(candidate, "__abstractmethods__", ()))
    # Looked up class by class: every class object has a `__call__` through `type`, and a class
    # that derives from the protocol inherits its empty methods.
    parents = [parent for parent in candidate.__mro__ if parent not in (base, object)]
    return [
        name
        for name in _methods(base)
        if not any(callable(vars(parent).get(name)) for parent in parents)
    ]
