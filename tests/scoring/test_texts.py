"""Texts of a file and their line numbers."""

import json
import os

import pytest

from xlm_mlm.scoring.texts import Text, read_texts


def test_lines_are_counted_and_blank_ones_left_out(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeff one\r\n\n \t\ntwo\x85 three\u2028\nlast".encode())
    assert list(read_texts(path)) == [
        Text(1, " one"),
        Text(4, "two\x85 three\u2028"),
        Text(5, "last"),
    ]


def test_fields_of_objects(tmp_path):
    path = tmp_path / "a.JSONL"
    rows = [json.dumps({"said": "a\nb", "x": 1}), "", json.dumps({"said": " "}), '{"said": "c"}']
    path.write_text("\n".join(rows) + "\n")
    assert list(read_texts(path, "said")) == [Text(1, "a\nb"), Text(4, "c")]


BAD = {
    "a.txt": [
        (b"", "a.txt holds no text"),
        (b"\n \n", "a.txt holds no text"),
        (b"ok\n\xff", "line 2 is not UTF-8"),
    ],
    "a.jsonl": [
        (b'{"text": "a"}\n{"text"', "line 2 is not JSON"),
        (b"[" * 100000, "line 1 is not JSON"),
        (b"[1]", "line 1 is a list; it must be a JSON object"),
        (b'{"a": 1, "b": 2}', "line 1 has no field 'text'; its fields: a, b"),
        (b'{"text": 3}', "line 1: field 'text' is a int"),
    ],
    "a.csv": [(b"a", ".csv; texts are read from .txt or .jsonl")],
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_refused(tmp_path, name):
    for content, says in BAD[name]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=says):
            list(read_texts(tmp_path / name))


def test_no_such_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        list(read_texts(tmp_path / "a.txt"))
    (tmp_path / "b.txt").mkdir()
    with pytest.raises(FileNotFoundError, match="is a folder"):
        list(read_texts(tmp_path / "b.txt"))


def test_a_pipe_is_no_file_of_texts_since_they_are_read_more_than_once(tmp_path, in_time):
    os.mkfifo(tmp_path / "a.txt")
    with pytest.raises(FileNotFoundError, match=r"a\.txt is a pipe; it must be a regular file"):
        list(read_texts(tmp_path / "a.txt"))
