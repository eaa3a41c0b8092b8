"""A drawing surface of few colours: rectangles and text, the same bytes on every machine."""

from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import UInt8, UInt16

from xlm_mlm.report.colours import Colour, mix

# Shades between a text's ground and its ink; each pair of the two costs one less.
_LEVELS = 4
_ESCAPES = {"x": 0x100, "u": 0x10000, "U": 0x110000}


class Canvas:
    """Pixels that are indices into a palette, which grows by the colours that are asked for.

    Attributes:
        pixels: (height, width).
        palette: the colours, by index.
    """

    def __init__(self, width: int, height: int, ground: Colour) -> None:
        self.palette: list[Colour] = []
        self._indices: dict[Colour, int] = {}
        self.pixels: UInt16[np.ndarray, "h w"] = np.zeros((height, width), dtype="u2")
        self.pixels[:] = self._index(ground)

    def rectangle(self, x0: int, y0: int, x1: int, y1: int, colour: Colour) -> None:
        """Fill from (x0, y0) up to, not including, (x1, y1)."""
        self.pixels[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)] = self._index(colour)

    def frame(self, x0: int, y0: int, x1: int, y1: int, colour: Colour, thickness: int = 1) -> None:
        """Draw along the inside of a rectangle."""
        t = thickness
        self.rectangle(x0, y0, x1, y0 + t, colour)
        self.rectangle(x0, y1 - t, x1, y1, colour)
        self.rectangle(x0, y0, x0 + t, y1, colour)
        self.rectangle(x1 - t, y0, x1, y1, colour)

    def text(
        self,
        x: int,
        middle: int,
        text: str,
        size: int,
        ink: Colour,
        ground: Colour,
        align: Literal["left", "centre", "right"] = "left",
        bold: bool = False,
    ) -> None:
        """Write on one line, around the height `middle`, on a ground of one colour."""
        width = text_width(text, size, bold)
        left = x - {"left": 0, "centre": width // 2, "right": width}[align]
        glyphs, dx, dy = _glyphs(text, size, bold)
        # Half the height of a capital below the middle is where the letters stand.
        x0, y0 = left + dx, middle + round(0.365 * size) + dy
        cut = glyphs[max(-y0, 0) :, max(-x0, 0) :]
        under = self.pixels[max(y0, 0) :, max(x0, 0) :][: cut.shape[0], : cut.shape[1]]
        cut = cut[: under.shape[0], : under.shape[1]]
        shades = [self._index(mix(ground, ink, level / _LEVELS)) for level in range(_LEVELS + 1)]
        under[cut > 0] = np.array(shades, dtype="u2")[cut[cut > 0]]

    def rgb(self) -> UInt8[np.ndarray, "h w 3"]:
        """The pixels' colours."""
        return np.array(self.palette, dtype="u1")[self.pixels]

    def _index(self, colour: Colour) -> int:
        if colour not in self._indices:
            self._indices[colour] = len(self.palette)
            self.palette.append(colour)
        return self._indices[colour]


def drawable(text: str) -> str:
    """The text with escapes for characters that the font lacks, such as most of Unicode's."""
    known = _characters()
    return "".join(char if ord(char) in known else _escape(ord(char)) for char in text)


def text_width(text: str, size: int, bold: bool = False) -> int:
    """Pixels that a text takes."""
    return round(_font(size, bold).getlength(text))


def shortened(text: str, size: int, width: int) -> str:
    """The beginning of a text that fits into a width in pixels, an ellipsis at its end."""
    advance = _font(size, False).getlength("0")
    room = max(int(width / advance + 0.05), 1)
    return text if len(text) <= room else text[: room - 1] + "…"


def _escape(code: int) -> str:
    kind = next(kind for kind, end in _ESCAPES.items() if code < end)
    return f"\\{kind}{code:0{ {'x': 2, 'u': 4, 'U': 8}[kind] }x}"


@lru_cache(maxsize=4096)
def _glyphs(text: str, size: int, bold: bool) -> tuple[UInt8[np.ndarray, "h w"], int, int]:
    """How much of each pixel the text covers, in levels, and where it is from its beginning."""
    from PIL import Image, ImageDraw

    font = _font(size, bold)
    left, top, right, bottom = (round(edge) for edge in font.getbbox(text, anchor="ls"))
    image = Image.new("L", (max(right - left, 1) + 2, max(bottom - top, 1) + 2))
    ImageDraw.Draw(image).text((1 - left, 1 - top), text, fill=255, font=font, anchor="ls")
    cover = np.asarray(image, dtype="u2")
    return ((cover * _LEVELS + 127) // 255).astype("u1"), left - 1, top - 1


@lru_cache(maxsize=64)
def _font(size: int, bold: bool) -> Any:
    from PIL import ImageFont

    # Basic: the shaping library is not on every machine, and would reorder what it shapes.
    basic = ImageFont.Layout.BASIC
    return ImageFont.truetype(str(_font_file(bold)), size, layout_engine=basic)


@lru_cache(maxsize=1)
def _characters() -> frozenset[int]:
    from matplotlib.ft2font import FT2Font

    # What both weights have.
    maps = [FT2Font(str(_font_file(bold))).get_charmap() for bold in (False, True)]
    return frozenset(maps[0]) & frozenset(maps[1])


def _font_file(bold: bool) -> Path:
    """The font that matplotlib brings along, so that no other is needed."""
    import matplotlib

    name = "DejaVuSansMono-Bold.ttf" if bold else "DejaVuSansMono.ttf"
    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name
