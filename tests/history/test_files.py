"""Files that several processes write at once."""

import os

from xlm_mlm.history.files import write_vocabulary, write_whole


def test_processes_of_one_number_write_the_same_file(tmp_path, monkeypatch):
    """Two containers with a volume in common: each numbers its processes from 1."""
    replace = os.replace

    def replace_after_another(source, target):
        monkeypatch.setattr(os, "replace", replace)
        write_whole(tmp_path / "file", b"the other's")
        replace(source, target)

    monkeypatch.setattr(os, "replace", replace_after_another)
    write_whole(tmp_path / "file", b"ours")
    assert (tmp_path / "file").read_bytes() == b"ours"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_vocabulary_is_written_once(tmp_path, monkeypatch):
    name = write_vocabulary(tmp_path, ["a", "b"])
    monkeypatch.setattr(os, "replace", None)
    assert write_vocabulary(tmp_path, ["a", "b"]) == name
