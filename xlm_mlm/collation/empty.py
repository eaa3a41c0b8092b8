"""Datasets of nothing but mask tokens, to be filled by unconditional generation."""

import json
import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import torch
from torch.utils.data import IterableDataset, get_worker_info
from xlm.tasks.safe_molgen import ZINC_LENGTH_REF_FILE

from xlm_mlm.checks import require_int, require_path, require_token_id
from xlm_mlm.collation.samples import SAMPLE_ID, Process

T = TypeVar("T")


def share_of_worker(items: Sequence[T]) -> Sequence[T]:
    """What this DataLoader worker is to yield, so that several do not repeat each other."""
    worker = get_worker_info()
    return items if worker is None else items[worker.id :: worker.num_workers]


def numbers_of_worker(count: int, process: Process) -> Sequence[int]:
    """The numbers of the rows that this DataLoader worker is to yield, of `count` a process.

    Every process makes as many rows as it is told to, which the host does not divide between
    them: the rows of all together are numbered, rank by rank.
    """
    first = process.rank * count
    return share_of_worker(range(first, first + count))


class MLMEmptyDataset(IterableDataset):
    """Rows of `max_length` mask tokens in the field `input_ids`, numbered in `sample_id`.

    A row has its number whatever the number of DataLoader workers; of W processes, each makes
    `num_examples`, and the one of rank r counts on where those before it end.

    Args:
        tokenizer: with a mask token.
        num_examples: rows.
        max_length: masks in each.

    Raises:
        ValueError: a number is below 1 (0 for `num_examples`), or there is no mask token.
    """

    def __init__(self, tokenizer: Any, num_examples: int, max_length: int) -> None:
        self.tokenizer = tokenizer
        self.num_examples = require_int("num_examples", num_examples, 0)
        self.max_length = require_int("max_length", max_length, 1)
        self._mask_id = require_token_id(tokenizer, "mask", "ask for tokens")
        # Now, as spawned workers know nothing of the process group.
        self._process = Process.this()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield the rows, or this worker's share of them."""
        for number in numbers_of_worker(self.num_examples, self._process):
            yield {"input_ids": [self._mask_id] * self.max_length, SAMPLE_ID: number}


class MLMEmptyDatasetFromLengthRef(IterableDataset):
    """Rows of mask tokens whose lengths are drawn, with replacement, from a list of lengths.

    Each pass over the dataset draws anew from torch's global generator. Rows are numbered in
    `sample_id` as in `MLMEmptyDataset`.

    Args:
        tokenizer: with a mask token.
        num_examples: rows.
        length_ref_file: the lengths; see `read_lengths`. By default those of ZINC molecules that
            come with the host.
        min_length: lengths below this one are left out of the draw.

    Raises:
        ValueError: a number is out of range, there is no mask token, the file cannot be read, or
            it has no length of at least `min_length`.
    """

    def __init__(
        self,
        tokenizer: Any,
        num_examples: int,
        length_ref_file: str | Path = ZINC_LENGTH_REF_FILE,
        min_length: int = 1,
    ) -> None:
        self.tokenizer = tokenizer
        self.num_examples = require_int("num_examples", num_examples, 0)
        self.length_ref_file = require_path("length_ref_file", length_ref_file)
        self.min_length = require_int("min_length", min_length, 1)
        self._mask_id = require_token_id(tokenizer, "mask", "ask for tokens")
        lengths = read_lengths(self.length_ref_file)
        self._lengths = [n for n in lengths if n >= min_length]
        if not self._lengths:
            raise ValueError(
                f"{self.length_ref_file} has {len(lengths)} lengths, the largest "
                f"{max(lengths, default=None)}; at least one must reach min_length={min_length}"
            )
        self._process = Process.this()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield the rows, or this worker's share of them."""
        numbers = numbers_of_worker(self.num_examples, self._process)
        drawn = torch.randint(len(self._lengths), (len(numbers),)).tolist()
        for number, i in zip(numbers, drawn, strict=True):
            yield {"input_ids": [self._mask_id] * self._lengths[i], SAMPLE_ID: number}


def read_lengths(path: Path) -> list[int]:
    """Read a list of lengths.

    Args:
        path: `.json` holds a list of integers; `.pkl` or `.pickle` a pickled list of integers, and
            no other object is let in; anything else is text with one integer a line.

    Raises:
        ValueError: the file is missing or holds something else.
    """
    if not path.is_file():
        raise ValueError(f"there is no file {path}; give a text, JSON or pickle file of lengths")
    readers = {".json": _read_json, ".pkl": _read_pickle, ".pickle": _read_pickle}
    try:
        lengths = readers.get(path.suffix.lower(), _read_text)(path)
    except Exception as error:  # a malformed pickle may raise anything
        raise ValueError(
            f"{path} is not a list of lengths ({type(error).__name__}: {error}); it must be text "
            "with one integer a line, JSON (.json) or a pickle (.pkl) of a list of integers"
        ) from error
    if type(lengths) is not list or not all(type(n) is int for n in lengths):
        raise ValueError(f"{path} does not hold a list of integers, and nothing else is allowed")
    return lengths


class _ListUnpickler(pickle.Unpickler):
    """Builds the built-in types that need no import, and nothing that does."""

    def find_class(self, module_name: str, global_name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"it names {module_name}.{global_name}, which is not allowed")


def _read_pickle(path: Path) -> Any:
    with path.open("rb") as file:
        return _ListUnpickler(file).load()


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _read_text(path: Path) -> list[int]:
    return [int(line) for line in path.read_text(encoding="utf-8").split()]
