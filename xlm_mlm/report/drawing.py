"""A trace's sequence on a canvas, as a board or as text: what pictures and animations share."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Integer

from xlm_mlm.boards import board_of
from xlm_mlm.history.trace import Trace
from xlm_mlm.report import colours
from xlm_mlm.report.canvas import Canvas, drawable, shortened, text_width
from xlm_mlm.report.packing import masked_at
from xlm_mlm.visible import visible

Box = tuple[int, int, int, int]
DOT = "·"
_SIZES = (16, 15, 14, 13, 12, 11, 10, 9, 8)  # of letters in a text, before scaling; in pixels
_TALLEST = 900  # of a text, before scaling
_WIDEST_TOKEN = 26  # characters


@dataclass(frozen=True)
class Layout:
    """Where each token that is shown stands; the rest are counted.

    Attributes:
        places: positions in the sequence.
        boxes: (x0, y0, x1, y1) of each of them, in pixels.
        side: cells in a row of the board; 0 for a text.
        size: of the letters, in pixels.
        scale: of all lines and gaps.
        tight: tokens stand close, for most are of one character.
        hidden: tokens at the end for which there was no room.
    """

    places: list[int]
    boxes: list[Box]
    side: int
    size: int
    scale: int
    tight: bool = False
    hidden: int = 0

    @property
    def width(self) -> int:
        """Of the whole card, in pixels."""
        return max((box[2] for box in self.boxes), default=0) + self._edge

    @property
    def height(self) -> int:
        """Of the whole card, in pixels; with the note below it, where tokens are left out."""
        return max((box[3] for box in self.boxes), default=0) + self._edge + self._note

    @property
    def _edge(self) -> int:
        return 2 * self.scale

    @property
    def _note(self) -> int:
        return 2 * self.size if self.hidden else 0


class Drawing:
    """The sequence of one trace before the first pass (state 0) and after each (1 to S)."""

    def __init__(self, trace: Trace, scale: int, width: int, shades: int = 1 << 16) -> None:
        """Find out where everything stands.

        Args:
            trace: the sample.
            scale: of letters, lines and gaps.
            width: the most pixels across.
            shades: the most colours for passes; with more passes, neighbours share one.

        Raises:
            ValueError: the sequence has no tokens.
        """
        if not len(trace.before):
            raise ValueError(f"sample {trace.fid!r} has no tokens; it must have at least one")
        self.trace = trace
        self.shades = shades
        self.passes = trace.steps
        self._x = np.concatenate(
            (trace.before.numpy()[None], trace.x.numpy().reshape(-1, self.length))
        )
        self.masked: Bool[np.ndarray, "S+1 L"] = masked_at(trace).numpy()
        self.filled: Integer[np.ndarray, "S+1 L"] = _last_changes(self._x)
        self._texts = {
            token: drawable(visible(trace.text_of(token))) for token in np.unique(self._x).tolist()
        }
        cells = self._board()
        self.layout = _as_board(cells, scale, width) if cells else self._as_text(scale, width)

    @property
    def length(self) -> int:
        """Tokens of the sequence."""
        return len(self.trace.before)

    def colour(self, number: float) -> colours.Colour:
        """The colour of what a pass, from 1, filled."""
        if self.passes <= self.shades:
            return colours.colour_of_pass(number, self.passes)
        share = (number - 1) / (self.passes - 1)
        return colours.colour_at("pass", round(share * (self.shades - 1)) / (self.shades - 1))

    def paint(self, canvas: Canvas, state: int, dx: int, dy: int, since: int | None = None) -> None:
        """Draw a state with its upper left corner at (dx, dy).

        Args:
            canvas: drawn on; its ground there is the card's.
            state: 0 before the first pass, or a pass.
            dx: pixels to the right.
            dy: pixels down.
            since: ring what was filled after this state; None rings nothing.
        """
        boxes = [(x0 + dx, y0 + dy, x1 + dx, y1 + dy) for x0, y0, x1, y1 in self.layout.boxes]
        if self.layout.side:
            self._rule(canvas, boxes)
        for place, box in zip(self.layout.places, boxes, strict=True):
            self._token(canvas, state, place, box)
        if since is not None:
            fresh = (self.filled[state] > since) & ~self.masked[state]
            for place, box in zip(self.layout.places, boxes, strict=True):
                if fresh[place]:
                    _ring(canvas, box, self.layout)
        if self.layout.hidden:
            size, bottom = self.layout.size, max(box[3] for box in boxes)
            note = f"… and {self.layout.hidden:,} more tokens"
            canvas.text(dx, bottom + size, note, size, colours.QUIET, colours.CARD)

    def _token(self, canvas: Canvas, state: int, place: int, box: Box) -> None:
        layout, number = self.layout, int(self.filled[state, place])
        masked = bool(self.masked[state, place])
        given = not masked and not number
        if masked:
            ground, ink, text = colours.MASK, colours.QUIET, DOT
        else:
            ground = self.colour(number) if number else colours.CARD
            ink = colours.ink_on(ground) if number else colours.INK
            text = self._texts[int(self._x[state, place])]
            ink = colours.FAINT if given and text == "␣" else ink
        canvas.rectangle(*box, ground)
        if given and not layout.side and not layout.tight:
            canvas.frame(*box, colours.LINE, layout.scale)
        room = box[2] - box[0] - (2 * layout.scale if layout.side else 0)
        middle = (box[0] + box[2]) // 2, (box[1] + box[3]) // 2
        shown = shortened(text, layout.size, room)
        bold = given and bool(layout.side)
        canvas.text(*middle, shown, layout.size, ink, ground, "centre", bold)

    def _rule(self, canvas: Canvas, boxes: list[Box]) -> None:
        """The board's frame, and the lines between its cells and its boxes."""
        side, edge = self.layout.side, 2 * self.layout.scale
        box = math.isqrt(side)
        x0, y0, x1, y1 = *boxes[0][:2], *boxes[-1][2:]
        canvas.rectangle(x0 - edge, y0 - edge, x1 + edge, y1 + edge, colours.INK)
        for i, (left, top, right, bottom) in enumerate(boxes):
            row, column = divmod(i, side)
            # The line to the next cell of the same box is pale.
            pale_x = self.layout.scale if (column + 1) % box else 0
            pale_y = self.layout.scale if (row + 1) % box else 0
            canvas.rectangle(left, top, right + pale_x, bottom + pale_y, colours.LINE)

    def _board(self) -> list[int] | None:
        mask = self.trace.mask_id
        blanks = [] if mask is None else [self.trace.text_of(mask)]
        return board_of([self.trace.text_of(token) for token in self._x[-1].tolist()], blanks)

    def _as_text(self, scale: int, width: int) -> Layout:
        widest = [self._widest(place) for place in range(self.length)]
        # So that words can be read.
        tight = sum(len(text) == 1 for text in widest) > 0.8 * len(widest)
        for size in _SIZES:
            boxes = _flow(widest, scale, scale * size, width, tight)
            fit = [box for box in boxes if box[3] <= scale * _TALLEST]
            if len(fit) == len(boxes):
                break
        return Layout(
            places=list(range(len(fit))),
            boxes=fit,
            side=0,
            size=scale * size,
            scale=scale,
            tight=tight,
            hidden=len(boxes) - len(fit),
        )

    def _widest(self, place: int) -> str:
        """The longest text that a place ever shows, the latest first: nothing has to move."""
        shown = self._x[::-1, place][~self.masked[::-1, place]]
        return max(
            (self._texts[token] for token in dict.fromkeys(shown.tolist())), key=len, default=DOT
        )


def _last_changes(x: Integer[np.ndarray, "S+1 L"]) -> Integer[np.ndarray, "S+1 L"]:
    """For each state the pass, from 1, that put each token there; 0 where it was given."""
    numbers = np.zeros(x.shape, dtype="i8")
    numbers[1:] = np.arange(1, len(x))[:, None] * (x[1:] != x[:-1])
    return np.maximum.accumulate(numbers)


def _as_board(places: list[int], scale: int, width: int) -> Layout:
    side = math.isqrt(len(places))
    box = math.isqrt(side)
    room = width // scale - 4 - side - box
    cell = scale * max(min(48, max(320 // side, 22), room // side), 6)
    edge = 2 * scale
    at = []
    for number in range(side):
        # A line of one between cells, of two between boxes.
        at.append(edge + number * (cell + scale) + number // box * scale)
    boxes = [(x, y, x + cell, y + cell) for y in at for x in at]
    return Layout(places, boxes, side, size=round(0.5 * cell), scale=scale)


def _flow(texts: list[str], scale: int, size: int, width: int, tight: bool) -> list[Box]:
    """Boxes for tokens line by line; one that ends in a line break ends its line."""
    pad, gap = (scale, 0) if tight else (size // 4, 2 * scale)
    height, leading = round(1.4 * size), 4 * scale
    edge = 2 * scale
    across = (text_width(text[:_WIDEST_TOKEN], size) + 2 * pad for text in texts)
    widths = [min(each, width - 2 * edge) for each in across]
    x, y = edge, edge
    boxes: list[Box] = []
    for word in _words(texts, "␣↵" if tight else ""):
        whole = sum(widths[i] + gap for i in word) - gap
        room = width - edge - x
        broken = x > edge and room < whole <= width - 2 * edge
        for i in word:
            if broken or (x > edge and x + widths[i] > width - edge):
                x, y, broken = edge, y + height + leading, False
            boxes.append((x, y, x + widths[i], y + height))
            x += widths[i] + gap
            if texts[i].endswith("↵"):
                x, y = edge, y + height + leading
    return boxes


def _words(texts: list[str], ends: str) -> Iterator[list[int]]:
    """Runs of tokens that should stay on one line: up to one of `ends`; each alone if none."""
    word: list[int] = []
    for i, text in enumerate(texts):
        word.append(i)
        if not ends or text in ends:
            yield word
            word = []
    if word:
        yield word


def _ring(canvas: Canvas, box: Box, layout: Layout) -> None:
    """A frame in ink around a token, a pale one between the two."""
    x0, y0, x1, y1 = box
    s = layout.scale
    if layout.side:
        canvas.frame(x0, y0, x1, y1, colours.INK, 2 * s)
        canvas.frame(x0 + 2 * s, y0 + 2 * s, x1 - 2 * s, y1 - 2 * s, colours.CARD, s)
    else:
        canvas.frame(x0 - s, y0 - 2 * s, x1 + s, y1 + 2 * s, colours.INK, 2 * s)
