"""Predictions of training and evaluation jobs, of every process and not of the first alone."""

import inspect
import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from torch import Tensor
from xlm.log_predictions import FilePredictionWriter, LogPredictions

from xlm_mlm.collation.samples import SAMPLE_ID

_logger = logging.getLogger(__name__)
# The host decorates both so that the first process alone runs them.
_log = inspect.unwrap(LogPredictions.__call__)
_write = inspect.unwrap(FilePredictionWriter.write)


class SharedFileWriter(FilePredictionWriter):
    """The host's writer, into one file by all processes: whole rows, and a sample once.

    Samplers that give every process as many rows repeat some; a row whose `sample_id` is in the
    file already is left out. Rows without one are all written. A file that was begun before this
    run, as one of the same `job_name` would find, is put aside under another name. Processes of
    several machines need a file system in common whose locks work, and clocks that agree.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        # All processes of a run get here before one of them predicts: they wait for each other.
        self._made = time.time_ns()
        self._known: dict[Path, tuple[int, set[int]]] = {}

    def filter_fields(self, out_dict: dict[str, Any]) -> dict[str, Any]:
        """The host's choice, and the sample's number."""
        kept = super().filter_fields(out_dict)
        return {
            name: value for name, value in out_dict.items() if name in kept or name == SAMPLE_ID
        }

    def write(
        self,
        predictions: list[dict[str, Any]],
        ground_truth_text: list[str] | None,
        step: int,
        epoch: int,
        split: str,
        dataloader_name: str,
        pl_module: Any,
        trainer: Any,
    ) -> None:
        """Append the rows that are not there, in whatever process this is.

        A hidden file beside, which is locked meanwhile, says when the rows' file was begun.

        Raises:
            OSError: the file can't be written.
            ValueError: a line of the file, which somebody else changed, is no row.
        """
        path = self._get_file_path(pl_module, split, dataloader_name, epoch, step)  # type: ignore[arg-type]
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with _alone(path) as begun:
            if path not in self._known:
                _begin(path, begun, self._made)
            known = self._samples_in(path)
            new = [i for i, row in enumerate(predictions) if row.get(SAMPLE_ID) not in known]
            truth = ground_truth_text and [ground_truth_text[i] for i in new]
            rows = [predictions[i] for i in new]
            _write(self, rows, truth, step, epoch, split, dataloader_name, pl_module, trainer)

    def read(  # type: ignore[override]  # as in the host's class
        self, step: int, epoch: int, split: str, dataloader_name: str, pl_module: Any
    ) -> list[dict[str, Any]]:
        """The rows by their samples' numbers: in the order of one process."""
        rows = super().read(step, epoch, split, dataloader_name, pl_module)  # type: ignore[arg-type]
        return sorted(rows, key=lambda row: row.get(SAMPLE_ID, 0))

    def _samples_in(self, path: Path) -> set[int]:
        """The numbers in the file; only what was added since the last time is read."""
        end, known = self._known.get(path, (0, set()))
        if path.is_file():
            with path.open("rb") as file:
                file.seek(end)
                for line in file:
                    known.add(_sample_of(line, path))
                end = file.tell()
        known.discard(None)
        self._known[path] = (end, known)
        return known


class SharedPredictions(LogPredictions):
    """The host's `LogPredictions`, for several processes: `file` writes the rows of all of them.

    A row has its `sample_id` where the batch has `sample_ids`. The other writers, `logger` and
    `console`, show the first process's rows, as the host's do. The options are the host's.
    """

    def _append_writer(self, writer: Any, fields_to_keep_in_output: list[str] | None) -> None:
        if writer == "file":
            self.writers.append(SharedFileWriter(fields_to_keep_in_output))
        else:
            super()._append_writer(writer, fields_to_keep_in_output)

    def __call__(
        self,
        pl_module: Any,
        trainer: Any,
        batch: dict[str, Any],
        preds: dict[str, Any],
        split: str,
        dataloader_name: str,
    ) -> None:
        """Write the predictions of a batch, in whatever process this is."""
        _log(self, pl_module, trainer, batch, preds, split, dataloader_name)

    def _place_additional_fields_in_predictions(
        self, predictions: list[dict[str, Any]], batch: dict[str, Any]
    ) -> list[dict[str, Any]]:
        ids = batch.get("sample_ids")
        numbers = ids.tolist() if isinstance(ids, Tensor) else []
        rows = super()._place_additional_fields_in_predictions(predictions, batch)
        return (
            [{**row, SAMPLE_ID: number} for row, number in zip(rows, numbers, strict=True)]
            if numbers
            else rows
        )


def _sample_of(line: bytes, path: Path) -> Any:
    try:
        return json.loads(line).get(SAMPLE_ID)
    except (ValueError, AttributeError) as error:
        raise ValueError(
            f"{path} has a line that is no row, {line!r:.80}; a writer was killed, or the file was "
            "changed: remove it, or give the job another job_name"
        ) from error


@contextmanager
def _alone(path: Path) -> Iterator[Path]:
    """Wait until no other process writes to the file, and keep others waiting."""
    # A file of its own: the rows' file may not be there yet.
    beside = path.with_name(f".{path.name}.lock")
    with open(beside, "ab") as file:
        try:
            import fcntl
        except ImportError:  # Windows, where several processes on one machine are not usual
            pass
        else:
            fcntl.flock(file, fcntl.LOCK_EX)
        yield beside


def _begin(path: Path, begun: Path, made: int) -> None:
    """Put a file of rows aside that was begun before `made`, and note that one is begun.

    Args:
        path: of the rows.
        begun: holds when they were begun, in nanoseconds.
        made: when this process was ready for its first row.
    """
    if path.exists():
        text = begun.read_text()
        if text.isdecimal() and int(text) >= made:
            return
        aside = next(free for n in count(1) if not (free := Path(f"{path}.old-{n}")).exists())
        os.replace(path, aside)
        _logger.warning(f"{path} holds rows of an earlier run; they are now in {aside.name}")
    begun.write_text(str(time.time_ns()))
