"""A dataset manager that makes its rows itself and caches them under a hash of what made them.

The host's manual cache is found by `full_name` alone: change an option or a file under the same
name and the old rows come back. Here the folder's name is a digest of the sources, the options
and the tokenizer, so that a folder that exists is the right one.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import datasets
from xlm.datamodule import DatasetManager

from xlm_mlm.checks import require_choice, require_mapping, shown
from xlm_mlm.data.numbered import NumbersSamples
from xlm_mlm.history.files import naming_file, on_full_disk

SPLITS = ("train", "validation", "test", "predict")

# What the host's manager does after the rows are loaded. Its other options say how to fetch and
# preprocess rows, which happens nowhere here.
HOST_OPTIONS = (
    "iterable_dataset_shards",
    "make_infinite",
    "on_the_fly_filter_fn",
    "on_the_fly_group_processor",
    "on_the_fly_group_processor_kwargs",
    "on_the_fly_group_processor_remove_columns",
    "on_the_fly_load_from_cache_file",
    "on_the_fly_processor",
    "on_the_fly_processor_kwargs",
    "rewrite_manual_cache",
    "shuffle_buffer_size",
    "shuffle_seed",
    "split_by_node",
)

# Part of every digest: raise it when the rows that the same options give change.
_FORMAT = 3

_NO_ROWS = "none of these rows are kept: make room, and run the same command again"


def digest(inputs: Any) -> str:
    """16 hexadecimal digits of a SHA-256 of `inputs`, which must be JSON-serialisable.

    Raises:
        TypeError: it is not; a value with no stable text would give a new folder each time.
    """
    text = json.dumps(inputs, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def tokenizer_state(tokenizer: Any) -> dict[str, Any]:
    """All that decides which ids a tokenizer gives, wherever it was loaded from.

    Fast tokenizers serialise themselves, less the padding and truncation that calls leave
    behind; of the others the vocabulary and the plain options they were made with are taken.
    """
    special = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        state = json.loads(backend.to_str())
        kept = {key: state[key] for key in state if key not in ("padding", "truncation")}
        return {"special_tokens": special, "backend": kept}
    return {
        "special_tokens": special,
        "class": type(tokenizer).__name__,
        "vocabulary": tokenizer.get_vocab(),
        "options": {
            key: value
            for key, value in getattr(tokenizer, "init_kwargs", {}).items()
            if isinstance(value, (bool, int, float, str)) and not key.endswith(("_file", "_path"))
        },
    }


class CachedDatasetManager(NumbersSamples, DatasetManager):
    """Base of the managers in this package. A subclass says what its rows depend on and makes them.

    Args:
        collator: turns rows into batches.
        split: "train", "validation", "test" or "predict". With the host's DEBUG_OVERFIT flag
            every manager serves "train".
        dataloader_kwargs: as in the host. `drop_last` should be False where rows are counted.
        stages: Lightning stages in which the rows are loaded.
        host_options: those in `HOST_OPTIONS`, passed on to the host's `DatasetManager`.

    Raises:
        ValueError: an unknown `split`, or an option that would have no effect.
    """

    dataset_name: str
    """Folder of the cache, under `<manual_cache_dir>/xlm_mlm/`."""

    same_rows: ClassVar[Mapping[str, str]] = {}
    """Splits that serve the rows of another one: made and cached once."""

    def __init__(
        self,
        collator: Any,
        split: str,
        dataloader_kwargs: Mapping[str, Any],
        stages: Iterable[Any] | None = None,
        **host_options: Any,
    ):
        require_choice("split", split, SPLITS)
        for option in host_options:
            if option not in HOST_OPTIONS:
                raise ValueError(
                    f"{type(self).__name__} has no option {option!r}; of the host's it takes "
                    f"{', '.join(HOST_OPTIONS)}"
                )
        require_mapping("dataloader_kwargs", dataloader_kwargs, "options")
        if stages is not None and not isinstance(stages, Iterable):
            raise ValueError(f"stages is {shown(stages)}; it must be a list of stages")
        # A copy: the host changes it.
        loader: Any = dict(dataloader_kwargs)
        super().__init__(
            collator=collator,
            full_name=f"xlm_mlm/{self.dataset_name}/{split}",
            full_name_debug=f"xlm_mlm/{self.dataset_name}/train",
            dataloader_kwargs=loader,
            stages=None if stages is None else list(stages),
            **host_options,
        )
        self._tokenizer: Any = None

    @property
    def split(self) -> str:
        """The split whose rows are served."""
        named = self._split_to_download
        return self.same_rows.get(named, named)

    def cache_inputs(self) -> Mapping[str, Any]:
        """What the rows depend on, besides the split and the tokenizer; JSON-serialisable."""
        raise NotImplementedError

    def make_rows(self, tokenizer: Any, workspace: Path) -> datasets.Dataset:
        """Make the rows of `self.split`.

        Args:
            tokenizer: makes the ids.
            workspace: an empty folder on the cache's disk, deleted afterwards, for rows that
                are too many for memory.
        """
        raise NotImplementedError

    def prepare_data(
        self, manual_cache_dir: str, tokenizer: Any, num_proc: int | None = None, load: bool = False
    ) -> datasets.Dataset | None:
        """As in the host; makes and caches the rows unless they are there already.

        Args:
            manual_cache_dir: folder of all caches.
            tokenizer: makes the ids, and is part of the cache's key.
            num_proc: of no effect; rows are made in this process.
            load: whether to return the rows.
        """
        self._tokenizer = tokenizer
        cache_dir = self._get_cache_dir(manual_cache_dir)
        if self.rewrite_manual_cache or not cache_dir.exists():
            self._write(cache_dir)
        return self._load_from_cache(manual_cache_dir) if load else None

    def setup(
        self, stage: Any, manual_cache_dir: str, tokenizer: Any, *args: Any, **kwargs: Any
    ) -> None:
        """As in the host. Every rank computes the cache's folder for itself."""
        self._tokenizer = tokenizer
        super().setup(stage, manual_cache_dir, tokenizer, *args, **kwargs)

    def _get_cache_dir(self, manual_cache_dir: str) -> Path:
        inputs = {
            "format": _FORMAT,
            "manager": type(self).__qualname__,
            "split": self.split,
            "inputs": dict(self.cache_inputs()),
            "tokenizer": tokenizer_state(self._tokenizer),
        }
        folder = Path(manual_cache_dir) / "xlm_mlm" / self.dataset_name
        return folder / f"{self.split}-{digest(inputs)}"

    def _write(self, cache_dir: Path) -> None:
        """Write beside the final place and rename, so that a folder with that name is complete."""
        cache_dir.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{cache_dir.name}-", dir=cache_dir.parent))
        try:
            with on_full_disk(_NO_ROWS), naming_file(cache_dir):
                rows = self.make_rows(self._tokenizer, staging / "workspace")
                rows.save_to_disk(staging / "rows", num_shards=self.iterable_dataset_shards)
            if self.rewrite_manual_cache and cache_dir.exists():
                os.rename(cache_dir, staging / "old")
            _publish(staging / "rows", cache_dir)
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def _publish(made: Path, cache_dir: Path) -> None:
    """Rename; if another process was first, its rows are the same and stay."""
    try:
        os.rename(made, cache_dir)
    except OSError:
        if not cache_dir.is_dir():
            raise
