"""A sample as an animation: its sequence before the first pass and after each.

Up to 48 passes have a colour each; of more, neighbours share one. Up to 60 states are shown each
for itself; of more, 60 that are spread evenly, the first and the last among them, and what was
filled since the one before is ringed. Letters shrink so that a text is at most 900 pixels tall;
where the smallest are too tall, the text is cut, and the number of tokens left out is shown.
"""

from io import BytesIO
from pathlib import Path

import numpy as np

from xlm_mlm.history.files import write_whole
from xlm_mlm.history.trace import Trace
from xlm_mlm.report import colours
from xlm_mlm.report.canvas import Canvas, text_width
from xlm_mlm.report.drawing import Drawing
from xlm_mlm.report.targets import check_target

MARGIN = 16
TOP = 56  # where the sequence begins
FRAMES = 60
_SHADES = 48
_WIDTH = 800
_SIZE = 15
_RAMP = 144  # pixels; blocks of colour for 48 passes are 3 wide
_UNCHANGED = (255, 0, 255)  # no ramp has it
# Milliseconds; the states between the first and the last share _ALL.
_FIRST, _LAST, _ALL, _SHORTEST, _LONGEST = 1000, 3000, 9000, 80, 700


def write_gif(trace: Trace, path: str | Path) -> None:
    """Write a sample as an animated GIF, which appears whole or not at all, and loops.

    The same trace gives the same bytes.

    Args:
        trace: the sample.
        path: the file, whose name ends in .gif.

    Raises:
        ValueError: the name ends in something else, or the sequence has no tokens.
        FileNotFoundError: there is no such folder.
        OSError: the file cannot be written.
    """
    path = check_target(path, ".gif")
    write_whole(path, _gif(trace))


def states_of(passes: int) -> list[int]:
    """The states that are shown: all, or FRAMES of them spread evenly, both ends included."""
    count = min(passes + 1, FRAMES)
    if count == 1:
        return [0]
    return [round(i * passes / (count - 1)) for i in range(count)]


def durations_of(frames: int) -> list[int]:
    """Milliseconds that each frame is shown."""
    if frames == 1:
        return [_LAST]
    each = round(min(max(_ALL / frames, _SHORTEST), _LONGEST), -1)
    return [_FIRST, *[int(each)] * (frames - 2), _LAST]


def left_of(drawing: Drawing, width: int) -> int:
    """Where the sequence begins: a board in the middle, a text on the left."""
    edge = MARGIN - 2 * drawing.layout.scale
    return (width - drawing.layout.width) // 2 if drawing.layout.side else edge


def _gif(trace: Trace) -> bytes:
    # A board has room for letters of twice the size.
    drawing = Drawing(trace, scale=1, width=_WIDTH - 2 * MARGIN, shades=_SHADES)
    if drawing.layout.side:
        drawing = Drawing(trace, scale=2, width=_WIDTH - 2 * MARGIN, shades=_SHADES)
    states = states_of(trace.steps)
    canvas = _blank(drawing)
    frames = []
    for since, state in zip([0, *states], states, strict=False):
        _redraw(canvas, drawing, state, since)
        frames.append(canvas.pixels.astype("u1"))
    return _encoded(frames, canvas.palette)


def _encoded(frames: list[np.ndarray], palette: list[colours.Colour]) -> bytes:
    from PIL import Image

    # The last colour stands for what is as it was in the frame before, which packs well. No two
    # frames are equal, for the line above the sequence differs: none is dropped.
    unchanged = len(palette)
    flat = bytes(byte for colour in (*palette, _UNCHANGED) for byte in colour)
    pictures = []
    for before, pixels in zip([None, *frames], frames, strict=False):
        changes = pixels if before is None else np.where(pixels == before, unchanged, pixels)
        height, width = pixels.shape
        picture = Image.frombytes("P", (width, height), changes.astype("u1").tobytes())
        picture.putpalette(flat)
        pictures.append(picture)
    data = BytesIO()
    pictures[0].save(
        data,
        format="GIF",
        save_all=True,
        append_images=pictures[1:],
        duration=durations_of(len(pictures)),
        loop=0,
        palette=flat,
        optimize=False,
        transparency=unchanged,
        disposal=1,
    )
    return data.getvalue()


def _blank(drawing: Drawing) -> Canvas:
    layout = drawing.layout
    width = max(layout.width, 400 if layout.side else 560) + 2 * MARGIN
    canvas = Canvas(width, TOP + layout.height + 64 + MARGIN, colours.CARD)
    _legend(canvas, drawing, TOP + layout.height + 16)
    return canvas


def _redraw(canvas: Canvas, drawing: Drawing, state: int, since: int) -> None:
    layout, trace = drawing.layout, drawing.trace
    width = canvas.pixels.shape[1]
    canvas.rectangle(0, 0, width, TOP + layout.height + 4, colours.CARD)
    middle = TOP // 2
    count = int(drawing.masked[state].sum())
    end = state == trace.steps and not trace.finished
    left = f"pass {state} of {trace.steps}"
    masks = "1 mask" if count == 1 else f"{count or 'no'} masks"
    right = f"{masks} left{', unfinished' if end else ''}"
    canvas.text(MARGIN, middle, left, 20, colours.INK, colours.CARD, bold=True)
    canvas.text(width - MARGIN, middle, right, _SIZE, colours.QUIET, colours.CARD, "right")
    drawing.paint(canvas, state, left_of(drawing, width), TOP, since)


def _legend(canvas: Canvas, drawing: Drawing, top: int) -> None:
    """The colours of the passes, and what the other looks mean."""
    if drawing.passes:
        _ramp(canvas, drawing, top)
    x, middle = MARGIN, top + 38
    for look in ("masked", "given", "just filled"):
        box = (x, middle - 8, x + 16, middle + 8)
        canvas.rectangle(*box, colours.MASK if look == "masked" else colours.CARD)
        if look != "masked":
            fresh = look == "just filled"
            canvas.frame(*box, colours.INK if fresh else colours.LINE, 2 if fresh else 1)
        canvas.text(x + 24, middle, look, 13, colours.QUIET, colours.CARD)
        x += 24 + text_width(look, 13) + 20


def _ramp(canvas: Canvas, drawing: Drawing, top: int) -> None:
    label = "filled in pass 1"
    x = MARGIN + text_width(label, 13) + 8
    canvas.text(MARGIN, top + 10, label, 13, colours.QUIET, colours.CARD)
    blocks = min(drawing.passes, _SHADES)
    for i in range(_RAMP):
        share = i * blocks // _RAMP / max(blocks - 1, 1)
        colour = drawing.colour(1 + share * (drawing.passes - 1))
        canvas.rectangle(x + i, top + 3, x + i + 1, top + 17, colour)
    last = str(drawing.passes)
    canvas.text(x + _RAMP + 8, top + 10, last, 13, colours.QUIET, colours.CARD)
