"""How figures look on light and dark pages, and how one becomes SVG or PNG.

Figures are drawn once, in ``LIGHT``; their dark SVG is the same text with the colors of ``DARK``.
"""

from __future__ import annotations

import io
import math
import re
import textwrap
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from segshrink.report.runs import Run
from segshrink.version import __version__

# Inches of a title's bold letter, and of a legend's letter, line, and sign with the spaces beside it.
_LETTER_INCHES, _LEGEND_LETTER_INCHES, _LEGEND_LINE_INCHES, _HANDLE_INCHES = 0.11, 0.085, 0.19, 0.5
# Draws a figure; with its title where it stands alone.
Draw = Callable[[str | None], Figure]
# The page's font list; text in SVG stays text, so that any script and any screen reads well.
FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', 'DejaVu Sans', sans-serif"


# Inches of an ordinary figure: at a phone's width its letters are as large as the page's small ones.
SIZE = (3.8, 2.9)


@dataclass(frozen=True)
class Panel:
    """One figure of the page with its words: ``key`` is its file name; a ``wide`` one scrolls on a phone."""

    key: str
    title: str
    alt: str
    draw: Draw
    note: str = ""
    wide: bool = False
    color: str | None = None
    leaking: bool = False
    subject: str = ""

    @property
    def full_title(self) -> str:
        """The title of the picture file, which stands without the page's headings."""
        title = f"{self.subject}: {self.title}" if self.subject else self.title
        return f"{title} (leaking split)" if self.leaking else title


def slug(text: str) -> str:
    """Return a part of a file name: small letters, digits and underscores."""
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")[:40] or "unnamed"


@dataclass(frozen=True)
class Theme:
    """Colors of one page mode; ``roles`` colors the runs, first runs of a role take the first color."""

    ink: str
    muted: str
    grid: str
    surface: str
    cell: str
    roles: dict[str, tuple[str, ...]]

    def color(self, run: Run) -> str:
        """Return the color of a run."""
        palette = self.roles[run.role]
        return palette[run.shade % len(palette)]

    @property
    def colors(self) -> list[str]:
        """All colors, those of equal use in equal places."""
        palette = [color for role in self.roles.values() for color in role]
        return [self.ink, self.muted, self.grid, self.surface, self.cell, *palette]


LIGHT = Theme(
    ink="#1d2430",
    muted="#5b6472",
    grid="#e2e6ec",
    surface="#ffffff",
    cell="#7db0e8",
    roles={
        "teacher": ("#6a4fc4", "#9a86dc", "#4a3494"),
        "control": ("#c4660a", "#e09a55", "#8d4806"),
        "student": ("#04786f", "#4aa79f", "#02534d"),
        "model": ("#2563b8", "#b0387a", "#5f7414", "#7a5a3a", "#3f8fa8"),
    },
)
DARK = Theme(
    ink="#e8ebf0",
    muted="#a2abb9",
    grid="#2e3541",
    surface="#181c23",
    cell="#2f6bab",
    roles={
        "teacher": ("#ab98f5", "#8672d0", "#cfc3ff"),
        "control": ("#f2a154", "#c98444", "#ffc994"),
        "student": ("#3fcabb", "#2f978c", "#8ce8de"),
        "model": ("#6fa8f0", "#ee86bd", "#b3cc57", "#cba983", "#75c6de"),
    },
)
Dash = tuple[float, tuple[float, ...]] | str
DASHES: tuple[Dash, ...] = (
    "-",
    (0, (4, 1.5)),
    (0, (1.2, 1.2)),
    (0, (5, 1.5, 1.2, 1.5)),
)


def new_figure(width: float, height: float, title: str | None) -> tuple[Figure, Axes]:
    """Return an empty figure of ``width`` by ``height`` inches with quiet axes."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.set_facecolor("none")
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(LIGHT.grid)
    axes.tick_params(colors=LIGHT.muted, length=0, pad=5)
    axes.xaxis.label.set_color(LIGHT.muted)
    axes.yaxis.label.set_color(LIGHT.muted)
    axes.grid(visible=True, color=LIGHT.grid, linewidth=0.8)
    axes.set_axisbelow(True)
    if title:
        # To the figure's edge, and in two lines when long; matplotlib's own wrapping takes dollar signs for TeX.
        lines = textwrap.wrap(title, int(width / _LETTER_INCHES), max_lines=2, placeholder="…")
        figure.suptitle("\n".join(lines), x=0.02, ha="left", color=LIGHT.ink, fontsize=11.5, fontweight="bold")
    return figure, axes


def legend(axes: Axes) -> None:
    """Draw the legend below the axes, where it covers nothing, in a figure that is higher by as much."""
    figure = axes.figure
    assert isinstance(figure, Figure)  # noqa: S101 - our figures have no parts
    handles, texts = axes.get_legend_handles_labels()
    if not handles:
        return
    width, height = figure.get_size_inches()
    entry = _HANDLE_INCHES + _LEGEND_LETTER_INCHES * max(map(len, texts))
    columns = min(len(texts), max(1, int(width / entry)))
    figure.set_size_inches(width, height + _LEGEND_LINE_INCHES * math.ceil(len(texts) / columns))
    box = figure.legend(
        handles,
        texts,
        loc="outside lower left",
        ncols=columns,
        frameon=False,
        handlelength=1.7,
        columnspacing=1.2,
        borderaxespad=0.3,
        labelspacing=0.3,
    )
    for text in box.get_texts():
        text.set_color(LIGHT.ink)


def to_svg(draw: Draw) -> tuple[bytes, bytes]:
    """Return the figure as SVG for light and for dark pages.

    The ground is transparent, text stays text, and there is no title: the page gives it.
    """
    light = _saved(draw, None, "svg").decode("utf-8").replace("'DejaVu Sans'", FONTS)
    dark = dict(zip(LIGHT.colors, DARK.colors, strict=True))
    pattern = re.compile("|".join(map(re.escape, dark)))
    return light.encode("utf-8"), pattern.sub(lambda found: dark[found[0]], light).encode("utf-8")


def to_png(draw: Draw, title: str) -> bytes:
    """Return the titled figure as PNG on white at 200 dots per inch."""
    return _saved(draw, title, "png")


def _saved(draw: Draw, title: str | None, kind: str) -> bytes:
    settings: Any = {
        "font.size": 10.5,
        "legend.fontsize": 9.5,
        "text.parse_math": False,  # names are shown as they are: no TeX between dollar signs
        "font.family": ["DejaVu Sans"],
        "svg.fonttype": "none",
        "svg.hashsalt": "segshrink",
        "text.color": LIGHT.ink,
    }
    metadata = {"Date": None} if kind == "svg" else {"Software": f"segshrink {__version__}"}
    with mpl.rc_context(settings), warnings.catch_warnings():
        # A PNG shows a box for a letter that the font lacks; the page's SVG takes the reader's fonts.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        buffer = io.BytesIO()
        ground = "none" if kind == "svg" else LIGHT.surface
        draw(title).savefig(buffer, format=kind, dpi=200, facecolor=ground, metadata=metadata)
    return buffer.getvalue()
