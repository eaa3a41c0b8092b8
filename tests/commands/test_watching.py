"""Watching a text being filled: what is drawn, in which colours, and where it goes."""

import io
import os
import pty
import re
import signal
import subprocess
import sys
import unicodedata
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console
from tiny_checkpoints import CONFIG, write_checkpoint

from xlm_mlm.commands.watching import Watcher
from xlm_mlm.generation.fill import View
from xlm_mlm.rebuild import rebuild

PROGRAM = Path(sys.executable).with_name("xlm-mlm")
MASK = 0
ESCAPE = "\x1b"
HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"  # the cursor
# Whatever here decides what a terminal is.
SETTINGS = ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLUMNS", "LINES")
DIGITS = ["[MASK]", *map(str, range(1, 10)), "word"]
WORD = 10


@pytest.fixture(autouse=True)
def _settings(monkeypatch):
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLORTERM", "truecolor")


@pytest.fixture
def naps(monkeypatch):
    """How long the watcher rested, which it doesn't."""
    lengths = []
    monkeypatch.setattr("xlm_mlm.commands.watching.time.sleep", lengths.append)
    return lengths


class Terminal(io.StringIO):
    def isatty(self):
        return True


def watcher(texts, stream=None, delay=0.0):
    """Of a model whose token 0 is the mask."""
    filler = SimpleNamespace(mask_id=MASK, texts=lambda: texts)
    return Watcher(filler, stream or io.StringIO(), delay)


def view(ids, p=None, new=(), step=1):
    return View(step, list(ids), [None] * len(ids) if p is None else list(p), list(new))


def drawn(texts, *args, width=200, **more):
    """The lines that a terminal shows, each as its pieces of text with their styles."""
    console = Console(file=io.StringIO(), force_terminal=True, color_system="truecolor")
    options = console.options.update(width=width)
    picture = watcher(texts).draw(view(*args, **more))
    return console.render_lines(picture, options, pad=False)


def plain(lines):
    return ["".join(piece.text for piece in line) for line in lines]


def body(lines):
    """Without the heading and the legend."""
    assert plain(lines)[1] == plain(lines)[-2] == ""
    return lines[2:-2]


def style_of(lines, text):
    """The style of the one piece that reads so."""
    (style,) = [piece.style for line in lines for piece in line if piece.text == text]
    return style


def back(p, **more):
    """The background of a token of such a probability."""
    style = style_of(body(drawn(["[MASK]", "a"], [1], [p], **more)), "a")
    return style.bgcolor.triplet, style.color.name


@pytest.mark.parametrize(
    ("ids", "p", "heading"),
    [
        ([1, 0, 0], None, "pass 4, 2 blanks left"),
        ([1, 0, 2], None, "pass 4, 1 blank left"),
        ([1, 2, 2], [None, 0.5, 0.25], "pass 4, 0 blanks left, mean confidence 0.38"),
        ([0, 2, 0], [None, 0.0, None], "pass 4, 2 blanks left, mean confidence 0.00"),
    ],
)
def test_the_heading_counts(ids, p, heading):
    lines = drawn(["[MASK]", "a", "b"], ids, p, step=4)
    assert plain(lines)[0] == heading
    assert all(piece.style.bold for piece in lines[0])


def test_words_are_set_apart_unless_they_bring_their_spaces():
    assert plain(body(drawn(["[MASK]", "a", "b"], [1, 0, 2]))) == ["a · b"]
    assert plain(body(drawn(["[MASK]", "a", " b"], [1, 0, 2]))) == ["a· b"]


def test_what_was_given_has_no_colour_and_a_blank_is_dim():
    lines = body(drawn(["[MASK]", " a", " b"], [1, 0, 2], [None, None, 0.5]))
    assert style_of(lines, "·").dim
    given = style_of(lines, " a")
    assert not given or (given.bgcolor, given.bold, given.underline) == (None, None, None)
    assert style_of(lines, " b").bgcolor is not None


def test_only_new_tokens_are_bold_and_underlined():
    lines = body(drawn(["[MASK]", "a", "b"], [1, 2], [0.5, 0.5], [1]))
    old, new = style_of(lines, "a"), style_of(lines, "b")
    assert (new.bold, new.underline) == (True, True)
    assert not old.bold
    assert not old.underline
    assert old.bgcolor == new.bgcolor


def test_more_confident_is_lighter_and_the_text_stays_legible():
    steps = [back(n / 20) for n in range(21)]
    lightness = [0.3 * red + 0.59 * green + 0.11 * blue for (red, green, blue), _ in steps]
    assert sorted(set(lightness)) == lightness
    assert (steps[0][1], steps[-1][1]) == ("white", "black")
    for light, (_, text) in zip(lightness, steps, strict=True):
        assert abs(light - {"white": 255, "black": 0}[text]) > 100


def test_beyond_the_ends_the_colours_stay():
    assert back(1.5) == back(1.0)
    assert back(-0.5) == back(0.0)


def test_the_legend_has_the_same_colours():
    lines = drawn(["[MASK]", "a"], [1], [0.5])
    assert plain(lines)[-1].split() == ["confidence", "0", "1", "new"]
    ramp = [piece.style.bgcolor.triplet for piece in lines[-1] if piece.text == "  "]
    assert ramp == [back(n / 8)[0] for n in range(9)]
    new = style_of(lines[-1:], "new")
    assert (new.bold, new.underline) == (True, True)


@pytest.mark.parametrize(
    ("token", "shown"),
    [
        (f"{ESCAPE}[2J", r"\x1b[2J"),
        ("\x9b31m", r"\x9b31m"),
        ("\a\b\r\0", r"\x07\x08\x0d\x00"),
        ("\u202e", r"\u202e"),
        ("[bold red]", "[bold red]"),
        ("[/]", "[/]"),
        (":smile:", ":smile:"),
        ("é你🙂", "é你🙂"),
    ],
)
def test_a_token_cannot_control_the_terminal(token, shown):
    # As it is given, as it is filled, and as it is new.
    places = ([1, 1, 1], [None, 0.5, 0.5], [2])
    assert plain(body(drawn(["[MASK]", token], *places))) == [" ".join([shown] * 3)]
    for stream in (io.StringIO(), Terminal()):
        with watcher(["[MASK]", token], stream) as watching:
            watching(view(*places))
        text = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", stream.getvalue())
        kinds = {unicodedata.category(char) for char in text.replace("\r", "").replace("\n", "")}
        assert not kinds & {"Cc", "Cf"}
        assert shown in text
        assert f"{ESCAPE}[2J" not in stream.getvalue()


def test_a_line_break_is_one():
    assert plain(body(drawn(["[MASK]", "a\n", " b"], [1, 2]))) == ["a", " b"]


def test_a_token_without_a_text_is_its_number():
    assert plain(body(drawn(["[MASK]", "a"], [1, 7]))) == ["a #7"]


SMALL = [1, 2, 3, 0, 3, 0, 1, 2, 2, 1, 0, 3, 0, 3, 2, 1]
SMALL_DRAWN = [
    " 1  2 │ 3  · ",
    " 3  · │ 1  2 ",
    "──────┼──────",
    " 2  1 │ ·  3 ",
    " ·  3 │ 2  1 ",
]


@pytest.mark.parametrize("around", [[], [WORD]])
def test_a_board_of_four_by_four_is_a_grid(around):
    assert plain(body(drawn(DIGITS, around + SMALL + around))) == SMALL_DRAWN


def test_a_board_of_nine_by_nine_is_a_grid():
    rows = [[1 + (3 * row + row // 3 + column) % 9 for column in range(9)] for row in range(9)]
    rows[4][7] = MASK
    lines = plain(body(drawn(DIGITS, [token for row in rows for token in row])))
    assert len(lines) == 11
    assert lines[3] == lines[7] == "┼".join(["─" * 9] * 3)
    for row, line in zip(rows, [*lines[:3], *lines[4:7], *lines[8:]], strict=True):
        boxes = line.split("│")
        assert [len(box) for box in boxes] == [9, 9, 9]
        cells = [cell for box in boxes for cell in box.split()]
        assert cells == ["·" if token == MASK else str(token) for token in row]


def test_a_cell_of_a_board_has_its_colours():
    p = [None] * 16
    p[5], p[6] = 0.9, 0.1
    ids = [MASK] * 16
    ids[0], ids[5], ids[6] = 3, 1, 2
    lines = body(drawn(DIGITS, ids, p, [6]))
    old, new, given = (style_of(lines, f" {digit} ") for digit in "123")
    assert (old.bgcolor.triplet, new.bgcolor.triplet) == (back(0.9)[0], back(0.1)[0])
    assert (new.bold, new.underline) == (True, True)
    assert not old.underline
    assert not given or given.bgcolor is None
    assert lines[1][:2] != lines[3][:2]  # the digit is in the second row


@pytest.mark.parametrize(
    "ids",
    [
        SMALL[:15],
        [*SMALL[:8], WORD, *SMALL[8:]],
        [*SMALL[:15], 5, 1],
        [5, 6, 7, 8, *SMALL[4:]],
    ],
)
def test_what_is_no_board_is_a_line(ids):
    shown = ["·" if token == MASK else DIGITS[token] for token in ids]
    assert plain(body(drawn(DIGITS, ids))) == [" ".join(shown)]


PASSES = [view([1, 0, 0], step=0), view([1, 2, 0], [None, 0.9, None], [1])]


def watched(stream, delay=0.25):
    """What reaches a stream."""
    with watcher(["[MASK]", "a", "b"], stream, delay) as watching:
        for each in PASSES:
            watching(each)
    return stream.getvalue()


def test_a_terminal_is_redrawn(naps):
    out = watched(Terminal())
    assert naps == [0.25, 0.25]
    for each in ("pass 0, 2 blanks left", "pass 1, 1 blank left"):
        assert each in out
    # Up a line and clear it, for each line of the first picture but one.
    between = out.partition("pass 0")[2].partition("pass 1")[0]
    assert between.count(f"{ESCAPE}[1A") == 4
    red, green, blue = back(0.9)[0]
    assert f"48;2;{red};{green};{blue}m" in out
    assert out.startswith(f"{ESCAPE}[?25l")
    assert out.endswith(f"{ESCAPE}[?25h\n")


@pytest.mark.parametrize(
    ("stream", "env"),
    [
        (io.StringIO, {}),
        (io.StringIO, {"FORCE_COLOR": "1"}),
        (io.StringIO, {"TTY_COMPATIBLE": "1"}),
        (Terminal, {"NO_COLOR": "1"}),
        (Terminal, {"TERM": "dumb"}),
    ],
)
def test_elsewhere_a_pass_is_a_plain_line(naps, monkeypatch, stream, env):
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert watched(stream()) == "pass 0: a · ·\npass 1: a b ·\n"
    assert naps == []


def test_a_long_text_is_still_one_line():
    stream = io.StringIO()
    with watcher(["[MASK]", "word"], stream) as watching:
        watching(view([1] * 100))
    assert stream.getvalue() == f"pass 1: {' '.join(['word'] * 100)}\n"


def test_an_error_gives_the_cursor_back(naps):
    stream = Terminal()
    filling = watcher(["[MASK]", "a"], stream)
    with pytest.raises(ValueError, match="shorter"), filling as watching:
        watching(View(1, [0], [], []))  # no probability for its token
    assert stream.getvalue().endswith(f"{ESCAPE}[?25h\n")


def test_a_text_that_is_refused_draws_nothing():
    stream = Terminal()
    with pytest.raises(ValueError, match="no blank"), watcher(["[MASK]", "a"], stream):
        raise ValueError("no blank")
    assert stream.getvalue() == ""


def read_all(terminal):
    """What was sent to a terminal until nobody holds its other end."""
    chunks = []
    while True:
        try:
            chunk = os.read(terminal, 65536)
        except OSError:  # how Linux ends it
            chunk = b""
        if not chunk:
            return b"".join(chunks).decode()
        chunks.append(chunk)


@pytest.mark.slow
def test_the_program_redraws_a_real_terminal(tmp_path):
    path = tmp_path / "x.ckpt"
    write_checkpoint(path, rebuild(CONFIG).model, hyper_parameters=CONFIG)
    args = ["fill", "1 [MASK] [MASK]", "--checkpoint", path, "--watch", "--delay", "0"]
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [PROGRAM, *args, "--device", "cpu"], stdout=subprocess.PIPE, stderr=theirs
    ) as process:
        os.close(theirs)
        drawing = read_all(ours)
        result = process.stdout.read().decode()
    os.close(ours)
    assert process.returncode == 0
    assert re.fullmatch(r"1 \S+ \S+\n", result)
    headings = re.findall(r"pass \d, \d blanks? left", drawing)
    assert list(dict.fromkeys(headings)) == [
        "pass 0, 2 blanks left",
        "pass 1, 1 blank left",
        "pass 2, 0 blanks left",
    ]
    assert f"{ESCAPE}[1A" in drawing
    assert re.search(r"\x1b\[[\d;]*48;2;\d+;\d+;\d+m", drawing)
    assert "pass 0: " not in drawing


def test_sigterm_gives_the_cursor_back(naps):
    """It ended the process where it was, with the cursor hidden."""
    stream = Terminal()

    def fill():
        with watcher(DIGITS, stream) as watching:
            watching(view([1, MASK]))
            assert stream.getvalue().rfind(HIDE) > stream.getvalue().rfind(SHOW)
            assert signal.getsignal(signal.SIGTERM) != signal.SIG_DFL
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SystemExit) as ended:
        fill()
    assert ended.value.code == 143
    assert stream.getvalue().rfind(SHOW) > stream.getvalue().rfind(HIDE)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_where_nothing_is_redrawn_sigterm_is_left_alone():
    with watcher(DIGITS):
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
