"""Names beside the points of a figure, where they cover neither points nor each other."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.path import Path
from matplotlib.patheffects import withStroke
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

from segshrink.report.themes import LIGHT

# Tried in this order: above and below first, then aside, then the corners.
_DIRECTIONS = (90, -90, 180, 0, 135, 45, -135, -45, 112, 68, -112, -68)
_DISTANCES = (3, 10, 18, 28, 40, 56, 76)
# A name farther from its point than this many points gets a line to it.
_NEAR = 8


def place_labels(
    axes: Axes,
    names: Sequence[tuple[str, float, float, float]],
    *,
    circles: Sequence[tuple[float, float, float]],
    lines: Sequence[Sequence[tuple[float, float]]] = (),
) -> list[Annotation]:
    """Write names beside their points.

    The figure must have been drawn once, with its final limits, so that sizes on it are known.

    Args:
        axes: Where.
        names: Text, x, y, and the area of the point's circle in square points.
        circles: x, y and area of all circles, none of which a name may cover.
        lines: Corners of lines that a name keeps off where it can.

    Returns:
        The names as they were placed, in the order of ``names``.
    """
    inside = axes.get_window_extent()
    scale = float(axes.figure.dpi) / 72
    discs = [(*_pixels(axes, x, y), scale * math.sqrt(area) / 2) for x, y, area in circles]
    paths = [Path([_pixels(axes, x, y) for x, y in line]) for line in lines]
    taken: list[Bbox] = []
    placed = []
    for text, x, y, area in names:
        label = axes.annotate(
            text,
            (x, y),
            (0, 0),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=9.5,
            color=LIGHT.ink,
            zorder=4,
            path_effects=[withStroke(linewidth=2.5, foreground=LIGHT.surface)],
        )
        label.set_in_layout(False)
        extent = label.get_window_extent()
        center = _pixels(axes, x, y)
        best = min(
            _candidates(center, scale * math.sqrt(area) / 2, extent, scale),
            key=lambda candidate: candidate[1] + _cost(candidate[0], discs, paths, taken, inside),
        )
        box, distance = best
        taken.append(box)
        offset = ((box.x0 + box.x1) / 2 - center[0], (box.y0 + box.y1) / 2 - center[1])
        label.set_position((offset[0] / scale, offset[1] / scale))
        if distance > _NEAR:
            _lead(axes, label, (x, y))
        placed.append(label)
    return placed


def _candidates(center: tuple[float, float], radius: float, extent: Bbox, scale: float) -> list[tuple[Bbox, float]]:
    """Return boxes around a circle, each with its distance from it in points."""
    width, height = extent.width, extent.height
    boxes = []
    for distance in _DISTANCES:
        reach = radius + distance * scale
        for degrees in _DIRECTIONS:
            along, up = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
            x = center[0] + along * (reach + width / 2)
            y = center[1] + up * (reach + height / 2)
            boxes.append((Bbox.from_bounds(x - width / 2, y - height / 2, width, height), float(distance)))
    return boxes


def _cost(
    box: Bbox,
    discs: Sequence[tuple[float, float, float]],
    paths: Sequence[Path],
    taken: Sequence[Bbox],
    inside: Bbox,
) -> float:
    """Return how bad a place is: outside or on something is worse than any distance."""
    outside = box.x0 < inside.x0 or box.x1 > inside.x1 or box.y0 < inside.y0 or box.y1 > inside.y1
    names = sum(box.padded(2).overlaps(other) for other in taken)
    covered = sum(_touches(box, disc) for disc in discs)
    crossed = sum(path.intersects_bbox(box, filled=False) for path in paths)
    return 10_000.0 * names + 5_000.0 * bool(outside) + 1_000.0 * covered + 40.0 * crossed


def _touches(box: Bbox, disc: tuple[float, float, float]) -> bool:
    x, y, radius = disc
    nearest_x, nearest_y = min(max(x, box.x0), box.x1), min(max(y, box.y0), box.y1)
    return math.hypot(nearest_x - x, nearest_y - y) < radius + 1


def _pixels(axes: Axes, x: float, y: float) -> tuple[float, float]:
    found = axes.transData.transform((x, y))
    return float(found[0]), float(found[1])


def _lead(axes: Axes, label: Annotation, point: tuple[float, float]) -> None:
    """Draw a thin line from a name to its point."""
    line = axes.annotate(
        "",
        point,
        label.get_position(),
        textcoords="offset points",
        arrowprops={"arrowstyle": "-", "color": LIGHT.muted, "linewidth": 0.6, "shrinkA": 7, "shrinkB": 2},
        zorder=2,
    )
    line.set_in_layout(False)
