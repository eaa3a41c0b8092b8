"""The pictures of README, examples and docs: there, small, and what they claim to be."""

import importlib.util
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "pictures"
PAGES = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").rglob("*.md")]
PICTURES = sorted(FOLDER.iterdir())


def named_in(page):
    text = page.read_text(encoding="utf-8")
    found = re.findall(r"!\[([^\]]*)\]\(([^)\s]+)\)", text)
    found += [(alt, src) for src, alt in re.findall(r'<img src="([^"]+)"[^>]* alt="([^"]*)"', text)]
    return [(alt, (page.parent / target).resolve()) for alt, target in found if "://" not in target]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_pictures_that_are_named_exist_and_say_what_they_show(page):
    for alt, target in named_in(page):
        assert target.is_file(), target
        assert alt, target


def test_every_picture_is_named_somewhere():
    named = {target for page in PAGES for _, target in named_in(page)}
    assert set(PICTURES) <= named


def test_all_of_them_together_are_small():
    assert sum(picture.stat().st_size for picture in PICTURES) < 1_500_000


@pytest.mark.parametrize("name", ["sudoku.gif", "text.gif"])
def test_animations_are_animated_and_small(name):
    assert (FOLDER / name).stat().st_size < 1_000_000
    with Image.open(FOLDER / name) as image:
        assert image.n_frames > 8
        assert image.info["loop"] == 0
        assert 400 <= image.width <= 900


@pytest.mark.parametrize("name", ["sudoku.png", "text.png", "report.png"])
def test_pictures_are_wide_enough_to_read(name):
    with Image.open(FOLDER / name) as image:
        assert image.width >= 1000
        assert 0.3 < image.height / image.width < 2


@pytest.mark.parametrize("picture", [p for p in PICTURES if p.suffix == ".svg"], ids=str)
def test_terminals_load_nothing_and_name_no_place_of_the_machine(picture):
    text = picture.read_text(encoding="utf-8")
    assert ElementTree.fromstring(text).tag.endswith("svg")
    assert "url(http" not in text
    assert not re.search(r"(?<!~)/(tmp|home|root|work|usr|opt)/", text)


@pytest.fixture(scope="module")
def screen():
    path = ROOT / "examples" / "watch" / "screen.py"
    spec = importlib.util.spec_from_file_location("watch_screen", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Screen


@pytest.mark.parametrize(
    ("output", "seen"),
    [
        ("one\ntwo\n", "one\ntwo"),
        ("wait ...\r        \rdone\n", "done"),
        ("a\nb\nc\n\x1b[2Ax\x1b[K\n", "a\nx\nc"),
        ("a\nb\nc\n\x1b[2A\x1b[Jx\n", "a\nx"),
        ("abc\x1b[2D\x1b[1mX\x1b[0mY", "aXY"),
        ("\x1b[?25la\x1b[?25h", "a"),
    ],
)
def test_the_screen_shows_what_a_terminal_would(screen, output, seen):
    shown = screen()
    shown.feed(output)
    assert re.sub(r"\x1b\[[\d;]*m", "", shown.text()) == seen


def test_the_screen_keeps_colours(screen):
    shown = screen()
    shown.feed("a\x1b[1m\x1b[31mb\x1b[0mc")
    assert "\x1b[1m\x1b[31mb\x1b[0mc" in shown.text()
