"""The page's file: whole or not there, nothing from outside, nothing that a token could break."""

import base64
import hashlib
import json
import re
from importlib.resources import files

import pytest
from html_pages import Page
from made_up_pages import HOSTILE, board, hostile, made_up, words

from xlm_mlm.report.page import is_page, write_page


@pytest.fixture
def path(tmp_path):
    return tmp_path / "page.html"


def test_nothing_that_samples_hold_changes_the_elements(path):
    write_page([words()], path)
    plain = Page(path.read_text("utf-8"))
    write_page([hostile(), hostile()], path, title=HOSTILE[0] + "\u202e\x00\ud800")
    page = Page(path.read_text("utf-8"))
    assert page.balanced
    assert not page.open
    assert [e[0] for e in page.elements] == [e[0] for e in plain.elements]
    assert page.all("h1")[0][2] == HOSTILE[0] + r"\u202e\x00\ud800"
    (data,) = page.all("script", type="application/json")
    assert not set("<>&") & set(data[2])
    assert data[2].isascii()
    assert data[2].isprintable()
    assert len(json.loads(data[2])["samples"]) == 2


def test_the_page_needs_nothing_from_outside(path):
    write_page([board(), words()], path)
    page = Page(path.read_text("utf-8"))
    assert {e[0] for e in page.elements}.isdisjoint(
        {"link", "img", "iframe", "a", "form", "object"}
    )
    assert not any({"src", "href", "style"} & set(e[1]) for e in page.elements)
    style, script = page.all("style")[0][2], page.all("script")[-1][2]
    assert "url(" not in style
    assert "@import" not in style
    for word in ("fetch", "XMLHttpRequest", "import(", "innerHTML", "eval(", "document.write"):
        assert word not in script
    # Apart from the name of SVG's elements, which is no place to go to.
    assert re.findall(r"https?:[^\"']*", page.text) == ["http://www.w3.org/2000/svg"]


def test_only_the_pages_own_script_and_style_may_run(path):
    write_page([words()], path)
    page = Page(path.read_text("utf-8"))
    (policy,) = page.all("meta", **{"http-equiv": "Content-Security-Policy"})
    rules = dict(rule.split(maxsplit=1) for rule in policy[1]["content"].split("; "))
    assert rules["default-src"] == "'none'"
    for kind, tag in [("style-src", "style"), ("script-src", "script")]:
        digest = hashlib.sha256(page.all(tag)[-1][2].encode()).digest()
        assert rules[kind] == f"'sha256-{base64.b64encode(digest).decode()}'"


def test_the_same_samples_make_the_same_page(path, tmp_path):
    write_page([board(), words()], path)
    write_page([board(), words()], tmp_path / "again.html")
    assert path.read_bytes() == (tmp_path / "again.html").read_bytes()


def test_a_page_that_fails_leaves_what_was_there(path, tmp_path):
    write_page([words()], path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="no samples"):
        write_page([], path)
    with pytest.raises(ValueError, match="top is 0"):
        write_page([words()], path, top=0)
    with pytest.raises(ValueError, match="'made-up' has no tokens"):
        write_page([made_up(["[MASK]"], [], [], 0)], path)
    with pytest.raises(OSError, match="no-such-folder"):
        write_page([words()], tmp_path / "no-such-folder" / "page.html")
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(OSError, match=r"folder\.html"):
        write_page([words()], tmp_path / "folder.html")
    assert path.read_bytes() == before
    assert sorted(each.name for each in tmp_path.iterdir()) == ["folder.html", "page.html"]


def test_a_page_is_known_from_other_files(path, tmp_path):
    write_page([words()], path)
    other = tmp_path / "other.html"
    other.write_text("<!doctype html><title>mine</title>")
    assert is_page(path)
    assert not is_page(other)


def _luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(one, other):
    low, high = sorted([_luminance(one), _luminance(other)])
    return (high + 0.05) / (low + 0.05)


def test_text_has_the_contrast_that_wcag_aa_asks_for():
    style = files("xlm_mlm.report").joinpath("page.css").read_text("utf-8")
    found = re.findall(r"--([\w-]+): light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\);", style)
    for side in (1, 2):
        colours = {each[0]: each[side] for each in found}
        assert {"page", "card", "ink", "quiet", "link", "mask", "control"} <= set(colours)
        for ground in ("page", "card", "mask"):
            for ink in ("ink", "quiet", "link"):
                assert _contrast(colours[ink], colours[ground]) >= 4.5, (side, ink, ground)
        # What is not text, but has to be seen.
        assert _contrast(colours["control"], colours["card"]) >= 3
