"""A text in the terminal while its blanks are filled: in place, coloured by confidence."""

import signal
import sys
import threading
import time
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from xlm_mlm.boards import board_of
from xlm_mlm.commands.terminal import coloured
from xlm_mlm.visible import readable

# Least to most confident, told apart by lightness as well: dark violet, teal, yellow.
_RAMP = ((68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37))
_BLANK = "·"


class Watcher:
    """Called with each `View` of a filling; on a terminal it redraws, elsewhere it adds lines.

    SIGTERM, while it redraws, ends the program by an exception (exit code 143), so that the
    terminal has its cursor again.

    Args:
        filler: whose texts they are.
        stream: where to draw.
        delay: seconds to rest after each pass.
    """

    def __init__(self, filler: Any, stream: Any, delay: float) -> None:
        self.filler, self.delay = filler, delay
        colour = coloured(stream)
        # Told, since rich has an opinion of its own, and other variables to form it.
        self.console = Console(file=stream, force_terminal=colour, highlight=False)
        self._live = Live(console=self.console, auto_refresh=False) if colour else None
        self._takes_sigterm = False

    def __enter__(self) -> "Watcher":
        # Whoever handles it already ends the program in a way of their own.
        if (
            self._live is not None
            and threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
        ):
            signal.signal(signal.SIGTERM, _exit)
            self._takes_sigterm = True
        return self

    def __exit__(self, *error: Any) -> None:
        try:
            self._stop()
        finally:
            if self._takes_sigterm:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                self._takes_sigterm = False

    def _stop(self) -> None:
        if self._live is not None and self._live.is_started:
            self._live.stop()
            self.console.print()  # apart from what follows

    def __call__(self, view: Any) -> None:
        """Show the text after a pass."""
        if self._live is None:
            line = Text.assemble(f"pass {view.step}: ", self._running(view))
            self.console.print(line, soft_wrap=True)
            return
        self._live.start()  # once; not for a text that is refused
        self._live.update(self.draw(view), refresh=True)
        time.sleep(self.delay)

    def draw(self, view: Any) -> Group:
        """What a terminal shows: how far it is, the text, and what the colours mean."""
        blanks = sum(token == self.filler.mask_id for token in view.ids)
        known = [p for p in view.p if p is not None]
        parts = [f"pass {view.step}", f"{blanks} {'blank' if blanks == 1 else 'blanks'} left"]
        if known:
            parts.append(f"mean confidence {sum(known) / len(known):.2f}")
        head = Text(", ".join(parts), style="bold")
        return Group(head, Text(), self._board(view) or self._running(view), Text(), _legend())

    def _cells(self, view: Any) -> list[Text]:
        texts = self.filler.texts()
        cells = []
        for place, (token, p) in enumerate(zip(view.ids, view.p, strict=True)):
            if token == self.filler.mask_id:
                cells.append(Text(_BLANK, style="dim"))
                continue
            text = texts[token] if token < len(texts) else f"#{token}"
            style = "" if p is None else _style(p, place in view.new)
            # A line break is one, and whatever else controls a terminal is spelled out.
            shown = "\n".join(readable(line) for line in text.split("\n"))
            cells.append(Text(shown, style=style))
        return cells

    def _running(self, view: Any) -> Text:
        # Words that bring no space of their own need one between them.
        apart = not any(text.startswith(" ") for text in self.filler.texts())
        return Text(" " if apart else "").join(self._cells(view))

    def _board(self, view: Any) -> Text | None:
        texts = self.filler.texts()
        mask = texts[self.filler.mask_id]
        places = board_of([texts[t] if t < len(texts) else "" for t in view.ids], [mask])
        if places is None:
            return None
        cells = self._cells(view)
        side = round(len(places) ** 0.5)
        box = round(side**0.5)
        lines = []
        for row in range(side):
            if row and row % box == 0:
                lines.append(Text("┼".join(["─" * (3 * box)] * box), style="dim"))
            line = Text()
            for column in range(side):
                if column and column % box == 0:
                    line.append("│", style="dim")
                cell = cells[places[row * side + column]]
                line.append(f"{cell.plain:^3}", style=cell.style)
            lines.append(line)
        return Text("\n").join(lines)


def _exit(number: int, frame: Any) -> None:
    sys.exit(128 + number)


def _style(p: float, new: bool) -> str:
    place = min(max(p, 0.0), 1.0) * (len(_RAMP) - 1)
    low = min(int(place), len(_RAMP) - 2)
    pair = zip(_RAMP[low], _RAMP[low + 1], strict=True)
    red, green, blue = (round(a + (b - a) * (place - low)) for a, b in pair)
    text = "black" if 0.3 * red + 0.59 * green + 0.11 * blue > 110 else "white"
    return f"{'bold underline ' if new else ''}{text} on #{red:02x}{green:02x}{blue:02x}"


def _legend() -> Text:
    steps = [Text("  ", style=_style(n / 8, False)) for n in range(9)]
    return Text.assemble("confidence 0 ", *steps, " 1   ", ("new", "bold underline"))
