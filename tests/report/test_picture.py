"""The picture, decoded: tokens and charts have the colours of what the trace holds."""

import os
import re
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from made_up_pages import HOSTILE, board, large, made_up, taken_back, words
from matplotlib.figure import Figure
from PIL import Image

import xlm_mlm.report
from xlm_mlm.report import colours
from xlm_mlm.report.canvas import Canvas, drawable, shortened, text_width
from xlm_mlm.report.drawing import Drawing
from xlm_mlm.report.picture import MARGIN, TOP, WIDTH, write_png

ROOM = WIDTH - 2 * MARGIN
TEXTS = [*HOSTILE, "$x$", "$\\frac{", "中文", "\U0001f600", "\U0001f469\u200d\U0001f680", "\ufffe"]


def written(trace, tmp_path):
    write_png(trace, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def charts_of(trace, tmp_path, monkeypatch):
    """The figure as it was saved, for what its charts hold."""
    kept = []
    save = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *a, **k: (kept.append(self), save(self, *a, **k))
    )
    write_png(trace, tmp_path / "a.png")
    return kept[0].axes


@pytest.mark.parametrize("made", [board, words, taken_back])
def test_tokens_have_the_colours_of_the_passes_that_filled_them(tmp_path, made):
    trace = made()
    pixels = written(trace, tmp_path)
    assert pixels.shape[1] == WIDTH
    layout = Drawing(trace, 2, ROOM).layout
    assert len(layout.places) == len(trace.before)
    for place, (x0, y0, _, _) in zip(layout.places, layout.boxes, strict=True):
        number = int(trace.filled_by[place]) + 1
        wanted = colours.colour_of_pass(number, trace.steps) if number else colours.CARD
        found = tuple(pixels[TOP + y0 + 3, MARGIN + x0 + 3].tolist())
        assert found == wanted, place


def test_charts_hold_the_trace(tmp_path, monkeypatch):
    trace = words()
    bar, masks, mean, heat, _ = charts_of(trace, tmp_path, monkeypatch)
    assert masks.lines[0].get_xydata().tolist() == [
        [state, int((row == 0).sum())] for state, row in enumerate([trace.before, *trace.x])
    ]
    assert mean.lines[0].get_xdata().tolist() == [1, 2, 3, 4]
    for value, row in zip(mean.lines[0].get_ydata(), trace.entropy.numpy(), strict=True):
        assert value == pytest.approx(row[~np.isnan(row)].mean())
    shown = heat.images[0].get_array()
    assert np.array_equal(shown.filled(np.nan), trace.entropy.numpy(), equal_nan=True)
    assert bar.images[0].get_array().shape[1] == 4
    labels = [axes.get_xlabel() for axes in (masks, mean, heat)]
    assert labels == ["Pass", "Pass", "Position"]
    assert heat.get_ylabel() == "Pass"
    assert all("nats" in axes.get_title(loc="left") for axes in (mean, heat))


def test_positions_without_probabilities_stay_blank(tmp_path, monkeypatch):
    trace = words(window=3)
    heat = charts_of(trace, tmp_path, monkeypatch)[3]
    shown = heat.images[0].get_array().filled(np.nan)
    assert shown.shape == (4, 8)
    assert np.isnan(shown[:, :5]).all()
    assert not np.isnan(shown[0, 5:]).all()


def test_hostile_tokens_are_drawn_as_they_are(tmp_path, recwarn, capfd, caplog):
    places = list(range(1, len(TEXTS) + 1))
    trace = made_up(["<mask>", *TEXTS], places, [1], 4, fid="$x$ $\\frac \ud800 \n 中")
    assert written(trace, tmp_path).shape[1] == WIDTH
    assert not recwarn.list
    assert not caplog.records
    assert capfd.readouterr() == ("", "")


def test_the_users_settings_change_nothing_and_stay(tmp_path):
    write_png(words(), tmp_path / "a.png")
    with matplotlib.rc_context({"font.size": 40, "axes.facecolor": "red", "text.usetex": True}):
        write_png(words(), tmp_path / "b.png")
        assert matplotlib.rcParams["text.usetex"] is True
        assert matplotlib.rcParams["font.size"] == 40
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_the_ground_is_light_and_opaque(tmp_path):
    write_png(board(), tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert np.asarray(image.convert("RGBA"))[..., 3].min() == 255
        assert image.convert("RGB").getpixel((2, 2)) == colours.CARD
        assert "Software" not in image.info


@pytest.mark.parametrize("mask_known", [True, False])
@pytest.mark.parametrize("passes", [0, 1, 2])
def test_unfinished_runs(tmp_path, recwarn, passes, mask_known):
    trace = words(mask_known=mask_known)
    parts = {name: getattr(trace, name)[:passes] for name in ("x", "p", "pids", "entropy")}
    written(replace(trace, **parts, finished=False), tmp_path)
    assert not recwarn.list


def test_a_long_trace_is_bounded(tmp_path):
    pixels = written(large(), tmp_path)
    assert pixels.shape[0] < 3200
    assert (tmp_path / "a.png").stat().st_size < 2_500_000


def test_what_has_no_room_is_counted(tmp_path):
    texts = ["[MASK]", "w" * 26]
    trace = made_up(texts, [1] * 1500, [], 1)
    layout = Drawing(trace, 1, 768).layout
    assert layout.hidden + len(layout.places) == 1500
    assert layout.hidden > 0
    assert layout.height < 1000


def test_bad_targets_are_refused_and_leave_nothing(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"it must end in \.png"):
        write_png(board(), tmp_path / "a.gif")
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        write_png(board(), tmp_path / "no" / "a.png")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match=r"No space left.*/a\.png"):
        write_png(board(), tmp_path / "a.png")
    assert os.listdir(tmp_path) == []


def test_colours_are_those_of_the_page():
    folder = Path(xlm_mlm.report.__file__).parent
    script = (folder / "page_colours.js").read_text()
    for name, stops in colours.RAMPS.items():
        (text,) = re.findall(rf'{name}: hexes\("([0-9a-f ]+)"\)', script)
        assert [colours.css(stop) for stop in stops] == [f"#{word}" for word in text.split()]
    style = (folder / "page.css").read_text()
    names = {
        name: name.upper() for name in ("page", "card", "line", "ink", "quiet", "link", "mask")
    }
    for name, ours in {**names, "control": "FAINT"}.items():
        (light,) = re.findall(rf"--{name}: light-dark\((#[0-9a-f]+),", style)
        assert colours.css(getattr(colours, ours)) == light


def test_ink_reads_on_every_shade():
    def light(colour):
        channels = [b / 255 for b in colour]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return np.dot(linear, [0.2126, 0.7152, 0.0722])

    for i in range(101):
        ground = colours.colour_at("pass", i / 100)
        low, high = sorted((light(ground), light(colours.ink_on(ground))))
        assert (high + 0.05) / (low + 0.05) >= 4.5


def test_what_the_font_lacks_is_escaped():
    assert drawable("ab·␣↵⇥∅◌…é") == "ab·␣↵⇥∅◌…é"
    assert drawable("中\U0001f600") == "\\u4e2d\\U0001f600"
    assert drawable("\ud800") == "\\ud800"


def test_texts_are_shortened_to_their_room():
    whole = "0123456789"
    assert shortened(whole, 16, text_width(whole, 16)) == whole
    assert shortened(whole, 16, text_width(whole[:5], 16)) == "0123…"
    assert shortened(whole, 16, 1) == "…"


def test_a_canvas_cuts_what_leaves_it():
    canvas = Canvas(20, 10, colours.CARD)
    canvas.rectangle(-5, -5, 3, 3, colours.INK)
    canvas.rectangle(15, 5, 99, 99, colours.INK)
    for x, middle in ((-10, 5), (15, 5), (5, -2), (5, 12), (99, 5), (5, 99), (-999, 5)):
        canvas.text(x, middle, "xyz", 14, colours.INK, colours.CARD)
    assert canvas.rgb().shape == (10, 20, 3)
    assert len(canvas.palette) <= 2 + 3
