"""Joins the host when Hydra builds its search path, so that no environment variable is needed.

Hydra 1.3 finds the class below by scanning the `hydra_plugins` namespace, 1.4 by its entry point
in `hydra.plugins`. Both import this module in every Hydra application of the environment, hence:
nothing heavy here, nothing that can raise, and nothing done unless the application is the host.
"""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin

logger = logging.getLogger("xlm_mlm.plugin")

# The host runs these itself, before it looks at anybody's job types.
_BUILT_IN = {
    *("print_predictor_params", "name", "length_analysis", "train", "eval", "generate"),
    *("prepare_data", "extract_checkpoint", "push_to_hub"),
}


class XLMPluginSearchPath(SearchPathPlugin):
    """Adds the plugins' config folders and job types to the host's command."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Append to `search_path` if it is the host's, and leave any other alone.

        Hydra takes the first match, so the order is the precedence: the host's configs, the
        user's folders, ours, the other plugins'; the host appends installed models after us.
        """
        configs = _host_configs(search_path)
        if configs is None:
            return
        with _heard():
            mains = _host_mains()
            user_dirs, peer = _external_models(mains)
            # The host appends these too, but after us; a second mention changes nothing.
            _append(search_path, "xlm-core", configs / "common")
            for folder in user_dirs:
                _append(search_path, "xlm_models.json", folder / "configs")
            for contribution in _contributions():
                for folder in contribution.config_dirs:
                    _append(search_path, contribution.entry.distribution, folder)
                for main in mains:
                    _add_job_types(main, contribution.job_types)
            if peer is not None:
                _say_once(
                    logging.INFO,
                    f"xlm-models is installed as well ({peer}); of configs with the same name, "
                    "those of xlm-mlm are used",
                )


def _host_configs(search_path: ConfigSearchPath) -> Path | None:
    """The host's `configs` folder if `search_path` has its `lightning_train`, else None."""
    candidates = [
        element.path.removeprefix("file://").removeprefix("pkg://")
        for element in search_path.get_path()
        if element.path and element.path.rstrip("/\\").endswith("lightning_train")
    ]
    if not candidates:
        return None
    try:
        spec = find_spec("xlm")
    except (ImportError, ValueError):
        return None
    if spec is None or not spec.submodule_search_locations:
        return None
    configs = Path(next(iter(spec.submodule_search_locations))).resolve() / "configs"
    ours = {"xlm.configs.lightning_train", "xlm/configs/lightning_train"}
    for candidate in candidates:
        if candidate in ours or Path(candidate).resolve() == configs / "lightning_train":
            return configs
    return None


def _host_mains() -> list[Any]:
    """The host's command modules that are loaded, under whatever name."""
    names = ("xlm.commands.lightning_main", "xlm.commands.push_to_hub", "__main__")
    modules = [sys.modules.get(name) for name in names]
    return [module for module in modules if hasattr(module, "external_model_dirs")]


def _external_models(mains: list[Any]) -> tuple[list[Path], Path | None]:
    """The user's own model folders, and the folder of the installed `mlm` package, if any.

    The host keeps both in one list, installed packages twice, so it is asked again for the names.
    """
    dirs = list(dict.fromkeys(folder for main in mains for folder in main.external_model_dirs))
    if not dirs:
        return [], None
    from xlm import external_models

    was_disabled = external_models.logger.disabled
    external_models.logger.disabled = True  # it has said all this already
    try:
        _, packages = external_models.discover_external_models()
    finally:
        external_models.logger.disabled = was_disabled
    peer = packages.get("mlm")
    installed = set(packages.values())
    return [folder for folder in dirs if folder not in installed], peer if peer in dirs else None


@cache
def _contributions() -> list[Any]:
    # Once a process: the warnings of broken plugins are worth saying once.
    from xlm_mlm.plugin.registry import contributions

    return contributions()


def _append(search_path: ConfigSearchPath, provider: str, folder: Path) -> None:
    path = str(folder.absolute())
    present = {(element.provider, element.path) for element in search_path.get_path()}
    if folder.is_dir() and (provider, path) not in present:
        search_path.append(provider, path)


def _add_job_types(main: Any, job_types: list[Any]) -> None:
    """Add to the dict that the host consults when it has composed its config."""
    known = getattr(main, "external_commands", None)
    if known is None:
        return  # xlm-push-to-hub has a single job
    for job_type in job_types:
        if job_type.name in _BUILT_IN:
            holder = "the host itself"
        else:
            present = known.setdefault(job_type.name, job_type)
            if present == job_type:
                continue
            module = getattr(present, "__module__", "?")
            holder = f"{module}.{getattr(present, '__qualname__', present)}"
        _say_once(
            logging.WARNING,
            f"job_type={job_type.name} of {job_type.origin} is already that of {holder}, "
            "which is kept",
        )


@cache
def _say_once(level: int, message: str) -> None:
    logger.log(level, "%s", message)


@contextmanager
def _heard() -> Iterator[None]:
    """Let our messages out although Hydra has not set up logging yet."""
    if logger.hasHandlers():
        yield
        return
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("[%(levelname)s] - %(message)s"))
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
