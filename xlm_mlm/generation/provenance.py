"""What made the predictions: written beside them."""

import hashlib
import json
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from xlm_mlm.history.files import write_whole

PACKAGES = ("xlm-mlm", "xlm-core", "torch", "lightning", "hydra-core", "transformers")
# What changes nothing in a row, or is part of `identity` by other means.
_OUTSIDE = ("generation", "paths", "loggers", "callbacks", "job_name", "trainer")


def versions() -> dict[str, str]:
    """The installed versions of what matters for a prediction."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def identity(cfg: DictConfig, **more: Any) -> str:
    """A hash that is equal for runs whose rows are equal.

    Interpolations are left as they are, since some hold the time; what they refer to is hashed too.
    """
    plain: Any = OmegaConf.to_container(cfg, resolve=False)
    kept = {key: value for key, value in plain.items() if key not in _OUTSIDE}
    text = json.dumps([kept, more], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def resolved(cfg: DictConfig) -> Any:
    """The config with everything filled in, as plain values; as it stands where that fails."""
    try:
        return OmegaConf.to_container(cfg, resolve=True)
    except Exception:  # a resolver that only a training run has
        return OmegaConf.to_container(cfg, resolve=False)


def write_meta(path: Path, run: dict[str, Any], before: dict[str, Any]) -> None:
    """Write what made a run, and what made the rows before it under `earlier`.

    Args:
        path: of the file.
        run: what made it, its `first_sample` included.
        before: what the file held. Only what made rows before the first sample stays.
    """
    made = [before, *before.get("earlier", [])] if before else []
    if earlier := [each for each in made if each["first_sample"] < run["first_sample"]]:
        run = {**run, "earlier": [_without(each, "earlier") for each in earlier]}
    text = json.dumps(run, indent=2, default=str, ensure_ascii=False)
    write_whole(path, text.encode("utf-8", "backslashreplace"))


def _without(made: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in made.items() if name != key}
