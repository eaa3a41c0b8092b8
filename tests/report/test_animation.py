"""The animation, decoded: every pass is there, and every token has its pass's colour."""

import os
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from made_up_pages import HOSTILE, MASK, board, hostile, large, made_up, taken_back, words
from PIL import Image

from xlm_mlm.report import colours
from xlm_mlm.report.animation import FRAMES, MARGIN, TOP, durations_of, states_of, write_gif
from xlm_mlm.report.drawing import Drawing


def frames_of(path):
    """Each frame's pixels (H, W, 3), and how long it is shown, in milliseconds."""
    with Image.open(path) as image:
        frames, durations = [], []
        for number in range(image.n_frames):
            image.seek(number)
            frames.append(np.asarray(image.convert("RGB")))
            durations.append(image.info["duration"])
        return frames, durations, image.info.get("loop")


def written(trace, tmp_path):
    write_gif(trace, tmp_path / "a.gif")
    return frames_of(tmp_path / "a.gif")


def naive_filled(trace, state, place):
    """The pass, from 1, that last changed a place by a state; 0 if none did."""
    rows = [trace.before, *trace.x]
    return max((s for s in range(1, state + 1) if rows[s][place] != rows[s - 1][place]), default=0)


def naive_colour(trace, state, place):
    token = [trace.before, *trace.x][state][place]
    if token == MASK:
        return colours.MASK
    number = naive_filled(trace, state, place)
    return colours.colour_of_pass(number, trace.steps) if number else colours.CARD


def corner(frame, box, origin, inset):
    """A pixel of a token that no letter and no ring covers."""
    return tuple(frame[box[1] + origin[1] + inset, box[0] + origin[0] + inset].tolist())


@pytest.mark.parametrize("seed", range(3))
def test_cells_of_a_board_have_the_colours_of_their_passes(tmp_path, seed):
    trace = board(seed=seed)
    frames, durations, loop = written(trace, tmp_path)
    assert len(frames) == trace.steps + 1
    assert loop == 0
    assert durations == durations_of(len(frames))
    assert durations[-1] > 2000
    layout = Drawing(trace, 2, 768).layout
    assert (layout.places, layout.side) == (list(range(16)), 4)
    origin = ((frames[0].shape[1] - layout.width) // 2, TOP)
    for state, frame in enumerate(frames):
        for place, box in zip(layout.places, layout.boxes, strict=True):
            assert corner(frame, box, origin, 14) == naive_colour(trace, state, place)


@pytest.mark.parametrize("made", [words, taken_back])
def test_tokens_of_a_text_have_the_colours_of_their_passes(tmp_path, made):
    trace = made()
    frames, _, _ = written(trace, tmp_path)
    layout = Drawing(trace, 1, 768).layout
    for state, frame in enumerate(frames):
        for place, box in zip(layout.places, layout.boxes, strict=True):
            found = corner(frame, box, (MARGIN - 2, TOP), 2)
            assert found == naive_colour(trace, state, place), (state, place)


def test_what_a_pass_filled_is_ringed(tmp_path):
    trace = board()
    frames, _, _ = written(trace, tmp_path)
    layout = Drawing(trace, 2, 768).layout
    origin = ((frames[0].shape[1] - layout.width) // 2, TOP)
    for state, frame in enumerate(frames):
        for place, box in zip(layout.places, layout.boxes, strict=True):
            fresh = state > 0 and naive_filled(trace, state, place) == state
            assert (corner(frame, box, origin, 1) == colours.INK) == fresh


def test_letters_are_drawn(tmp_path):
    """A filled cell shows more than its ground, and other tokens look otherwise."""
    trace = board()
    frames, _, _ = written(trace, tmp_path)
    layout = Drawing(trace, 2, 768).layout
    left = (frames[0].shape[1] - layout.width) // 2
    looks = {}
    for place, (x0, y0, x1, y1) in zip(layout.places, layout.boxes, strict=True):
        cell = frames[-1][y0 + TOP + 14 : y1 + TOP - 14, x0 + left + 14 : x1 + left - 14]
        inked = (cell != cell[0, 0]).any(-1)
        assert 0.02 < inked.mean() < 0.5
        given = naive_filled(trace, trace.steps, place) == 0  # in bold
        looks.setdefault((int(trace.x[-1, place]), given), set()).add(inked.tobytes())
    assert {len(same) for same in looks.values()} == {1}
    assert len({next(iter(same)) for same in looks.values()}) == len(looks)


def test_a_sudoku_is_small(tmp_path):
    solution = [4, 3, 1, 2, 1, 2, 3, 4, 3, 4, 2, 1, 2, 1, 4, 3]
    write_gif(made_up(["[MASK]", *"1234"], solution, [0, 5, 10], 12), tmp_path / "a.gif")
    assert (tmp_path / "a.gif").stat().st_size < 100_000


def test_a_long_trace_is_thinned_out_and_bounded(tmp_path):
    trace = large()
    frames, durations, _ = written(trace, tmp_path)
    assert len(frames) == FRAMES
    assert (tmp_path / "a.gif").stat().st_size < 1_000_000
    assert sum(durations) < 20_000
    assert max(frames[0].shape) < 1100
    layout = Drawing(trace, 1, 768).layout
    ramp = [colours.colour_at("pass", i / 47) for i in range(48)]
    for place, box in zip(layout.places, layout.boxes, strict=True):
        found = corner(frames[-2], box, (MARGIN - 2, TOP), 1)
        number = naive_filled(trace, states_of(trace.steps)[-2], place)
        if number and number <= states_of(trace.steps)[-3]:  # not ringed
            assert found == ramp[round((number - 1) / 255 * 47)]


@pytest.mark.parametrize("passes", [48, 49, 128])
def test_a_palette_holds_all_colours(tmp_path, passes):
    trace = made_up(["[MASK]", *"ab ", "word"], [1, 2, 3, 4] * 50, range(8), passes)
    frames, _, _ = written(trace, tmp_path)
    packed = frames[-1].astype("u4") @ np.array([65536, 256, 1], dtype="u4")
    seen = np.unique(packed)
    assert 150 < len(seen) < 256


@pytest.mark.parametrize("passes", [0, 1, 2, 58, 59, 60, 61, 256, 100_000])
def test_states_are_spread_evenly(passes):
    states = states_of(passes)
    assert (states[0], states[-1]) == (0, passes)
    assert len(states) == min(passes + 1, 60) == len(set(states)) == len(durations_of(len(states)))
    gaps = {b - a for a, b in pairwise(states)}
    assert max(gaps, default=0) - min(gaps, default=0) <= 1


TEXTS = [*HOSTILE, "$x$", "$\\frac{", "中文", "\U0001f600", "\U0001f469\u200d\U0001f680", "\ufffe"]


def test_hostile_tokens_are_drawn_as_they_are(tmp_path, recwarn, capfd):
    places = list(range(1, len(TEXTS) + 1))
    trace = made_up(["<mask>", *TEXTS], places, [1], 4, fid="$\\ud800 \n 中")
    frames, _, _ = written(trace, tmp_path)
    assert len(frames) == 5
    assert not recwarn.list
    assert capfd.readouterr() == ("", "")
    assert len(written(hostile(), tmp_path)[0]) == 6


def test_nothing_moves_when_a_longer_token_is_replaced():
    trace = taken_back()
    layout = Drawing(trace, 1, 768).layout
    narrow = Drawing(replace(trace, x=trace.x[-1:].repeat(trace.steps, 1)), 1, 768).layout
    assert layout.boxes[7][2] - layout.boxes[7][0] >= narrow.boxes[7][2] - narrow.boxes[7][0]


def test_words_of_bytes_stay_whole():
    text = "a sequence of several words, as they come, " * 5 + "w" * 200 + "\nend"
    kinds = sorted(set(text))
    trace = made_up(["[MASK]", *kinds], [kinds.index(char) + 1 for char in text], [0], 3)
    layout = Drawing(trace, 1, 768).layout
    assert layout.tight
    tops = [box[1] for box in layout.boxes]
    for i, char in enumerate(text[:-1]):
        longest = i >= text.index("www")
        assert tops[i] == tops[i + 1] or char in " \n" or longest
    assert tops[-3] > tops[-4]
    assert max(box[2] for box in layout.boxes) <= 768
    assert len(set(tops)) > 3


@pytest.mark.parametrize("mask_known", [True, False])
def test_unfinished_runs(tmp_path, mask_known):
    trace = words(mask_known=mask_known)
    cut = replace(
        trace, x=trace.x[:2], p=trace.p[:2], pids=trace.pids[:2], entropy=trace.entropy[:2],
        finished=False,
    )  # fmt: skip
    assert len(written(cut, tmp_path)[0]) == 3


def test_no_pass_at_all_is_one_picture(tmp_path):
    trace = made_up(["[MASK]", "a"], [1, 1, 1], [0], 0)
    frames, _, _ = written(trace, tmp_path)
    assert len(frames) == 1


def test_a_window_of_probabilities_changes_nothing(tmp_path):
    for name, window in (("a", None), ("b", 3)):
        write_gif(words(window=window), tmp_path / f"{name}.gif")
    assert (tmp_path / "a.gif").read_bytes() == (tmp_path / "b.gif").read_bytes()


def test_the_same_trace_gives_the_same_bytes(tmp_path):
    for name in "ab":
        write_gif(board(), tmp_path / f"{name}.gif")
    assert (tmp_path / "a.gif").read_bytes() == (tmp_path / "b.gif").read_bytes()


def test_bad_targets_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"it must end in \.gif"):
        write_gif(board(), tmp_path / "a.png")
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        write_gif(board(), tmp_path / "no" / "a.gif")
    empty = torch.zeros(0, dtype=torch.long)
    none = replace(board(), before=empty, x=torch.zeros(0, 0, dtype=torch.long))
    with pytest.raises(ValueError, match="has no tokens"):
        write_gif(none, tmp_path / "a.gif")
    assert os.listdir(tmp_path) == []


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    target = tmp_path / "a.gif"
    write_gif(board(), target)
    old = target.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match=r"No space left.*/a\.gif"):
        write_gif(words(), target)
    assert target.read_bytes() == old
    assert os.listdir(tmp_path) == ["a.gif"]
