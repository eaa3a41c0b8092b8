"""The files of a generation run: one unfinished file a process, merged when all are done.

An unfinished file is a line that says which run it belongs to and which number its first sample
has, then the rows in order. A process that was stopped goes on behind the last whole batch of the
same run. Every step of the end can be done again, so that a run may be stopped there too.
"""

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

from xlm_mlm.generation.lines import head_of, line_of, read_rows, row_of
from xlm_mlm.generation.unlinked import open_here, refuse_link
from xlm_mlm.history.files import META as RECORD
from xlm_mlm.history.files import naming_file, require_regular

PREDICTIONS = "predictions.jsonl"
META = "predictions.meta.json"
HISTORY = "history"


class PartialFile:
    """The rows of one process, written batch by batch.

    Args:
        folder: where the predictions go.
        rank: of this process.
        world: how many processes there are.
        run: what tells this run from others.
        start: the number of the run's first sample.
        batch_sizes: of each dataloader; rows are kept in whole batches.

    Attributes:
        done: rows already there, by dataloader.

    Raises:
        ValueError: it belongs to another run, or another process is writing it.
    """

    def __init__(
        self,
        folder: Path,
        rank: int,
        world: int,
        run: str,
        start: int,
        batch_sizes: dict[str, int],
    ) -> None:
        self.path = partial_path(folder, rank, world)
        self._file = open_here(self.path, "a+b")
        _lock(self._file, self.path)
        self.done: dict[str, int] = {}
        self._file.seek(0)
        head = self._file.readline()
        if not head.endswith(b"\n"):
            self._file.truncate(0)
            self._append(json.dumps({"run": run, "start": start}).encode() + b"\n")
        elif head_of(head) != (run, start):
            raise ValueError(f"{self.path} {OTHER_RUN}")
        else:
            self._file.truncate(self._whole_batches(batch_sizes))

    def _whole_batches(self, batch_sizes: dict[str, int]) -> int:
        """Count the rows of whole batches, and say where they end."""
        counts: dict[str, int] = {}
        end = before = self._file.tell()
        last = None
        for line in iter(self._file.readline, b""):
            row = row_of(line)
            if row is None:
                break  # torn; whatever follows is written anew
            name = row["dataloader"]
            if name != last:
                # The loader before is complete, its last batch short or not.
                last, end, self.done = name, before, dict(counts)
            counts[name] = counts.get(name, 0) + 1
            before = self._file.tell()
            if counts[name] % batch_sizes[name] == 0:
                end, self.done = before, dict(counts)
        return end

    def write(self, rows: Iterable[dict[str, Any]]) -> None:
        """Append a batch's rows, and hand them to the operating system: all, or none stay.

        Raises:
            OSError: they can't be written.
        """
        self._append(b"".join(line_of(row) for row in rows))

    def _append(self, data: bytes) -> None:
        # Past Python's buffer, which would keep what a full disk refused and try it again.
        file = self._file.fileno()
        end, left = os.fstat(file).st_size, memoryview(data)
        with naming_file(self.path):
            try:
                while left:
                    left = left[os.write(file, left) :]
            except OSError:
                with suppress(OSError):
                    os.ftruncate(file, end)
                raise

    def close(self) -> None:
        """Make sure of what was written."""
        with naming_file(self.path):
            os.fsync(self._file.fileno())
            self._file.close()


OTHER_RUN = (
    "was left by a run with other options, another checkpoint or another number of processes; "
    "run that one again to finish it, or discard it with generation.if_exists=replace"
)


def partial_path(folder: Path, rank: int, world: int) -> Path:
    """The unfinished file of a process."""
    return folder / f".{PREDICTIONS}.{rank}of{world}.partial"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other runs out of the folder, from before it is looked at until all is in place.

    The lock ends with the process, however that ends; the file goes with an orderly end.

    Raises:
        ValueError: it is a file, or another run is writing to it.
        OSError: the folder can't be made.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"generation.output_dir is {folder}, which is a file; it must be a folder")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f".{PREDICTIONS}.lock"
    with open_here(path, "ab") as file:
        _lock(file, path)
        if not _still_there(file, path):  # it went with a run that ended just now
            raise ValueError(f"{path} {_LOCKED}")
        try:
            yield
        finally:
            with suppress(OSError):  # Windows removes no open file
                path.unlink()


def _still_there(file: Any, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def prepare(folder: Path, world: int, run: str, if_exists: str, history: bool = False) -> int:
    """Make the folder ready for a run; done once, in `locked`, before any process writes.

    Args:
        folder: where the predictions go.
        world: how many processes there will be.
        run: what tells this run from others.
        if_exists: what to do with predictions that are there: `error`, `append` or `replace`.
        history: there will be records of each pass, and those without a prediction be removed.

    Returns:
        The number of the run's first sample: how many rows are there and stay.

    Raises:
        ValueError: there are predictions, or unfinished ones of another run, and nobody said what
        to do with them; or a file that is there is damaged; or the records' folder is a link.
        OSError: the folder can't be written.
    """
    if history:
        refuse_link(folder / HISTORY)
    begun = _begun(folder, world, run, discard=if_exists == "replace")
    for path in folder.glob(f".{META}.*.partial"):  # of a run that was killed as it wrote it
        path.unlink()
    finished = folder / PREDICTIONS
    if history and begun is None and if_exists != "replace":
        _refuse_records(folder)
    if finished.exists() and if_exists == "error":
        # Unless they are this run's own, which was stopped before it removed its parts.
        if begun is None or read_meta(folder).get("run") != run:
            raise ValueError(
                f"{finished} exists; give another generation.output_dir, or "
                "generation.if_exists=append or replace"
            )
    elif if_exists == "append":
        read_meta(folder)  # damaged, it would be noticed when all is predicted
        rows = sum(1 for _ in read_rows(finished))
        if begun is not None and rows < begun:
            raise ValueError(
                f"{finished} has {rows} rows; there were {begun} when the run began that is to go "
                "on. Put them back, or discard all with generation.if_exists=replace"
            )
        return rows if begun is None else begun
    return 0


def _refuse_records(folder: Path) -> None:
    known = {row.get("fid") for row in read_rows(folder / PREDICTIONS)}
    for record in records_in(folder):
        if record.name not in known:
            raise ValueError(
                f"{record} is a record of something that {PREDICTIONS} does not hold; give "
                "another generation.output_dir, move the records away, or remove them with "
                "generation.if_exists=replace"
            )


def records_in(folder: Path) -> list[Path]:
    """The history's records of samples.

    Raises:
        ValueError: their folder is a link.
    """
    records = folder / HISTORY
    refuse_link(records)
    found = sorted(records.iterdir()) if records.is_dir() else []
    # A link is none of ours, and what it leads to is not to be removed.
    return [each for each in found if not each.is_symlink() and (each / RECORD).is_file()]


def _begun(folder: Path, world: int, run: str, discard: bool) -> int | None:
    """The number of the first sample of a run that was stopped here; None if there is none."""
    start = None
    ours = {partial_path(folder, rank, world) for rank in range(world)}
    for path in sorted(folder.glob(f".{PREDICTIONS}.*of*.partial")):
        require_regular(path)
        with path.open("rb") as file:
            head = head_of(file.readline())
        if path in ours and head is None:
            continue  # stopped before it could say what it is
        if path in ours and head is not None and head[0] == run:
            start = head[1]
        elif discard:
            path.unlink()
        else:
            raise ValueError(f"{path} {OTHER_RUN}")
    return start


def read_meta(folder: Path) -> dict[str, Any]:
    """What made the predictions that are there; empty if nothing says.

    Raises:
        ValueError: the file that says it is damaged.
    """
    path = folder / META
    if not path.exists():
        return {}
    require_regular(path)
    try:
        made = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} {_NO_META}: {error}") from error
    earlier = made.get("earlier", []) if isinstance(made, dict) else None
    if not isinstance(earlier, list) or not all(map(_says, [made, *earlier])):
        raise ValueError(f"{path} {_NO_META}")
    return made


def _says(made: Any) -> bool:
    return isinstance(made, dict) and type(made.get("first_sample")) is int


_NO_META = "does not say what made the predictions beside it; repair or remove it"


def collect(folder: Path, world: int, expected: dict[str, int | None], start: int) -> int:
    """Put the processes' rows in order behind the first `start` that are there, and check them.

    Args:
        folder: where the predictions are.
        world: how many processes wrote.
        expected: rows of each dataloader, in order; None where it is not known.
        start: the number of the first row of each.

    Returns:
        How many rows are new. `publish` puts all in place.

    Raises:
        RuntimeError: a row is missing or doubled; nothing was replaced, and the parts are kept.
    """
    merged = _merged(folder)
    new = 0
    try:
        with naming_file(merged), open_here(merged, "wb") as out:
            kept = islice(read_rows(folder / PREDICTIONS), start)
            out.writelines(line_of(row) for row in kept)
            for name, rows in expected.items():
                number = start
                for row in _in_turn(folder, world, name):
                    if row["sample"] != number:
                        raise RuntimeError(_gap(folder, name, number, row["sample"]))
                    number += 1
                    out.write(line_of(row))
                if rows is not None and number != start + rows:
                    raise RuntimeError(_gap(folder, name, number, "the end"))
                new += number - start
            out.flush()
            os.fsync(out.fileno())
    except BaseException:
        merged.unlink(missing_ok=True)
        raise
    return new


def publish(folder: Path) -> None:
    """Replace the predictions by those collected."""
    os.replace(_merged(folder), folder / PREDICTIONS)


def discard_parts(folder: Path, world: int) -> None:
    """Remove the processes' parts, which are in the predictions now."""
    for rank in range(world):
        partial_path(folder, rank, world).unlink(missing_ok=True)


def _merged(folder: Path) -> Path:
    return folder / f".{PREDICTIONS}.merged"


def _gap(folder: Path, name: str, number: int, found: Any) -> str:
    return (
        f"sample {number} of {name} should come next, and {found} does; nothing was replaced, and "
        f"the processes' parts are still in {folder}"
    )


def _in_turn(folder: Path, world: int, name: str) -> Iterator[dict[str, Any]]:
    """Rows of one dataloader, one of each process in turn, which is the order of their numbers."""
    streams = [
        (row for row in read_rows(partial_path(folder, rank, world)) if row["dataloader"] == name)
        for rank in range(world)
    ]
    for turn in zip_longest(*streams):
        yield from (row for row in turn if row is not None)


def _lock(file: Any, path: Path) -> None:
    """Keep others from writing the same file; the lock ends with the process."""
    try:
        import fcntl
    except ImportError:  # Windows
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise ValueError(f"{path} {_LOCKED}") from error


_LOCKED = "is in use by another run; wait for it, or give another generation.output_dir"
