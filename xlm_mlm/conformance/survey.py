"""What there is to check: the parts of a plugin, found through its experiments."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf
from xlm.utils.omegaconf_resolvers import dummy_resolvers

from xlm_mlm.conformance.adapter import setting
from xlm_mlm.conformance.rules import RULES, Check, Rule
from xlm_mlm.conformance.subject import Subject
from xlm_mlm.conformance.wiring import Wiring, brief, compose, plain_dict
from xlm_mlm.entries import attempt

# The kinds of components that experiments name, with the capability of the same name.
COMPONENTS = ("model", "loss", "predictor", "collator", "metric")


@dataclass(frozen=True)
class Part:
    """One thing to check.

    Attributes:
        label: what it is, for people.
        subject: the plugin it is of.
        wiring: the `Wiring` of the experiment that it was found in; None for the plugin itself
            and for experiments.
        loader: the `Loader` whose collator makes its batches.
        experiment: the name of an experiment that is to be checked.
        metric: the metric's place in the config, `reported_metrics.val.lm.loss` for example.
        failure: why no parts were found in an experiment, or in a further setup of it.
        cfg: an experiment as it composes under nobody's overrides, if the survey has done that.
    """

    label: str
    subject: Subject
    wiring: Any = None
    loader: Any = None
    experiment: str = ""
    metric: str = ""
    failure: str = ""
    cfg: DictConfig | None = field(default=None, compare=False, repr=False)

    def __str__(self) -> str:
        return self.label


@dataclass
class Survey:
    """The parts of a plugin by kind, and what it lacks.

    Attributes:
        subject: the plugin.
        parts: kind -> parts.
        absent: capability -> reason, declared or found.
        missing: kind -> why there is no part of it.
    """

    subject: Subject
    parts: dict[str, list[Part]] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def warm(self) -> None:
        """Build what all checks of an experiment share, so that a fork of this process has it."""
        import torch._dynamo  # noqa: F401 - as all imports here, for the time it takes

        wirings = {part.wiring for parts in self.parts.values() for part in parts if part.wiring}
        for wiring in wirings:
            # Whoever needs what can't be built says so himself.
            attempt(lambda wiring=wiring: wiring.datamodule)  # type: ignore[misc]
            for key in ("lightning_module", "model", "loss", "predictor"):
                attempt(partial(get_object, _target(wiring.plain, key)))

    def checks(self, rules: Sequence[Rule] | None = None) -> list[Check]:
        """Every rule with every part that it is about."""
        return [
            check
            for rule in (RULES.values() if rules is None else rules)
            for check in self._checks_of(rule)
        ]

    def _checks_of(self, rule: Rule) -> Iterator[Check]:
        found = tuple(self.parts.get(rule.part, ()))
        parts = tuple(p for p in found if not rule.role or p.loader.role == rule.role)
        if found and not parts:
            return  # such loaders are fed by somebody else
        missing = self.missing.get(rule.part, f"the plugin has no {rule.part}")
        groups = [parts] if rule.somewhere or not parts else [(part,) for part in parts]
        for group in groups:
            yield Check(rule, group, self.absent, missing)


def survey(subject: Subject) -> Survey:
    """Find the parts: compose every experiment, and keep each combination once.

    An experiment that does not compose has no parts; that it does not is a finding of its own.
    """
    found = Survey(subject, absent=dict(subject.absent))
    found.parts["plugin"] = [Part(str(subject), subject)]
    wirings, failures = _wirings(subject)
    names = subject.experiments()
    changed = setting(subject.adapter, "experiments")
    plain = {w.name: w.plain for w in wirings if not changed.get(w.name)}
    found.parts["experiment"] = [
        Part(
            f"experiment {name}",
            subject,
            experiment=name,
            failure=_failures_of(name, failures),
            cfg=plain.get(name),
        )
        for name in names
    ]
    if not names:
        found.missing["experiment"] = "no experiment was found in the config folders"
    foreign: dict[str, set[str]] = {kind: set() for kind in COMPONENTS}
    for kind in COMPONENTS:
        found.parts[kind] = _distinct(kind, wirings, foreign[kind])
    found.parts["process"] = _processes(wirings)
    for kind in (*COMPONENTS, "process"):
        if found.parts[kind]:
            continue
        others = foreign.get(kind) or set().union(*foreign.values())
        if others and not failures:
            named = ", ".join(sorted(others))
            found.absent.setdefault(kind, f"those of the experiments are of others: {named}")
        lost = "; ".join(f"{name} does not compose: {why}" for name, why in failures.items())
        found.missing[kind] = f"no {kind} was found in the experiments{': ' * bool(lost)}{lost}"
    return found


def _wirings(subject: Subject) -> tuple[list[Wiring], dict[str, str]]:
    wirings, failures = [], {}
    extra = [name for name in setting(subject.adapter, "experiments") if "@" in name]
    for name in (*subject.experiments(), *extra):
        try:
            own = setting(subject.adapter, "experiments").get(name, ())
            wiring = Wiring(subject, name, compose(subject, name.partition("@")[0], own))
            for find in _FINDERS.values():
                list(find(wiring))
            wirings.append(wiring)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # composing imports what the configs name
            failures[name] = brief(error)
    return wirings, failures


def _failures_of(experiment: str, failures: dict[str, str]) -> str:
    setups = {name: why for name, why in failures.items() if name.partition("@")[0] == experiment}
    return "; ".join(f"{name}: {why}" for name, why in setups.items())


def _distinct(kind: str, wirings: list[Wiring], foreign: set[str]) -> list[Part]:
    """The parts of a kind that are the subject's own, each combination once.

    Of a second setup of an experiment, those that differ from the first.
    """
    first = {wiring.name: wiring for wiring in wirings}
    found: dict[Any, Part] = {}
    for wiring in wirings:
        experiment, _, label = wiring.name.partition("@")
        for key, target, part in _FINDERS[kind](wiring):
            if not wiring.subject.owns(target):
                foreign.add(target)
            elif not label or _differs(kind, part, first.get(experiment)):
                found.setdefault((key, label), part)
    return list(found.values())


def _differs(kind: str, part: Part, first: Wiring | None) -> bool:
    """Whether the config of a part is another one in its setup than in the first."""
    if first is None:
        return True
    collator = f"datamodule.dataset_managers.{part.loader}.collator"
    nodes = {
        "model": ("model",),
        "loss": ("model", "loss", collator),
        "predictor": ("model", "predictor", collator),
        "collator": (collator,),
        "metric": (part.metric,),
    }
    with dummy_resolvers():
        return any(
            _resolved(part.wiring.plain, node) != _resolved(first.plain, node)
            for node in nodes[kind]
        )


def _resolved(cfg: DictConfig, key: str) -> Any:
    node = OmegaConf.select(cfg, key)
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node


def _target(cfg: DictConfig, key: str) -> str:
    """The class of a component; empty if the experiment has none."""
    node = OmegaConf.select(cfg, key)
    if node is None:
        return ""
    target = node.get("_target_") if isinstance(node, DictConfig) else None
    if not isinstance(target, str):
        raise ValueError(f"{key} is {node!r:.100}; it must name a class in `_target_`")
    return target


Found = Iterator[tuple[Any, str, Part]]


def _models(wiring: Wiring) -> Found:
    target = _target(wiring.plain, "model")
    if target:
        yield target, target, Part(f"{target} ({wiring})", wiring.subject, wiring)


def _fed(component: str, role: str, wiring: Wiring) -> Found:
    """The loss with each of its loaders, or the predictor with each of its own."""
    model, target = (_target(wiring.plain, key) for key in ("model", component))
    for loader in wiring.loaders:
        if target and loader.role == role:
            part = Part(f"{target} ({wiring}, {loader})", wiring.subject, wiring, loader)
            yield (model, target, loader.use), target, part


def _collators(wiring: Wiring) -> Found:
    for loader in wiring.loaders:
        label = f"{loader.target} ({wiring}, {loader})"
        yield (
            loader.use,
            loader.target,
            Part(label, wiring.subject, wiring, loader),
        )


def _metrics(wiring: Wiring) -> Found:
    loaders = {str(loader): loader for loader in wiring.loaders}
    for group in ("reported_metrics", "diagnostic_metrics"):
        for split, by_loader in plain_dict(wiring.plain, group).items():
            for name, metrics in (by_loader or {}).items():
                for metric, config in (metrics or {}).items():
                    loader = loaders.get(f"{split}.{name}")
                    function = (config or {}).get("update_fn") or ""
                    if not function or loader is None:
                        continue
                    if not isinstance(function, str) or "metric" not in config:
                        raise ValueError(
                            f"{group}.{split}.{name}.{metric} must name a function in "
                            "`update_fn` and have a `metric`"
                        )
                    label = f"{function} ({wiring}, {loader})"
                    place = f"{group}.{split}.{name}.{metric}"
                    yield (
                        (function, config["metric"]["_target_"], loader.use),
                        function,
                        Part(label, wiring.subject, wiring, loader, metric=place),
                    )


_FINDERS: dict[str, Callable[[Wiring], Found]] = {
    "model": _models,
    "loss": partial(_fed, "loss", "lm"),
    "predictor": partial(_fed, "predictor", "prediction"),
    "collator": _collators,
    "metric": _metrics,
}


def _processes(wirings: list[Wiring]) -> list[Part]:
    """One experiment for each combination of model, loss and predictor."""
    found: dict[Any, Part] = {}
    for wiring in wirings:
        targets = [_target(wiring.plain, key) for key in ("model", "loss", "predictor")]
        if any(map(wiring.subject.owns, targets)) and "@" not in wiring.name:
            found.setdefault(tuple(targets), Part(str(wiring), wiring.subject, wiring))
    return list(found.values())
