"""Colors of classes: how they are written, and which ones those get that nobody gave a color."""

from __future__ import annotations

import colorsys
import re
from collections.abc import Iterator, Sequence

from segshrink.errors import ConfigError

# Red, green and blue, 0 to 255.
Color = tuple[int, int, int]

# Okabe and Ito's colors for color-blind readers (black left out), then Paul Tol's "muted" set.
_DEFAULT_COLORS = (
    "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#332288",
    "#88CCEE", "#44AA99", "#117733", "#999933", "#DDCC77", "#CC6677", "#882255", "#AA4499",
)  # fmt: skip


def parse_color(text: str) -> Color:
    """Read "#RRGGBB".

    Raises:
        ConfigError: It isn't "#" and six hexadecimal digits.
    """
    if not isinstance(text, str) or not re.fullmatch(r"#[0-9A-Fa-f]{6}", text):
        raise ConfigError(f"a color must look like '#3C1098', found {text!r}")
    return int(text[1:3], 16), int(text[3:5], 16), int(text[5:7], 16)


def format_color(color: Sequence[int]) -> str:
    """Write a color as "#RRGGBB"."""
    return "#{:02X}{:02X}{:02X}".format(*color)


def distinct_colors() -> Iterator[Color]:
    """Yield colors without end: the named ones, then hues a golden angle apart in varying brightness."""
    colors = {parse_color(text): None for text in _DEFAULT_COLORS}
    yield from colors
    step = 0
    while True:
        red, green, blue = colorsys.hsv_to_rgb(step * 0.618034 % 1, 0.45 + 0.2 * (step % 3), 0.95 - 0.2 * (step % 4))
        color = (round(red * 255), round(green * 255), round(blue * 255))
        step += 1
        if color not in colors:
            colors[color] = None
            yield color
