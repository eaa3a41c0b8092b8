"""What Hydra and the host ask of a plugin's configs."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hydra._internal.utils import _locate
from omegaconf import DictConfig, OmegaConf
from omegaconf.base import Container
from omegaconf.errors import InterpolationToMissingValueError
from xlm.utils.imports import get_function
from xlm.utils.omegaconf_resolvers import dummy_resolvers

from xlm_mlm.conformance.adapter import setting
from xlm_mlm.conformance.rules import Broken, CannotRun, rule
from xlm_mlm.conformance.subject import Subject
from xlm_mlm.conformance.survey import Part
from xlm_mlm.conformance.wiring import brief, compose, host_configs
from xlm_mlm.plugin.registry import contributions

# The keys whose values the host passes to `get_function`, in xlm/datamodule.py and xlm/metrics.py.
FUNCTIONS = {
    *("dataset_constructor_str", "filter_fn", "on_the_fly_filter_fn", "on_the_fly_processor"),
    *("on_the_fly_group_processor", "preprocess_function", "print_batch_fn", "update_fn"),
}
TAGS = ("model_type", "model", "dataset", "noise_schedule")
_TAG_KEYS = {f"tags.{name}" for name in TAGS}  # these have a rule of their own
MISSING = (
    "???; give it a value, or null, or, if the user must give one, let the adapter do so in "
    "`overrides`"
)
# Of a long list the first few show what is wrong.
_MOST = 20


def _listed(lines: list[str]) -> str:
    rest = len(lines) - _MOST
    return "\n".join([*lines[:_MOST], *([f"and {rest} more"] if rest > 0 else [])])


@rule(
    "configs-parse",
    part="plugin",
    says="Every config is one YAML document that Hydra can read, with a mapping in it.",
    host="Hydra, FileConfigSource.load_config, reads a config with OmegaConf.load, which refuses "
    "a key that stands twice, and composes mappings only",
)
def parse(part: Part) -> None:
    """Read every file."""
    wrong = []
    for _, file in part.subject.configs():
        try:
            found = OmegaConf.load(file)
        except Exception as error:
            wrong.append((file, f"{_place(file, error)}: {brief(error)}"))
        else:
            if not isinstance(found, DictConfig):
                wrong.append((file, f"{file}: it holds a list; it must hold a mapping"))
    if wrong:
        raise Broken(_listed([line for _, line in wrong]), wrong[0][0])


def _place(file: Path, error: BaseException) -> str:
    mark = getattr(error, "problem_mark", None)
    return f"{file}:{mark.line + 1}" if mark is not None else str(file)


@dataclass(frozen=True)
class _Name:
    """A dotted name in a config."""

    key: str
    name: str
    place: str


@rule(
    "configs-names-resolve",
    part="plugin",
    says="Every `_target_` and every name of a function in the plugin's configs leads to "
    "something that can be called.",
    host="Hydra's instantiate calls what `_target_` names; xlm/utils/imports.py, get_function, "
    "imports what stands before the last dot of `update_fn`, `preprocess_function`, "
    "`print_batch_fn` and the like, when xlm/metrics.py and xlm/datamodule.py ask for it",
)
def names_resolve(part: Part) -> None:
    """Look each up; what an absent extra would bring is left out."""
    places: dict[tuple[str, str], str] = {}
    for _, file in part.subject.configs():
        for found in _names_in(file):
            places.setdefault((found.key, found.name), found.place)
    wrong = []
    for (key, name), place in places.items():
        problem = _problem_of(part.subject, key, name)
        if problem:
            wrong.append((place, f"{place}: {key}: {name}: {problem}"))
    if wrong:
        raise Broken(_listed([line for _, line in wrong]), wrong[0][0])


def _names_in(file: Path) -> Iterator[_Name]:
    """The dotted names in a file; none if it does not parse, which is for another rule to say."""
    try:
        root = yaml.compose(file.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except (yaml.YAMLError, ValueError, RecursionError):
        return
    waiting, seen = [root], set()
    while waiting:
        node = waiting.pop(0)
        # An alias is the node that it stands for, which may hold itself.
        if not isinstance(node, yaml.CollectionNode) or id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting.extend(node.value)
            continue
        for key, value in node.value:
            waiting.append(value)
            text = value.tag == "tag:yaml.org,2002:str"
            if text and isinstance(key.value, str) and _is_fixed_name(key.value, value.value):
                yield _Name(key.value, value.value, f"{file}:{value.start_mark.line + 1}")


def _is_fixed_name(key: Any, value: str) -> bool:
    """Whether a name stands there that is interpolated from nowhere, and not missing."""
    return (key == "_target_" or key in FUNCTIONS) and "${" not in value and value != "???"


def _problem_of(subject: Subject, key: str, name: str) -> str:
    """Why a name is of no use; empty if it is, or if an extra is missing that need not be there."""
    if key != "_target_" and "." not in name:
        return "it has no dot; it must be module.function"
    try:
        found = _locate(name) if key == "_target_" else get_function(name)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        missing = _missing_modules(error)
        optional = setting(subject.adapter, "optional_modules")
        if any(f"{module}.".startswith(f"{root}.") for module in missing for root in optional):
            return ""
        return f"{brief(error)}{_advice(subject, missing)}"
    return "" if callable(found) else f"it is {found!r}, which can't be called"


def _missing_modules(error: BaseException | None) -> set[str]:
    """The modules whose absence led to an error, however deep."""
    missing: set[str] = set()
    while error is not None:
        if isinstance(error, ModuleNotFoundError) and error.name:
            missing.add(error.name)
        error = error.__cause__ or error.__context__
    return missing


def _advice(subject: Subject, missing: set[str]) -> str:
    others = sorted({module.partition(".")[0] for module in missing} - {*subject.packages, "xlm"})
    if not others:
        return ""
    return (
        f" (not installed: {', '.join(others)}; if an extra brings it, let the adapter say so in "
        "optional_modules)"
    )


@rule(
    "configs-no-shadow",
    part="plugin",
    says="No config has the path of one of the host's own, or of a plugin's that is searched "
    "before.",
    host="xlm/commands/lightning_main.py makes `configs/lightning_train` Hydra's first folder and "
    "appends `configs/common` before those of models; Hydra takes the first match, so a config "
    "of the same path in a plugin is never read",
)
def no_shadow(part: Part) -> None:
    """Compare the paths."""
    folders = [host_configs() / name for name in ("lightning_train", "common")]
    folders += _searched_before(part.subject)
    hidden = []
    for folder, file in part.subject.configs():
        path = file.relative_to(folder)
        hidden += [(file, host / path) for host in folders if (host / path).is_file()]
    if hidden:
        lines = [f"{file} is never read: {other} comes first; rename it" for file, other in hidden]
        raise Broken(_listed(lines), hidden[0][0])


def _searched_before(subject: Subject) -> Iterator[Path]:
    """The folders of registered plugins that come before a registered plugin's own."""
    registered = contributions() if subject.kind == "plugin" else []
    for contribution in registered:
        if contribution.entry in subject.entries:
            return
        yield from contribution.config_dirs


@rule(
    "configs-experiments-compose",
    part="experiment",
    says="The experiment composes, with nothing missing, and no interpolation and no name of the "
    "host's in it leads nowhere.",
    host="xlm/utils/rich_utils.py, print_config_tree, resolves the whole config before a job "
    "begins; what only the job knows, such as `${tokenizer:...}`, is left as it is. Then the "
    "job builds what is named",
)
def experiments_compose(part: Part) -> None:
    """Compose it under the host's configs, as it is installed."""
    try:
        cfg = _composed(part)
    except Exception as error:
        raise Broken(brief(error), _file_of(part)) from error
    left = _left_open(cfg)
    fine = _TAG_KEYS | _given(part, {key for key, why in left.items() if why == MISSING})
    wrong = [f"{key} is {why}" for key, why in left.items() if key not in fine]
    wrong += _wrong_names(part.subject, OmegaConf.to_container(cfg, resolve=False))
    if wrong:
        raise Broken(_listed(wrong), _file_of(part))
    if part.failure:
        raise Broken(f"what it is made of can't be found: {part.failure}", _file_of(part))


def _composed(part: Part) -> DictConfig:
    """The experiment without anybody's overrides."""
    return compose(part.subject, part.experiment) if part.cfg is None else part.cfg


def _left_open(cfg: DictConfig) -> dict[str, str]:
    """What is missing or can't be resolved: key -> why."""
    with dummy_resolvers():
        return dict(_open_below(cfg))


def _given(part: Part, missing: set[str]) -> set[str]:
    """Those of the missing keys that the adapter gives, in the user's place."""
    adapter = part.subject.adapter
    own = setting(adapter, "experiments").get(part.experiment, ())
    overrides = [*setting(adapter, "overrides"), *own]
    if not overrides or not missing:
        return set()
    try:
        cfg = compose(part.subject, part.experiment, overrides)
    except Exception:
        return set()
    return missing - set(_left_open(cfg))


def _wrong_names(subject: Subject, config: Any) -> Iterator[str]:
    """The names of others' configs that are of no use; the subject's own have their own rule."""
    own = "\n".join(file.read_text(errors="replace") for _, file in subject.configs())
    for place, key, name in _composed_names(config):
        if name not in own:
            problem = _problem_of(subject, key, name)
            if problem:
                yield f"{place}{key} is {name}, from a config of somebody else: {problem}"


def _composed_names(node: Any, above: str = "") -> Iterator[tuple[str, str, str]]:
    items = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in items:
        if isinstance(value, dict | list):
            yield from _composed_names(value, f"{above}{key}.")
        elif isinstance(value, str) and _is_fixed_name(key, value):
            yield above, str(key), value


def _open_below(node: Any, above: str = "") -> Iterator[tuple[str, str]]:
    keys = list(node) if isinstance(node, DictConfig) else range(len(node))
    for key in keys:
        place = f"{above}{key}"
        if OmegaConf.is_missing(node, key):
            yield place, MISSING
            continue
        try:
            value = node[key]
        except InterpolationToMissingValueError:
            continue  # what it leads to is a finding itself
        except Exception as error:
            if "HydraConfig was not set" not in str(error):  # `${hydra:...}` is set in a real run
                yield (
                    place,
                    f"{node._get_node(key)._value()}, which can't be resolved: {brief(error)}",
                )
            continue
        # What an interpolation leads to is looked at where it stands.
        if isinstance(value, Container) and not OmegaConf.is_interpolation(node, key):
            yield from _open_below(value, f"{place}.")


@rule(
    "configs-tags",
    part="experiment",
    says=f"The experiment says in `tags` what its {', '.join(TAGS)} are.",
    host="xlm/configs/lightning_train/config.yaml makes `job_name`, and with it the folder of a "
    "run, of these four tags, which are ??? there",
)
def tags(part: Part) -> None:
    """Compose it and look."""
    try:
        found = _composed(part).get("tags")
    except Exception as error:
        raise CannotRun(f"it does not compose: {brief(error)}") from error
    if not isinstance(found, Mapping):
        raise Broken(f"`tags` is {found!r}; it must be a mapping", _file_of(part))
    absent = [name for name in TAGS if OmegaConf.is_missing(found, name) or name not in found]
    if absent:
        raise Broken(
            f"`tags` lacks {', '.join(absent)}, so no job starts without a job_name on the command "
            "line; let the configs that choose the model, the data and so on set one each",
            _file_of(part),
        )


def _file_of(part: Part) -> Path | None:
    candidates = [
        folder / "experiment" / f"{part.experiment}.yaml" for folder in part.subject.config_dirs
    ]
    return next((file for file in candidates if file.is_file()), None)
