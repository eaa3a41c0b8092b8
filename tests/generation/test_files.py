"""Unfinished files are taken up at a whole batch, wherever torn; merging misses nothing."""

import json
import os
from pathlib import Path

import pytest

from xlm_mlm.generation import files
from xlm_mlm.generation.files import (
    HISTORY,
    META,
    PREDICTIONS,
    PartialFile,
    collect,
    discard_parts,
    locked,
    partial_path,
    prepare,
    publish,
    read_meta,
    records_in,
)
from xlm_mlm.generation.lines import line_of, read_rows
from xlm_mlm.generation.provenance import write_meta


def row(sample, name="a", **more):
    return {"sample": sample, "dataloader": name, "text": f"text {sample}\n\u2028é"} | more


def opened(folder, rank=0, world=1, run="r", start=0):
    return PartialFile(folder, rank, world, run, start, {"a": 3, "b": 2})


def merge(folder, world, expected, start):
    new = collect(folder, world, expected, start)
    publish(folder)
    discard_parts(folder, world)
    return new


def filled(folder, batches, **where):
    part = opened(folder, **where)
    for batch in batches:
        part.write(batch)
    part.close()
    return part.path


BATCHES = [
    [row(0), row(1), row(2)],
    [row(3), row(4), row(5)],
    [row(6)],  # the loader's last, short
    [row(0, "b"), row(1, "b")],
    [row(2, "b"), row(3, "b")],
]


def test_a_file_torn_anywhere_is_taken_up_at_a_whole_batch(tmp_path):
    path = filled(tmp_path, BATCHES)
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    ends = [sum(map(len, lines[: n + 1])) for n in range(len(lines))]
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        part = opened(tmp_path)
        part.close()
        rows = [
            json.loads(line) for line, end in zip(lines[1:], ends[1:], strict=True) if end <= length
        ]
        kept = {}
        for name, size in (("a", 3), ("b", 2)):
            count = sum(r["dataloader"] == name for r in rows)
            # A loader that others follow is complete, its short batch included.
            complete = name == "a" and any(r["dataloader"] == "b" for r in rows)
            if kept_rows := count if complete else count // size * size:
                kept[name] = kept_rows
        assert part.done == kept, length
        assert path.read_bytes() == b"".join(lines[: 1 + sum(kept.values())])


def test_going_on_gives_the_same_file(tmp_path):
    path = filled(tmp_path, BATCHES)
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    filled(tmp_path, BATCHES[-1:])
    assert path.read_bytes() == whole


def test_what_stands_behind_a_torn_line_is_dropped(tmp_path):
    path = filled(tmp_path, BATCHES[:1])
    with path.open("ab") as file:
        file.write(b'{"sample": 3, "da\n' + line_of(row(4)) + line_of(row(5)))
    assert opened(tmp_path).done == {"a": 3}


def test_another_runs_file_is_left_alone(tmp_path):
    path = filled(tmp_path, BATCHES)
    before = path.read_bytes()
    for other in ({"run": "other"}, {"start": 1}):
        with pytest.raises(ValueError, match="other options.*if_exists=replace"):
            opened(tmp_path, **other)
    assert path.read_bytes() == before


def test_two_processes_cannot_write_one_file(tmp_path):
    first = opened(tmp_path)
    with pytest.raises(ValueError, match="is in use by another run"):
        opened(tmp_path)
    first.close()
    opened(tmp_path).close()


@pytest.mark.parametrize("world", [1, 2, 3, 5])
@pytest.mark.parametrize("rows", [0, 1, 2, 7, 12])
@pytest.mark.parametrize("start", [0, 4])
def test_merging_puts_every_row_in_its_place(tmp_path, world, rows, start):
    for rank in range(world):
        part = opened(tmp_path, rank, world)
        for name in ("a", "b"):
            part.write(row(start + n, name) for n in range(rank, rows, world))
        part.close()
    assert merge(tmp_path, world, {"a": rows, "b": None}, start) == 2 * rows
    found = [(r["dataloader"], r["sample"]) for r in read_rows(tmp_path / PREDICTIONS)]
    assert found == [(name, start + n) for name in ("a", "b") for n in range(rows)]
    assert [path.name for path in tmp_path.iterdir()] == [PREDICTIONS]


@pytest.mark.parametrize(
    ("ranks", "message"),
    [
        ([[0, 2], [1, 3, 3]], "sample 4 .* and 3 does"),
        ([[0, 4], [1, 3]], "sample 2 .* and 4 does"),
        ([[0, 2], [1]], "sample 3 .* and the end does"),
        ([[0, 2], [1, 3, 5]], "sample 4 .* and 5 does"),
        ([[], [1]], "sample 0 .* and 1 does"),
    ],
)
def test_gaps_and_doubles_are_found_and_nothing_is_replaced(tmp_path, ranks, message):
    (tmp_path / PREDICTIONS).write_bytes(line_of(row(0, "old")))
    for rank, samples in enumerate(ranks):
        filled(tmp_path, [[row(n) for n in samples]], rank=rank, world=2)
    with pytest.raises(RuntimeError, match=message):
        merge(tmp_path, 2, {"a": 4}, 0)
    assert [r["dataloader"] for r in read_rows(tmp_path / PREDICTIONS)] == ["old"]
    assert all(partial_path(tmp_path, rank, 2).exists() for rank in range(2))
    assert len(list(tmp_path.iterdir())) == 3


def test_appending_keeps_what_is_there(tmp_path):
    (tmp_path / PREDICTIONS).write_bytes(line_of(row(0)) + line_of(row(1)))
    start = prepare(tmp_path, 1, "r", "append")
    assert start == 2
    filled(tmp_path, [[row(2), row(3)]], start=start)
    merge(tmp_path, 1, {"a": 2}, start)
    assert [r["sample"] for r in read_rows(tmp_path / PREDICTIONS)] == [0, 1, 2, 3]


@pytest.mark.parametrize("if_exists", ["error", "append", "replace"])
@pytest.mark.parametrize("stopped", ["collected", "said", "published", "one part discarded"])
def test_a_run_stopped_at_its_end_is_ended_by_the_next(tmp_path, if_exists, stopped):
    earlier = {"run": "old", "first_sample": 0, "rows": 2}
    if if_exists != "error":
        (tmp_path / PREDICTIONS).write_bytes(line_of(row(0)) + line_of(row(1)))
        write_meta(tmp_path / META, earlier, {})
    start = 2 if if_exists == "append" else 0

    def ended(until=None):
        assert prepare(tmp_path, 2, "r", if_exists) == start
        for rank in range(2):
            part = opened(tmp_path, rank, 2, start=start)
            part.write(
                row(n) for n in range(start + rank + 2 * part.done.get("a", 0), start + 6, 2)
            )
            part.close()
        said = {"run": "r", "first_sample": start, "rows": 6}
        before = read_meta(tmp_path) if if_exists == "append" else {}
        steps = {
            "collected": lambda: collect(tmp_path, 2, {"a": 6}, start),
            "said": lambda: write_meta(tmp_path / META, said, before),
            "published": lambda: publish(tmp_path),
            "one part discarded": lambda: discard_parts(tmp_path, 1 if until else 2),
        }
        for name, step in steps.items():
            step()
            if name == until:
                break

    ended(until=stopped)
    if stopped == "one part discarded":
        partial_path(tmp_path, 0, 2).unlink()
    ended()
    assert [r["sample"] for r in read_rows(tmp_path / PREDICTIONS)] == list(range(start + 6))
    assert sorted(path.name for path in tmp_path.iterdir()) == [PREDICTIONS, META]
    said = read_meta(tmp_path)
    assert (said["run"], said["rows"]) == ("r", 6)
    assert said.get("earlier", []) == ([earlier] if if_exists == "append" else [])


def test_predictions_put_there_while_a_run_was_stopped_are_not_touched(tmp_path):
    filled(tmp_path, BATCHES)
    (tmp_path / PREDICTIONS).write_bytes(line_of(row(0)))
    with pytest.raises(ValueError, match="exists; give another"):
        prepare(tmp_path, 1, "r", "error")


def test_predictions_that_shrank_while_a_run_was_stopped_are_missed(tmp_path):
    filled(tmp_path, BATCHES, start=3)
    (tmp_path / PREDICTIONS).write_bytes(line_of(row(0)))
    with pytest.raises(ValueError, match="has 1 rows; there were 3 when the run began"):
        prepare(tmp_path, 1, "r", "append")


@pytest.mark.parametrize(
    "said",
    [
        "{",
        "[]",
        "[" * 100_000,
        "{}",
        '{"first_sample": "0"}',
        '{"first_sample": 0, "earlier": [1]}',
    ],
)
def test_a_damaged_account_of_what_made_the_rows_is_found_first(tmp_path, said):
    (tmp_path / PREDICTIONS).write_bytes(line_of(row(0)))
    (tmp_path / META).write_text(said)
    with pytest.raises(ValueError, match=r"predictions\.meta\.json does not say.*repair or remove"):
        prepare(tmp_path, 1, "r", "append")


def test_records_that_are_not_of_these_predictions_are_not_touched(tmp_path):
    (tmp_path / PREDICTIONS).write_bytes(line_of(row(0, fid="mine")))
    for name in ("mine", "other"):
        (tmp_path / HISTORY / name).mkdir(parents=True)
        (tmp_path / HISTORY / name / "meta.json").write_text("{}")
    with pytest.raises(ValueError, match="history/other is a record of something that"):
        prepare(tmp_path, 1, "r", "append", history=True)
    assert prepare(tmp_path, 1, "r", "append") == 1
    assert prepare(tmp_path, 1, "r", "replace", history=True) == 0
    (tmp_path / HISTORY / "other" / "meta.json").unlink()
    assert prepare(tmp_path, 1, "r", "append", history=True) == 1


def test_predictions_that_are_there_are_not_touched_unless_told(tmp_path):
    (tmp_path / PREDICTIONS).write_bytes(line_of(row(0)))
    with pytest.raises(ValueError, match="exists; give another .*append or replace"):
        prepare(tmp_path, 1, "r", "error")
    assert prepare(tmp_path, 1, "r", "replace") == 0
    assert len(list(read_rows(tmp_path / PREDICTIONS))) == 1


def test_unfinished_files_of_another_run_are_not_touched_unless_told(tmp_path):
    ours, other = filled(tmp_path, BATCHES), filled(tmp_path, BATCHES, rank=1, world=2, run="other")
    with pytest.raises(ValueError, match="1of2.*other options"):
        prepare(tmp_path, 1, "r", "error")
    assert other.exists()
    prepare(tmp_path, 1, "r", "replace")
    assert ours.exists()
    assert not other.exists()


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "x").write_text("")
    with (
        pytest.raises(ValueError, match="output_dir is .*x, which is a file"),
        locked(tmp_path / "x"),
    ):
        pass


def test_one_run_at_a_time_looks_at_a_folder(tmp_path):
    folder = tmp_path / "new" / "folder"
    with locked(folder):
        for _ in range(2):
            with pytest.raises(ValueError, match="is in use by another run; wait"), locked(folder):
                pass
    assert not list(folder.iterdir())
    # One that was killed leaves a file, which holds nobody up.
    (folder / f".{PREDICTIONS}.lock").touch()
    with locked(folder):
        pass


def test_a_lock_on_a_file_that_is_gone_is_none(tmp_path, monkeypatch):
    # The run that held it ended between our opening of the file and our locking of it.
    path = tmp_path / f".{PREDICTIONS}.lock"

    def late(file, path, lock=files._lock):
        path.unlink()
        lock(file, path)

    monkeypatch.setattr(files, "_lock", late)
    with pytest.raises(ValueError, match="is in use by another run"), locked(tmp_path):
        pass
    assert not path.exists()


def test_what_a_killed_run_left_of_its_end_goes(tmp_path):
    for name in (f".{PREDICTIONS}.merged", f".{META}.123.partial"):
        (tmp_path / name).write_text("half")
    filled(tmp_path, BATCHES[:1])
    prepare(tmp_path, 1, "r", "error")
    merge(tmp_path, 1, {"a": 3}, 0)
    assert [path.name for path in tmp_path.iterdir()] == [PREDICTIONS]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux only")
def test_a_full_disk_is_said_of_the_file(tmp_path):
    part = opened(tmp_path)
    part._file = Path("/dev/full").open("wb")  # noqa: SIM115 - its close would fail as well
    with pytest.raises(OSError, match=r"No space left on device.*0of1\.partial"):
        part.write([row(0)])


def test_a_linked_history_is_refused_before_anything_is_removed(tmp_path):
    folder, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    folder.mkdir()
    (elsewhere / "theirs").mkdir(parents=True)
    (elsewhere / "theirs" / "meta.json").write_text("{}")
    (folder / HISTORY).symlink_to(elsewhere)
    other = filled(folder, BATCHES, run="other")
    for if_exists in ("error", "append", "replace"):
        with pytest.raises(ValueError, match="out/history is a link; a run writes to no file else"):
            prepare(folder, 1, "r", if_exists, history=True)
    with pytest.raises(ValueError, match="out/history is a link"):
        records_in(folder)
    assert other.exists()
    assert (elsewhere / "theirs" / "meta.json").exists()
    assert prepare(folder, 1, "r", "replace") == 0  # without a history it is nobody's


@pytest.mark.parametrize("name", [PREDICTIONS, META, f".{PREDICTIONS}.0of1.partial"])
def test_nobody_is_waited_for_at_a_pipe(tmp_path, name, in_time):
    os.mkfifo(tmp_path / name)
    with pytest.raises(ValueError, match=f"{name} is a pipe; it must be a regular file"):
        prepare(tmp_path, 1, "r", "append", history=True)
    with pytest.raises(ValueError, match=f"{name} is a pipe"):
        opened(tmp_path) if name.startswith(".") else prepare(tmp_path, 1, "r", "append")
