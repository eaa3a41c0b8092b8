"""An experiment of the plugin, made small, put together as the host does it."""

import copy
import inspect
import itertools
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import hydra
import torch
import yaml
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf, open_dict
from xlm.utils.omegaconf_resolvers import dummy_resolvers

from xlm_mlm.conformance.adapter import setting
from xlm_mlm.conformance.made_up import KINDS, MadeUpManager, make_rows, make_tokenizer
from xlm_mlm.conformance.rules import CannotRun, preparing
from xlm_mlm.conformance.subject import Subject
from xlm_mlm.entries import attempt

# Only what an experiment or its model's constructor has is set; an adapter's overrides come after.
SMALL: dict[str, Any] = {
    "block_size": 12,
    "input_block_size": 8,
    "model.d_model": 16,
    "model.nhead": 2,
    "model.num_layers": 2,
    "model.dim_feedforward": 32,
    "model.rotary_emb_dim": 8,
    "predictor.max_steps": 8,
    "per_device_batch_size": 4,
    "per_device_val_batch_size": 4,
    "global_batch_size": 4,
    "num_dataloader_workers": 0,
    "num_dataset_workers": 1,
    "dataloader_prefetch_factor": None,
    "dataloader_pin_memory": False,
    "compile": False,
}

TOKENIZER = f"{make_tokenizer.__module__}.{make_tokenizer.__name__}"

MANAGER = f"{MadeUpManager.__module__}.{MadeUpManager.__name__}"


LONGEST = 400  # characters of a message


def host_configs() -> Path:
    """The host's folder of configs."""
    import xlm

    return Path(xlm.__file__).parent / "configs"


def compose(subject: Subject, experiment: str, overrides: Sequence[str] = ()) -> DictConfig:
    """The config of an experiment as `xlm job_type=train` would have it.

    The subject's configs come right after the host's, so that it is they that are tested when
    another installed plugin has some of the same names.
    """
    from xlm.commands import lightning_main  # noqa: F401 - registers the host's resolvers

    nowhere = tempfile.gettempdir()
    fixed = [
        f"experiment={experiment}",
        "job_type=train",
        "job_name=conformance",
        f"paths.log_dir='{nowhere}'",
        # Hydra itself fills these two in, in a real run.
        f"paths.run_dir='{nowhere}'",
        f"paths.work_dir='{nowhere}'",
    ]
    search_path = create_config_search_path(str(host_configs() / "lightning_train"))
    for folder in reversed((host_configs() / "common", *subject.config_dirs)):
        search_path.append(subject.name, str(folder), SearchPathQuery(provider="main", path=None))
    before = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        Hydra.create_main_hydra2("conformance", search_path)
        return hydra.compose("config", [*fixed, *overrides])
    finally:
        GlobalHydra.instance().hydra = before


def brief(error: BaseException) -> str:
    """What an error of Hydra or OmegaConf says, without the lists of everything there is."""
    if isinstance(error, yaml.MarkedYAMLError):
        return ", ".join(part for part in (error.context, error.problem) if part)
    end = r"\n\s*\n|\n\s*(full_key|object_type|Available options|Config search path)\b"
    first = re.split(end, str(error).strip())[0]
    text = f"{type(error).__name__}: {' '.join(first.split())}"
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."


def small_overrides(cfg: DictConfig) -> list[str]:
    """Overrides for what `cfg` has of the sizes, so that a check takes no time."""
    found = []
    for key, value in SMALL.items():
        parent, _, name = key.rpartition(".")
        node = OmegaConf.select(cfg, parent) if parent else cfg
        if isinstance(node, DictConfig) and (name in node or name in _parameters(node)):
            found.append(f"++{key}={'null' if value is None else str(value).lower()}")
    return found


def _parameters(node: DictConfig) -> set[str]:
    """The parameters of what a config builds; none if it can't be imported."""
    try:
        return set(inspect.signature(get_object(node["_target_"])).parameters)
    except Exception:
        return set()


@dataclass(frozen=True)
class Loader:
    """One dataloader of an experiment.

    Attributes:
        split: `train`, `val`, `test` or `predict`.
        name: the host decides by it: `lm` goes to the loss, `prediction` to the predictor.
        target: the dotted name of its collator.
        options: the names of the options that its collator is given.
    """

    split: str
    name: str
    target: str
    options: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.split}.{self.name}"

    @property
    def use(self) -> tuple[Any, ...]:
        """The collator and what it is used for: what is the same need be checked only once."""
        return self.target, self.name, self.options

    @property
    def role(self) -> str:
        """`lm`, `prediction`, or empty; in the host's order."""
        return next((role for role in ("lm", "prediction") if role in self.name), "")


def plain_dict(cfg: DictConfig, key: str) -> dict[str, Any]:
    """What a config has at `key`, as plain dicts with nothing resolved; empty if it has none."""
    node = OmegaConf.select(cfg, key)
    return OmegaConf.to_container(node, resolve=False) if node else {}  # type: ignore[return-value]


def loaders_of(cfg: DictConfig) -> list[Loader]:
    """The loaders of an experiment that have a collator; what has no class is no loader."""
    managers = plain_dict(cfg, "datamodule.dataset_managers")
    return [
        Loader(split, name, manager["collator"]["_target_"], tuple(sorted(manager["collator"])))
        for split, loaders in managers.items()
        for name, manager in (loaders or {}).items()
        if manager and "_target_" in manager and "_target_" in (manager.get("collator") or {})
    ]


class Wiring:
    """A small experiment: its config, its tokenizer, its collators, and fresh harnesses.

    Args:
        subject: the plugin.
        experiment: the experiment's name; with `@label`, a second setup of it.
        cfg: the experiment as it composes without further overrides.
    """

    def __init__(self, subject: Subject, experiment: str, cfg: DictConfig) -> None:
        self.subject = subject
        self.name = experiment
        self.experiment = experiment.partition("@")[0]
        self.plain = cfg
        self._kinds: dict[Loader, str] = {}
        self._components: Any = None
        self._datamodule: Any = None

    def __str__(self) -> str:
        return f"experiment {self.name}"

    @property
    def overrides(self) -> list[str]:
        """What makes the experiment small, then what the adapter says."""
        adapter = self.subject.adapter
        own = setting(adapter, "experiments").get(self.name, ())
        return [*small_overrides(self.plain), *setting(adapter, "overrides"), *own]

    @cached_property
    def cfg(self) -> DictConfig:
        """The small config, with the kit's tokenizer and dataset managers: no data is needed."""
        with preparing(f"composing {self} with {' '.join(self.overrides)}"):
            cfg = compose(self.subject, self.experiment, self.overrides)
        with open_dict(cfg):
            cfg.global_components.tokenizer = {"_target_": TOKENIZER}
            cfg.post_hoc_evaluator = None
            for loader in self.loaders:
                _replace_manager(cfg.datamodule.dataset_managers[loader.split], loader.name)
        return cfg

    @cached_property
    def sizes(self) -> dict[str, int]:
        """`block_size` and `input_block_size`; where the experiment has none, the kit's own."""
        names = ("block_size", "input_block_size")
        return {name: int(OmegaConf.select(self.cfg, name) or SMALL[name]) for name in names}

    @property
    def loaders(self) -> list[Loader]:
        """The dataloaders of the experiment as it is written, before the kit makes it small."""
        return loaders_of(self.plain)

    @contextmanager
    def resolvers(self) -> Iterator[None]:
        """The host's resolvers with this experiment's components behind them."""
        with dummy_resolvers():
            if self._components is None:
                self._components = hydra.utils.instantiate(self.cfg.global_components)
            _resolve("global_components", self._components.__getitem__)
            if self._datamodule is None:
                self._datamodule = hydra.utils.instantiate(self.cfg.datamodule)
            _resolve("datamodule", lambda name: getattr(self._datamodule, name))
            _resolve("tokenizer", lambda name: getattr(self._datamodule.tokenizer, name))
            yield

    @cached_property
    def datamodule(self) -> Any:
        """The datamodule, one for all harnesses; nothing is downloaded to build it."""
        with preparing(f"building the datamodule of {self}"), self.resolvers():
            return self._datamodule

    @property
    def tokenizer(self) -> Any:
        """The tokenizer that the datamodule and the components share."""
        return self.datamodule.tokenizer

    def harness(self, seed: int = 0, **changes: Any) -> Any:
        """A fresh harness of the host with a freshly initialised model, in evaluation mode.

        Args:
            seed: of torch's generator, for the weights.
            changes: values to set in the config, `predictor__max_steps=1` for example.
        """
        cfg = copy.deepcopy(self.cfg)
        for key, value in changes.items():
            OmegaConf.update(cfg, key.replace("__", "."), value, force_add=True)
        with preparing(f"building the host's harness for {self}"), self.resolvers():
            torch.manual_seed(seed)
            harness = hydra.utils.instantiate(
                cfg.lightning_module,
                cfg,
                tokenizer=self._datamodule.tokenizer,
                datamodule=self._datamodule,
                _recursive_=False,
            )
            harness.configure_model()
        return harness.eval()

    def collator(self, loader: Loader) -> Any:
        """The collator of a loader."""
        return self.datamodule.dataset_managers[loader.split][loader.name].collator

    def rows(self, loader: Loader, count: int = 4, **sizes: int) -> list[dict]:
        """Made-up rows for a loader.

        Args:
            loader: the loader.
            count: how many.
            sizes: other sizes than the experiment's, for rows that are too long.
        """
        manager = self.datamodule.dataset_managers[loader.split][loader.name]
        if hasattr(manager, "dataset_constructor"):
            return self._constructed(manager, count)
        kind, adapter = self.kind(loader), self.subject.adapter
        asked = {**self.sizes, **sizes}
        return make_rows(adapter, str(loader), self.tokenizer, asked, kind, count)

    def _constructed(self, manager: Any, count: int) -> list[dict]:
        """Rows of a dataset that the experiment makes itself, out of nothing."""
        with preparing(f"building the empty dataset of {self}"):
            manager.setup(
                "predict",
                manual_cache_dir="",
                tokenizer=self.tokenizer,
                block_size=self.sizes["block_size"],
                is_ddp=False,
                rank=0,
                world_size=1,
            )
            rows = list(itertools.islice(manager.dataset, count))
        if not rows:
            raise CannotRun(f"the empty dataset of {self} has no rows")
        return rows

    def kind(self, loader: Loader) -> str:
        """The first kind of made-up rows that the loader's collator takes."""
        if loader not in self._kinds:
            self._kinds[loader] = self._find_kind(loader)
        return self._kinds[loader]

    def _find_kind(self, loader: Loader) -> str:
        refused = []
        for kind in KINDS:
            rows = make_rows(
                self.subject.adapter, str(loader), self.tokenizer, self.sizes, kind, count=4
            )
            refusal = attempt(lambda rows=rows: self.collator(loader)(copy.deepcopy(rows)))[1]  # type: ignore[misc]
            if not refusal:
                return kind
            refused.append(f"{kind} rows {list(rows[0])}: {refusal}")
        raise CannotRun(
            f"{loader.target} takes no rows of the host's kinds; let an adapter give some in "
            "`rows`\n" + "\n".join(dict.fromkeys(refused))
        )

    def batch(self, loader: Loader, count: int = 4, seed: int = 0, **sizes: int) -> dict[str, Any]:
        """A batch of made-up rows."""
        rows = self.rows(loader, count, **sizes)
        torch.manual_seed(seed)
        with preparing(f"collating {loader} of {self}"):
            return dict(self.collator(loader)(rows))


def _replace_manager(managers: DictConfig, name: str) -> None:
    """Put the kit's dataset manager into a config, unless the dataset is made out of nothing."""
    if "dataset_constructor_str" in managers[name]:
        return
    kept = ("collator", "dataloader_kwargs", "stages")
    manager = {key: value for key, value in managers[name].items_ex(resolve=False) if key in kept}
    managers[name] = {**manager, "_target_": MANAGER, "made_up": {}}


def _resolve(name: str, find: Any) -> None:
    OmegaConf.register_new_resolver(name, find, replace=True)


def tensors(batch: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The tensors of a batch."""
    return {key: value for key, value in batch.items() if isinstance(value, torch.Tensor)}
