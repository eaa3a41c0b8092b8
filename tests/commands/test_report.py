"""`xlm-mlm report`: the samples asked for, in files that may be replaced; errors in one line."""

import json
import os
import re
import sys
from types import SimpleNamespace

import pytest
from made_up_histories import MASK, write

from xlm_mlm.commands import cli
from xlm_mlm.commands.report import SAMPLES


@pytest.fixture
def history(tmp_path, tokenizer):
    """A folder with twelve samples, and their names in the order of writing."""
    before = [[4, MASK, MASK, 8]] * (SAMPLES + 2)
    fids, _ = write(tmp_path / "history", tokenizer, before, [[[1], [2]]] * len(before))
    return tmp_path / "history", fids


@pytest.fixture
def drawn(monkeypatch):
    """Stands in for the picture and the animation; holds which samples were drawn where."""
    calls = []

    def draws(content):
        def draw(trace, path):
            calls.append((trace.fid, path.name))
            path.write_bytes(content)

        return draw

    for module, name, content in [
        ("picture", "write_png", b"\x89PNG\r\n\x1a\n"),
        ("animation", "write_gif", b"GIF89a"),
    ]:
        stand_in = SimpleNamespace(**{name: draws(content)})
        monkeypatch.setitem(sys.modules, f"xlm_mlm.report.{module}", stand_in)
    return calls


def shown(path):
    """The samples on a page."""
    data = re.search(r'<script type="application/json" id="data">(.*)</script>', path.read_text())
    return [sample["fid"] for sample in json.loads(data[1])["samples"]]


def test_the_first_samples_are_shown_and_more_are_spoken_of(history, tmp_path, capsys, monkeypatch):
    folder, fids = history
    monkeypatch.chdir(tmp_path)
    assert cli.main(["report", str(folder)]) == 0
    page = tmp_path / "report.html"
    assert shown(page) == fids[:SAMPLES]
    size = f"{page.stat().st_size / 1e3:.1f} kB"
    assert capsys.readouterr().out == (
        f"wrote report.html ({size}): the first {SAMPLES} samples; --samples N shows more\n"
    )
    # Its own page is replaced, and nothing else.
    assert cli.main(["report", str(folder), "--samples", "1"]) == 0
    assert shown(page) == fids[:1]
    assert capsys.readouterr().out.endswith(": 1 sample\n")


def test_samples_are_chosen_by_number_and_name(history, tmp_path, capsys):
    folder, fids = history
    page = tmp_path / "page.htm"
    for options, expected in [
        (["--samples", "12"], fids),
        (["--samples", "3"], fids[:3]),
        (["--samples", "99"], fids),
        (["--fid", fids[5], "--fid", fids[2], "--fid", fids[5]], [fids[5], fids[2]]),
    ]:
        assert cli.main(["report", str(folder), "--output", str(page), *options]) == 0
        assert shown(page) == expected
        assert capsys.readouterr().out.endswith(f": {len(expected)} samples\n")


def test_pictures_are_of_the_first_of_the_samples(history, tmp_path, capsys, drawn):
    folder, fids = history
    files = [str(tmp_path / name) for name in ("a.html", "a.png", "a.gif")]
    options = ["--output", files[0], "--png", files[1], "--gif", files[2]]
    assert cli.main(["report", str(folder), *options]) == 0
    assert drawn == [(fids[0], "a.png"), (fids[0], "a.gif")]
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines] == files
    assert lines[1].endswith(f": sample {fids[0]}")
    # Again, over the same kinds of file, for a sample by name.
    assert cli.main(["report", str(folder), *options, "--fid", fids[3], "--fid", fids[1]]) == 0
    assert drawn[2:] == [(fids[3], "a.png"), (fids[3], "a.gif")]


@pytest.mark.parametrize("option", ["--output", "--png", "--gif"])
def test_nothing_but_such_a_file_is_replaced(history, tmp_path, capsys, drawn, option):
    kind = {"--output": "html", "--png": "png", "--gif": "gif"}[option]
    mine = tmp_path / f"mine.{kind}"
    mine.write_text("<!doctype html><p>mine")
    (tmp_path / f"folder.{kind}").mkdir()
    for path in (mine, tmp_path / f"folder.{kind}"):
        options = ["--output", str(tmp_path / "page.html"), option, str(path)]
        assert cli.main(["report", str(history[0]), *options]) == 1
        error = capsys.readouterr().err
        assert f"{path} exists and is no such report; choose another {option}" in error
    assert mine.read_text() == "<!doctype html><p>mine"
    assert not (tmp_path / "page.html").exists()
    assert drawn == []


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        (["--samples", "0"], "--samples is 0; it must be at least 1"),
        (["--samples", "2", "--fid", "a"], "--fid and --samples are both given"),
        (["--output", "last.ckpt"], "--output is 'last.ckpt'; it must end in .html"),
        (["--png", "a.jpg"], "--png is 'a.jpg'; it must end in .png"),
        (["--gif", "a"], "--gif is 'a'; it must end in .gif"),
        (["--output", "no/such/page.html"], "there is no folder no/such"),
        (["--fid", "../history"], "'../history'"),
        (["--fid", "nobody"], "nobody"),
    ],
)
def test_nonsense_is_one_line(history, tmp_path, capsys, monkeypatch, options, rule):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["report", str(history[0]), *options]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert rule in captured.err
    assert captured.err.count("\n") == 1
    assert [each.name for each in tmp_path.iterdir()] == ["history"]


@pytest.mark.skipif(sys.platform != "linux", reason="names that are no text are refused elsewhere")
def test_a_record_s_name_does_not_control_the_terminal(history, tmp_path, capsys):
    folder, fids = history
    named = b"\x1b]0;title\x07\n\xff"
    os.rename(folder / fids[0], os.fsencode(folder) + b"/" + named)
    page, picture, film = (tmp_path / f"a.{kind}" for kind in ("html", "png", "gif"))
    args = ["--samples", "1", "--output", str(page), "--png", str(picture), "--gif", str(film)]
    assert cli.main(["report", str(folder), *args]) == 0
    out = capsys.readouterr().out
    shown_name = "\\x1b]0;title\\x07\\x0a\\udcff"
    assert out.count(f": sample {shown_name}\n") == 2
    assert out.count("\n") == 3
    assert set(out) & set("\x1b\x07\udcff") == set()
    assert shown(page) == [shown_name]
    # The files' own names are shown no other way.
    output = os.fsdecode(os.fsencode(tmp_path) + b"/\x1b[2J\xff.html")
    assert cli.main(["report", str(folder), "--output", output]) == 0
    assert "\\x1b[2J\\udcff.html (" in capsys.readouterr().out


def test_a_folder_without_samples_is_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in (tmp_path / "nowhere", tmp_path):
        assert cli.main(["report", str(folder)]) == 1
        error = capsys.readouterr().err
        assert str(folder) in error
        assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())
