"""Reading the user's files: which files, which documents, and what is said when one is wrong."""

import json
import os

import pyarrow
import pyarrow.parquet
import pytest

from xlm_mlm.data import readers
from xlm_mlm.data.readers import content_digest, find_files, read_documents


def documents(path, text_field="text", document="paragraph"):
    return list(read_documents(path, text_field, document))


def parquet(path, **columns):
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path


def test_paths_globs_and_lists_are_sorted_each_once(tmp_path, monkeypatch):
    names = ["b.txt", "a.txt", "c.jsonl", "deep/d.txt", "odd[1].txt"]
    (tmp_path / "deep").mkdir()
    for name in names:
        (tmp_path / name).write_text("x")
    monkeypatch.chdir(tmp_path)

    def found(data_files):
        return [str(path) for path in find_files(data_files)]

    assert found("a.txt") == ["a.txt"]
    assert found("*.txt") == ["a.txt", "b.txt", "odd[1].txt"]
    assert found("**/*.txt") == ["a.txt", "b.txt", "deep/d.txt", "odd[1].txt"]
    assert found(["c.jsonl", "*.txt", "a.txt"]) == ["a.txt", "b.txt", "c.jsonl", "odd[1].txt"]
    assert found("odd[1].txt") == ["odd[1].txt"]


@pytest.mark.parametrize("nothing", [None, "", []])
def test_no_files_named(nothing):
    with pytest.raises(ValueError, match=r"data_files is .*corpus/\*\.txt"):
        find_files(nothing)


@pytest.mark.parametrize(("other", "named"), [(5, "5"), ([5], "5"), (["a.txt", None], "None")])
def test_what_is_no_path(other, named):
    with pytest.raises(ValueError, match=rf"data_files is .*; {named} is no path"):
        find_files(other)


@pytest.mark.parametrize("folder", ["corpus", ["corpus/"], "./corpus"])
def test_a_folder_is_called_one(tmp_path, monkeypatch, folder):
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "a.txt").write_text("x")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"corpus/?' is a folder.*'corpus/\*\.txt'"):
        find_files(folder)


@pytest.mark.parametrize("missing", ["none.txt", "*.none", ["there.txt", "none.txt"]])
def test_a_path_or_glob_without_a_file(tmp_path, monkeypatch, missing):
    (tmp_path / "there.txt").write_text("x")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="none.*matches no file"):
        find_files(missing)


def test_another_kind_of_file(tmp_path):
    (tmp_path / "a.csv").write_text("x")
    with pytest.raises(ValueError, match=r"a\.csv is a \.csv.*\.parquet"):
        find_files(str(tmp_path / "a.csv"))


def test_digest_is_of_the_content(tmp_path):
    for name, text in {"a.txt": "one", "b.txt": "one", "c.txt": "two"}.items():
        (tmp_path / name).write_text(text)
    a, b, c = (content_digest(tmp_path / name) for name in ("a.txt", "b.txt", "c.txt"))
    assert a == b != c
    (tmp_path / "a.txt").write_text("two")
    os.utime(tmp_path / "a.txt", ns=(1, 1))
    assert content_digest(tmp_path / "a.txt") == c


def test_empty_file(tmp_path):
    (tmp_path / "a.jsonl").touch()
    with pytest.raises(ValueError, match=r"a\.jsonl is empty"):
        content_digest(tmp_path / "a.jsonl")


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 1 << 20])
@pytest.mark.parametrize("bad", [b"\xff", b"\xc3(", b"\xe6\x97"])
def test_undecodable_bytes_are_named_by_line_and_byte(tmp_path, monkeypatch, chunk, bad):
    monkeypatch.setattr(readers, "_CHUNK", chunk)
    readers._content_digest.cache_clear()
    good = "héllo\n日本\nx".encode()
    path = tmp_path / "a.txt"
    path.write_bytes(good + bad)
    with pytest.raises(ValueError, match=rf"a\.txt is not UTF-8: line 3, byte {len(good)} \(") as e:
        content_digest(path)
    assert bad[:1].hex() in str(e.value)
    path.write_bytes(good * 3)
    content_digest(path)


def test_documents_of_a_text_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffone\nstill one\r\n \r\n\n\n  two\n\nthree".encode())
    assert documents(path) == ["one\nstill one", "  two", "three"]
    assert documents(path, document="line") == ["one", "still one", "  two", "three"]
    assert documents(path, document="file") == ["one\nstill one\n \n\n\n  two\n\nthree"]


def test_documents_of_a_jsonl_file(tmp_path):
    path = tmp_path / "a.jsonl"
    texts = ["one\n\ntwo", "", None, " \n", "line\u2028separator", "end"]
    path.write_text("\n\n".join(json.dumps({"body": t}, ensure_ascii=False) for t in texts))
    assert documents(path, "body") == ["one\n\ntwo", "line\u2028separator", "end"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": ', r"line 2 is not JSON \(column"),
        ('["text"]', "line 2 is a list"),
        ('{"body": "x", "id": 1}', "line 2 has no field 'text'; its fields: body, id"),
        ('{"text": 3}', "line 2: field 'text' is a int; it must be a string"),
        ("[" * 100_000, "line 2 could not be read as JSON: maximum recursion"),
        ("9" * 5_000, "line 2 could not be read as JSON: .*4300"),
    ],
)
def test_a_bad_jsonl_row_is_named_by_its_line(tmp_path, line, message):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "fine"}\n' + line + "\n")
    with pytest.raises(ValueError, match=rf"a\.jsonl, {message}"):
        documents(path)


def test_documents_of_a_parquet_file(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "_ROWS", 2)
    texts = ["one", None, "two\n\nstill", " ", "three"]
    path = parquet(tmp_path / "a.parquet", body=texts, other=[1, 2, 3, 4, 5])
    content_digest(path)  # binary: not checked for UTF-8
    assert documents(path, "body") == ["one", "two\n\nstill", "three"]
    with pytest.raises(ValueError, match="no field 'text'; its fields: body, other"):
        documents(path)
    with pytest.raises(ValueError, match="row 1: field 'other' is a int"):
        documents(path, "other")


def test_a_file_that_is_no_parquet(tmp_path):
    path = tmp_path / "a.parquet"
    path.write_text("text")
    with pytest.raises(ValueError, match=r"a\.parquet could not be read as Parquet"):
        documents(path)


def test_parquet_strings_that_are_not_utf8(tmp_path):
    column = pyarrow.array([b"\xff\xfe"], pyarrow.binary()).view(pyarrow.string())
    path = parquet(tmp_path / "a.parquet", text=column)
    with pytest.raises(ValueError, match=r"a\.parquet could not be read as Parquet"):
        documents(path)
