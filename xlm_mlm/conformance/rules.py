"""The rules: what is checked, why the host needs it, and what came of it."""

import inspect
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from xlm_mlm.conformance.report import Result
from xlm_mlm.entries import describe


class Broken(Exception):
    """A rule is broken.

    Args:
        what: what is wrong, with the values seen and those that would be right.
        look_at: the class, function or file where to look.
    """

    def __init__(self, what: str, look_at: Any = None) -> None:
        super().__init__(what)
        self.look_at = look_at


class CannotRun(Exception):
    """A check can't be made, which counts as a failure: the message says what is missing."""


class NothingHere(Exception):
    """This part has nothing that the rule is about; another part must have it."""


@dataclass(frozen=True)
class Rule:
    """One rule.

    Attributes:
        name: short and unique; what stands before the first hyphen is its area.
        part: the kind of thing it is about, such as `model`.
        says: the rule, in one sentence.
        host: where it comes from: the file of the host and what it does there.
        needs: capabilities; if one is declared absent the rule is left out.
        somewhere: whether a part may have nothing that the rule is about, as long as one has.
        role: `lm` or `prediction`, for rules about the loaders that go to the loss, or to the
            predictor, alone.
        compiles: whether what the plugin marks with torch.compile is compiled during the check;
            otherwise it runs in eager mode, which is quicker and needs no C++ compiler.
        check: raises `Broken`, `CannotRun` or (if `somewhere`) `NothingHere`.
    """

    name: str
    part: str
    says: str
    host: str
    needs: tuple[str, ...]
    somewhere: bool
    check: Callable[[Any], None]
    role: str = ""
    compiles: bool = False

    @property
    def area(self) -> str:
        """What the rule is about, `model` for example."""
        return self.name.partition("-")[0]


RULES: dict[str, Rule] = {}


def rule(
    name: str,
    *,
    part: str,
    says: str,
    host: str,
    needs: tuple[str, ...] = (),
    somewhere: bool = False,
    role: str = "",
    compiles: bool = False,
) -> Callable[[Callable[[Any], None]], Callable[[Any], None]]:
    """Make a function that takes a part of a plugin a rule."""

    def register(check: Callable[[Any], None]) -> Callable[[Any], None]:
        if name in RULES:
            raise ValueError(f"there are two rules named {name}")
        RULES[name] = Rule(name, part, says, host, needs, somewhere, check, role, compiles)
        return check

    return register


@contextmanager
def asking(what: str, look_at: Any = None) -> Iterator[None]:
    """Run the plugin's code: whatever it raises breaks the rule that is being checked."""
    try:
        yield
    except (KeyboardInterrupt, Broken, CannotRun, NothingHere):
        raise
    except BaseException as error:
        raise Broken(f"{what} raises {describe(error)}{_origin(error)}", look_at) from error


@contextmanager
def preparing(what: str) -> Iterator[None]:
    """Make ready for a check: whatever is raised is no verdict on the rule, but it can't run."""
    try:
        yield
    except (KeyboardInterrupt, Broken, CannotRun, NothingHere):
        raise
    except BaseException as error:
        raise CannotRun(f"{what} raises {describe(error)}{_origin(error)}") from error


def _origin(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f", at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""


def where(thing: Any) -> str:
    """A class, function or file in words: its dotted name and the line where it stands."""
    if isinstance(thing, str | Path):
        return str(thing)
    thing = inspect.unwrap(thing) if callable(thing) else thing
    if not (inspect.isclass(thing) or inspect.isroutine(thing)):
        thing = type(thing)
    name = f"{thing.__module__}.{thing.__qualname__}"
    try:
        return f"{name} ({inspect.getsourcefile(thing)}:{inspect.getsourcelines(thing)[1]})"
    except (OSError, TypeError):
        return name


@dataclass(frozen=True)
class Check:
    """One rule applied to some part of a plugin.

    Attributes:
        rule: the rule.
        parts: what it is applied to; several only for a rule that holds `somewhere`.
        absent: capability -> why the plugin does not have it.
        missing: why there are no parts, if there are none.
    """

    rule: Rule
    parts: tuple[Any, ...]
    absent: Mapping[str, str]
    missing: str = ""

    def __str__(self) -> str:
        return f"{self.rule.name}: {self.label}" if self.parts else self.rule.name

    @property
    def label(self) -> str:
        """The parts in words."""
        return "; ".join(dict.fromkeys(str(part) for part in self.parts))

    def run(self) -> Result:
        """Make the check. Whatever happens in it ends up in the result."""
        start = time.perf_counter()
        outcome, message = self._outcome()
        return self.result(outcome, message, round(time.perf_counter() - start, 3))

    def result(self, outcome: str, message: str, seconds: float) -> Result:
        """What a report says of this check."""
        return Result(
            rule=self.rule.name,
            area=self.rule.area,
            says=self.rule.says,
            host=self.rule.host,
            part=self.label,
            outcome=outcome,
            message=message,
            seconds=seconds,
        )

    def _outcome(self) -> tuple[str, str]:
        for need in (*self.rule.needs, self.rule.part):
            if need in self.absent:
                return "absent", f"{need}: {self.absent[need]}"
        if not self.parts:
            return "could not run", self.missing
        found: dict[str, list[str]] = {"broken": [], "could not run": [], "idle": []}
        for part in self.parts:
            outcome, message = self._of_part(part)
            if outcome != "passed":
                found[outcome].append(f"{part}: {message}")
        for outcome in ("broken", "could not run"):
            if found[outcome]:
                return outcome, "\n".join(found[outcome])
        if len(found["idle"]) == len(self.parts):
            needs = " or ".join(self.rule.needs)
            advice = f"; if the plugin has no {needs}, let its adapter say so" if needs else ""
            return "could not run", "\n".join([f"nothing to check{advice}", *found["idle"]])
        return "passed", ""

    def _of_part(self, part: Any) -> tuple[str, str]:
        stance = "default" if self.rule.compiles else "force_eager"
        try:
            with torch.compiler.set_stance(stance):
                self.rule.check(part)
        except KeyboardInterrupt:
            raise
        except Broken as error:
            at = f"\nlook at: {where(error.look_at)}" if error.look_at is not None else ""
            return "broken", f"{error}{at}"
        except CannotRun as error:
            return "could not run", str(error)
        except NothingHere as reason:
            return "idle", str(reason)
        except BaseException as error:
            trace = "".join(traceback.format_exception(error)[-6:])
            return "could not run", f"{describe(error)}\n{trace}"
        return "passed", ""
