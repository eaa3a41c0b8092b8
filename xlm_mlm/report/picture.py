"""A sample as a picture: its sequence, its heat map and its curves, as the page shows them."""

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from xlm_mlm.history.files import write_whole
from xlm_mlm.history.trace import Trace
from xlm_mlm.report import colours
from xlm_mlm.report.canvas import Canvas, drawable
from xlm_mlm.report.drawing import Drawing
from xlm_mlm.report.targets import check_target
from xlm_mlm.visible import readable

WIDTH, MARGIN, TOP = 1600, 40, 110  # pixels; TOP is where the sequence begins
_DPI = 160
_LEGEND, _CURVE = 130, 180
_TITLE, _LABELS = 60, 80  # room above and below a chart
_HEAT_LEAST, _HEAT_MOST = 180, 640
_LEFT, _RIGHT = 90, 150  # room beside a chart for its numbers, and for the colour bar


def write_png(trace: Trace, path: str | Path) -> None:
    """Write a sample as a PNG, 1600 pixels wide, which appears whole or not at all.

    It shows the last sequence, coloured by the pass that filled each token, how many masks were
    left and the mean entropy pass by pass, and the entropy of each position in each pass. A text
    that is too long is cut as in the animation. The same trace gives the same bytes.

    Args:
        trace: the sample.
        path: the file, whose name ends in .png.

    Raises:
        ValueError: the name ends in something else, or the sequence has no tokens.
        FileNotFoundError: there is no such folder.
        OSError: the file cannot be written.
    """
    path = check_target(path, ".png")
    write_whole(path, _png(trace))


def _png(trace: Trace) -> bytes:
    data = BytesIO()
    drawing = Drawing(trace, scale=2, width=WIDTH - 2 * MARGIN)
    with _defaults():
        figure = _Figure(drawing)
        figure.draw()
        # The version of matplotlib would be the only thing that differs between two machines.
        figure.figure.savefig(data, format="png", dpi=_DPI, metadata={"Software": None})
    return data.getvalue()


@contextmanager
def _defaults() -> Iterator[None]:
    """matplotlib's own settings, whatever the user's are."""
    import matplotlib.style

    with matplotlib.style.context("default", after_reset=True):
        yield


class _Figure:
    """The figure, whose parts are placed in pixels from its upper left corner."""

    def __init__(self, drawing: Drawing) -> None:
        from matplotlib.figure import Figure

        self.drawing, self.trace = drawing, drawing.trace
        layout = drawing.layout
        curves = _TITLE + _CURVE + _LABELS
        legend = TOP + layout.height + _LEGEND
        # Beside a board there is room for the curves, one above the other.
        self.beside = layout.side > 0 and layout.width < WIDTH // 2
        self.below = max(legend, TOP + 2 * curves) if self.beside else legend + curves
        per_pass = min((WIDTH - 2 * MARGIN) / drawing.length, 44)
        self.heat = round(min(max(drawing.passes * per_pass, _HEAT_LEAST), _HEAT_MOST))
        self.height = self.below + _TITLE + self.heat + _LABELS + 10
        size = (WIDTH / _DPI, self.height / _DPI)
        self.figure = Figure(figsize=size, dpi=_DPI, facecolor=colours.css(colours.CARD))

    def draw(self) -> None:
        """Put every part in its place."""
        self._sequence()
        self._legend()
        if self.beside:
            left = MARGIN + self.drawing.layout.width + _LEFT + 30
            width = WIDTH - left - MARGIN
            tops = TOP + _TITLE - 10, TOP + _TITLE - 10 + _CURVE + _LABELS + _TITLE
            boxes = [(left, top, width, _CURVE) for top in tops]
        else:
            width = (WIDTH - 2 * MARGIN - 2 * _LEFT - 20) // 2
            lefts = MARGIN + _LEFT, WIDTH - MARGIN - width
            boxes = [(left, self.below - _LABELS - _CURVE, width, _CURVE) for left in lefts]
        masks = self.trace.masks_left.double().numpy()
        self._curve(boxes[0], "Masks left", np.arange(len(masks)), masks)
        mean = self.trace.mean_entropy.double().numpy()
        self._curve(boxes[1], "Mean entropy (nats)", np.arange(1, len(mean) + 1), mean)
        self._heat_map()

    def _sequence(self) -> None:
        """Pixel for pixel, so that nothing in a token is read as markup."""
        trace, layout = self.trace, self.drawing.layout
        canvas = Canvas(WIDTH, TOP + layout.height, colours.CARD)
        name = drawable(readable(trace.fid))
        name = name if len(name) <= 40 else name[:39] + "…"
        end = "" if trace.finished else ", unfinished"
        what = f"{self.drawing.length:,} tokens, {trace.steps:,} passes{end}"
        ink = colours.INK, colours.CARD
        canvas.text(MARGIN, 50, f"Sample {name}", 30, *ink, bold=True)
        quiet = colours.QUIET, colours.CARD
        canvas.text(WIDTH - MARGIN, 50, what, 24, *quiet, align="right")
        self.drawing.paint(canvas, trace.steps, MARGIN, TOP)
        bottom = self.height - canvas.pixels.shape[0]
        self.figure.figimage(canvas.rgb(), 0, bottom, zorder=-1)

    def _legend(self) -> None:
        """The colour bar of the passes, a block of colour for each."""
        passes, layout = self.drawing.passes, self.drawing.layout
        width = 700 if not self.beside else layout.width - 2 * layout.scale
        bar = self._axes(MARGIN + layout.scale, TOP + layout.height + 24, width, 20)
        self._plain(bar)
        bar.set(yticks=[], xticks=[])
        bar.set_xlabel("Pass that filled the token", loc="left")
        if passes:
            blocks = min(passes, 256)
            share = np.linspace(0, 1, blocks)
            ramp = [[self.drawing.colour(1 + at * (passes - 1)) for at in share]]
            extent = (0.5, passes + 0.5, 0, 1)
            bar.imshow(np.array(ramp, dtype="u1"), aspect="auto", extent=extent)
            _whole_ticks(bar.xaxis)

    def _curve(
        self, box: tuple[int, int, int, int], title: str, x: np.ndarray, y: np.ndarray
    ) -> None:
        axes = self._axes(*box)
        self._plain(axes)
        marker = "o" if len(x) <= 40 else ""
        axes.plot(
            x,
            y,
            color=colours.css(colours.LINK),
            linewidth=1.6,
            marker=marker,
            markersize=3.5,
            clip_on=False,
        )
        axes.set_title(
            title, loc="left", fontsize=10, color=colours.css(colours.INK), fontweight="bold"
        )
        axes.set_xlabel("Pass")
        axes.set_xlim(0, max(self.drawing.passes, 1))
        axes.margins(y=0.08)
        top = np.nanmax(y, initial=0, where=~np.isnan(y)) if len(y) else 0
        axes.set_ylim(0, 1.08 * top or 1)
        axes.grid(axis="y", color=colours.css(colours.LINE), linewidth=0.8)
        axes.set_axisbelow(True)
        _whole_ticks(axes.xaxis)
        if title.startswith("Masks"):
            _whole_ticks(axes.yaxis, 4)

    def _heat_map(self) -> None:
        from matplotlib.colors import LinearSegmentedColormap

        left, width = MARGIN + _LEFT, WIDTH - 2 * MARGIN - _LEFT - _RIGHT
        top = self.below + _TITLE
        axes = self._axes(left, top, width, self.heat)
        self._plain(axes)
        title = "Entropy of the masked positions as each pass began (nats)"
        axes.set_title(
            title, loc="left", fontsize=10, color=colours.css(colours.INK), fontweight="bold"
        )
        axes.set_xlabel("Position")
        axes.set_ylabel("Pass")
        if not self.trace.steps:
            axes.set(xticks=[], yticks=[])
            axes.text(0.5, 0.5, "no pass was recorded", ha="center", va="center")
            return
        ramp = [colours.css(colour) for colour in colours.RAMPS["entropy"]]
        values = _entropy(self.trace)
        most = float(np.nanmax(values, initial=0, where=~np.isnan(values))) or 1.0
        image = axes.imshow(
            np.ma.masked_invalid(values),
            aspect="auto",
            cmap=LinearSegmentedColormap.from_list("entropy", ramp),
            vmin=0,
            vmax=most,
            extent=(-0.5, self.drawing.length - 0.5, self.trace.steps + 0.5, 0.5),
        )
        axes.set_facecolor(colours.css(colours.PAGE))
        _whole_ticks(axes.xaxis)
        _whole_ticks(axes.yaxis)
        bar = self._axes(left + width + 24, top, 24, self.heat)
        self.figure.colorbar(image, cax=bar).outline.set_visible(False)
        self._plain(bar)

    def _axes(self, left: int, top: int, width: int, height: int) -> Any:
        bottom = self.height - top - height
        box = (left / WIDTH, bottom / self.height, width / WIDTH, height / self.height)
        return self.figure.add_axes(box)

    def _plain(self, axes: Any) -> None:
        quiet = colours.css(colours.QUIET)
        axes.tick_params(colors=quiet, labelsize=8.5, length=0)
        axes.xaxis.label.set(color=quiet, size=8.5)
        axes.yaxis.label.set(color=quiet, size=8.5)
        axes.spines[:].set_visible(False)


def _entropy(trace: Trace) -> Float[np.ndarray, "S L"]:
    """Of all positions; NaN where a pass saw no mask, or where it was not recorded."""
    outside = torch.full((trace.steps, trace.first), torch.nan)
    entropy = torch.cat((outside, trace.entropy.float()), dim=1)
    return entropy.masked_fill(~trace.masked, torch.nan).numpy()


def _whole_ticks(axis: Any, count: int = 8) -> None:
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(count, integer=True, min_n_ticks=1))
