"""The page's colours, for pictures: its light theme, its ramps, its inks.

`page.css` and `page_colours.js` are where they are chosen.
"""

Colour = tuple[int, int, int]

PAGE: Colour = (0xF7, 0xF7, 0xF5)
CARD: Colour = (0xFF, 0xFF, 0xFF)
LINE: Colour = (0xDC, 0xDC, 0xD7)
INK: Colour = (0x1D, 0x21, 0x25)
QUIET: Colour = (0x5B, 0x61, 0x69)
FAINT: Colour = (0x8B, 0x90, 0x98)
LINK: Colour = (0x1F, 0x5A, 0x96)
MASK: Colour = (0xE8, 0xE8, 0xE3)
_BLACK, _WHITE = (0, 0, 0), (255, 255, 255)


def _stops(text: str) -> tuple[Colour, ...]:
    numbers = [int(word, 16) for word in text.split()]
    return tuple((n >> 16, n >> 8 & 255, n & 255) for n in numbers)


RAMPS = {
    "pass": _stops(
        "440154 48186a 472d7b 424086 3b528b 33638d 2c728e 26828e 21918c 1fa088 28ae80 3fbc73 "
        "5ec962 84d44b addc30 d8e219 fde725"
    ),
    "entropy": _stops(
        "1d1147 36106b 51127c 6a1c81 832681 9c2e7f b73779 d0416f e75263 f56b5c fc8961 fea772 "
        "fec488 fde2a3"
    ),
}


def colour_at(ramp: str, share: float) -> Colour:
    """The colour at a share, from 0 to 1, of a ramp."""
    stops = RAMPS[ramp]
    at = min(max(share, 0.0), 1.0) * (len(stops) - 1)
    below = min(int(at), len(stops) - 2)
    return mix(stops[below], stops[below + 1], at - below)


def mix(low: Colour, high: Colour, share: float) -> Colour:
    """A colour between two, halves rounded up as scripts in a browser do."""
    r, g, b = (int(a + share * (z - a) + 0.5) for a, z in zip(low, high, strict=True))
    return r, g, b


def colour_of_pass(number: float, passes: int) -> Colour:
    """The colour of what a pass, from 1, filled: the first the darkest, the last the brightest."""
    return colour_at("pass", (number - 1) / (passes - 1) if passes > 1 else 0.5)


def ink_on(colour: Colour) -> Colour:
    """Black or white, whichever reads better: never below 4.5 to 1."""
    r, g, b = (_linear(byte / 255) for byte in colour)
    light = 0.2126 * r + 0.7152 * g + 0.0722 * b
    return _BLACK if (light + 0.05) / 0.05 >= 1.05 / (light + 0.05) else _WHITE


def css(colour: Colour) -> str:
    """The colour as `#rrggbb`."""
    return "#{:02x}{:02x}{:02x}".format(*colour)


def _linear(c: float) -> float:
    return c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
