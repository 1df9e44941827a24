"""How figures look on light and dark pages, and how one becomes SVG or PNG.

Figures are drawn once, in ``LIGHT``; their dark SVG is the same text with the colors of ``DARK``.
"""

from __future__ import annotations

import io
import math
import re
import textwrap
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from segshrink.report.runs import Run
from segshrink.version import __version__

# Inches of a title's bold letter, and of a legend's letter, line, and sign with the spaces beside it.
_LETTER_INCHES, _LEGEND_LETTER_INCHES, _LEGEND_LINE_INCHES, _HANDLE_INCHES = 0.11, 0.085, 0.19, 0.5
# Numbers of four digits that have room below a panel.
_MOST_TICKS = 6
# The page's font list; text in SVG stays text, so that any script and any screen reads well.
FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', 'DejaVu Sans', sans-serif"
# By which a figure says that this program made it.
_MAKER = f"segshrink {__version__}"
Dash = tuple[float, tuple[float, ...]] | str
DASHES: tuple[Dash, ...] = ("-", (0, (4, 1.5)), (0, (1.2, 1.2)), (0, (5, 1.5, 1.2, 1.5)))


@dataclass(frozen=True)
class Panel:
    """One figure of the page with its words.

    Attributes:
        key: Its file name.
        title: Its heading on the page.
        alt: What it shows, for those who can't see it.
        draw: Draws it on empty axes.
        size: Width and height in inches without a legend. At a phone's width the letters of an ordinary one are as
            large as the page's small ones.
        note: What is said below it.
        wide: Whether it scrolls on a phone rather than shrinks.
        color: The color of the class that it is about.
        leaking: Whether it shows scores of a leaking split.
        subject: What the page's heading above it says.
    """

    key: str
    title: str
    alt: str
    draw: Callable[[Axes], None]
    size: tuple[float, float] = (3.8, 2.9)
    note: str = ""
    wide: bool = False
    color: str | None = None
    leaking: bool = False
    subject: str = ""

    def figure(self, *, titled: bool = False) -> Figure:
        """Draw it; ``titled`` where it stands without the page's headings."""
        figure, axes = new_figure(*self.size)
        self.draw(axes)
        _add_legend(figure, axes)
        if titled:
            title = f"{self.subject}: {self.title}" if self.subject else self.title
            set_title(figure, f"{title} (leaking split)" if self.leaking else title)
        return figure


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
STYLE: Any = {
    "font.size": 10.5,
    "font.family": ["DejaVu Sans"],
    "text.color": LIGHT.ink,
    "text.parse_math": False,  # names are shown as they are: no TeX between dollar signs
    "axes.facecolor": "none",
    "axes.edgecolor": LIGHT.grid,
    "axes.labelcolor": LIGHT.muted,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LIGHT.grid,
    **dict.fromkeys(("xtick.color", "ytick.color"), LIGHT.muted),
    **dict.fromkeys(("xtick.major.size", "ytick.major.size", "xtick.minor.size", "ytick.minor.size"), 0),
    **dict.fromkeys(("xtick.major.pad", "ytick.major.pad"), 5),
    "legend.fontsize": 9.5,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "segshrink",
}


def new_figure(width: float, height: float) -> tuple[Figure, Axes]:
    """Return an empty figure of ``width`` by ``height`` inches with quiet axes."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        return figure, figure.add_subplot()


class _LogTicks(LogLocator):
    """Ticks at multiples of powers of ten; where fewer than two are in sight, a few even ones instead of many."""

    def tick_values(self, vmin: float, vmax: float) -> Any:
        """Return where ticks stand between two values."""
        ticks = super().tick_values(vmin, vmax)
        shown = sum(vmin <= tick <= vmax for tick in ticks)
        few = vmax < 10 * vmin and not 2 <= shown <= _MOST_TICKS
        return MaxNLocator(_MOST_TICKS - 2).tick_values(vmin, vmax) if few else ticks


def plain_logarithmic(axes: Axes, *, subs: Sequence[float] = (1, 2, 5)) -> None:
    """Make the horizontal axis logarithmic, with plain numbers at ``subs`` times powers of ten."""
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(_LogTicks(subs=subs))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.12g}"))
    axes.xaxis.set_minor_locator(NullLocator())


def set_title(figure: Figure, title: str) -> None:
    """Write a title to the figure's edge, in two lines when long; matplotlib's own wrapping takes dollars for TeX."""
    lines = textwrap.wrap(title, int(figure.get_figwidth() / _LETTER_INCHES), max_lines=2, placeholder="…")
    figure.suptitle("\n".join(lines), x=0.02, ha="left", color=LIGHT.ink, fontsize=11.5, fontweight="bold")


def to_svg(panel: Panel) -> tuple[bytes, bytes]:
    """Return the figure as SVG for light and for dark pages.

    The ground is transparent, text stays text, and there is no title: the page gives it.
    """
    with mpl.rc_context(STYLE):
        light = _saved(panel.figure(), "svg", {"Date": None}, "none").decode().replace("'DejaVu Sans'", FONTS)
    dark = dict(zip(LIGHT.colors, DARK.colors, strict=True))
    pattern = re.compile("|".join(map(re.escape, dark)))
    return light.encode(), pattern.sub(lambda found: dark[found[0]], light).encode()


def to_png(panel: Panel) -> bytes:
    """Return the titled figure as PNG on white at 200 dots per inch."""
    with mpl.rc_context(STYLE):
        return figure_png(panel.figure(titled=True))


def to_files(panel: Panel) -> dict[str, bytes]:
    """Return the titled figure on white by the names of its files: PNG at 200 dots per inch, and SVG."""
    with mpl.rc_context(STYLE):
        figure = panel.figure(titled=True)
        svg = _saved(figure, "svg", {"Date": None, "Creator": _MAKER}, LIGHT.surface)
        return {f"{panel.key}.png": figure_png(figure), f"{panel.key}.svg": svg}


def figure_png(figure: Figure) -> bytes:
    """Return a figure as PNG on white at 200 dots per inch."""
    return _saved(figure, "png", {"Software": _MAKER}, LIGHT.surface)


def _saved(figure: Figure, kind: str, metadata: dict[str, Any], ground: str) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # A PNG shows a box for a letter that the font lacks; the page's SVG takes the reader's fonts.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(buffer, format=kind, dpi=200, facecolor=ground, metadata=metadata)
    return buffer.getvalue()


def _add_legend(figure: Figure, axes: Axes) -> None:
    """Draw the legend below the axes, where it covers nothing, in a figure that is higher by as much."""
    handles, texts = axes.get_legend_handles_labels()
    if not handles:
        return
    width, height = figure.get_size_inches()
    entry = _HANDLE_INCHES + _LEGEND_LETTER_INCHES * max(map(len, texts))
    columns = min(len(texts), max(1, int(width / entry)))
    figure.set_size_inches(width, height + _LEGEND_LINE_INCHES * math.ceil(len(texts) / columns))
    spacing = {"handlelength": 1.7, "columnspacing": 1.2, "borderaxespad": 0.3, "labelspacing": 0.3}
    figure.legend(handles, texts, loc="outside lower left", ncols=columns, **spacing)
