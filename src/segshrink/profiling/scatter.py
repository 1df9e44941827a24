"""Accuracy against latency of a benchmark, with file size as area and the Pareto front."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from segshrink import formatting
from segshrink.errors import DataError, FileError
from segshrink.profiling.label_placement import place_labels
from segshrink.records import Section
from segshrink.report.themes import LIGHT, new_figure, to_png

SIZE = (8.0, 4.8)
LARGEST, SMALLEST = 1300.0, 32.0
"""Areas of circles in square points: of the largest file, and the least that can be seen."""
# Runtimes in the order in which the legend names them.
COLORS = {
    "torch": LIGHT.roles["teacher"][0],
    "torch-compile": LIGHT.roles["model"][1],
    "onnxruntime": LIGHT.roles["model"][0],
    "openvino": LIGHT.roles["student"][0],
    "litert": LIGHT.roles["control"][0],
}


@dataclass(frozen=True)
class Point:
    """A model on a runtime: ``latency`` in ms, ``mean_iou`` from 0 to 1."""

    model: str
    runtime: str
    title: str
    latency: float
    mean_iou: float
    file_bytes: float

    @property
    def fill(self) -> str:
        """Colour of the circle; one that was kept from bf16 is hollow."""
        return LIGHT.surface if self.title.endswith("fp32") else self.line

    @property
    def line(self) -> str:
        """Colour of the runtime."""
        return COLORS[self.runtime]


def draw_benchmark(file: Path) -> bytes | None:
    """Draw a benchmark's models: mean IoU over latency, file size as area.

    Latency is that of the smallest batch with the most threads that were measured.

    Args:
        file: A ``benchmark.json``.

    Returns:
        A PNG; None when no model has both numbers.

    Raises:
        FileError: The file is missing or no JSON.
        DataError: A field has the wrong type, or a runtime is unknown.
    """
    found = Section.read(file)
    if found is None:
        raise FileError(f"{file} does not exist; give the benchmark.json that segshrink benchmark wrote")
    shape = _shape(found)
    points = [] if shape is None else _points(found, shape, file)
    if shape is None or not points:
        return None
    size = found.count("size") or 0
    threads = f"{shape[1]} thread{'s' if shape[1] > 1 else ''}"
    scored = ", ".join(text for text in (found.text("data"), found.text("split")) if text)
    x_label = f"latency in ms: {size} × {size} pixels, batch {shape[0]}, {threads} (logarithmic)"
    leaks = " (leaking split)" if found.flag("leaking") else ""
    y_label = f"mean IoU ({scored}{leaks})" if scored else "mean IoU"
    return to_png(partial(_draw, points, x_label=x_label, y_label=y_label), "Accuracy over latency")


def pareto(points: Sequence[Point]) -> list[Point]:
    """Return the points that no other beats in latency and mean IoU at once, by rising latency.

    What isn't better in the three digits that are shown isn't better: runtimes round in their own ways.
    """
    front: list[Point] = []
    for point in sorted(points, key=lambda one: (one.latency, -one.mean_iou)):
        if not front or round(point.mean_iou, 3) > round(front[-1].mean_iou, 3):
            front.append(point)
    return front


def areas(points: Sequence[Point]) -> list[float]:
    """Return areas in square points, proportional to file sizes; tiny ones are drawn as large as can be seen."""
    largest = max(point.file_bytes for point in points) or 1.0
    return [_area(point.file_bytes, largest) for point in points]


def _shape(found: Section) -> tuple[int, int] | None:
    """Return the smallest batch, and the most threads measured with it."""
    shapes = {
        (one.count("batch") or 1, one.count("threads") or 1)
        for row in found.sections("rows")
        for one in row.sections("measurements")
        if one.section("latency_ms") is not None
    }
    return min(shapes, key=lambda shape: (shape[0], -shape[1]), default=None)


def _points(found: Section, shape: tuple[int, int], file: Path) -> list[Point]:
    points = []
    for row in found.sections("rows"):
        for one in row.sections("measurements"):
            latency, mean_iou = one.section("latency_ms"), row.number("mean_iou")
            median = latency.number("median") if latency else None
            model, runtime = row.text("model") or "", row.text("runtime")
            if (one.count("batch"), one.count("threads")) != shape or median is None or mean_iou is None:
                continue
            if runtime not in COLORS:
                raise DataError(f"{file}: runtime '{runtime}' is unknown; measure again with this version")
            title = row.text("runtime_title") or runtime
            points.append(Point(model, runtime, title, median, mean_iou, row.number("file_bytes") or 0.0))
    return points


def _draw(points: Sequence[Point], title: str | None, *, x_label: str, y_label: str) -> Figure:
    figure, axes = new_figure(*SIZE, title)
    axes.set_xscale("log")
    front = pareto(points)
    _lines(axes, points)
    sizes = areas(points)
    for point, area in sorted(zip(points, sizes, strict=True), key=lambda pair: -pair[1]):
        hollow, best = point.fill != point.line, point in front
        axes.scatter(
            [point.latency],
            [point.mean_iou],
            s=area,
            facecolor=point.fill,
            edgecolor=point.line if hollow else LIGHT.ink if best else LIGHT.surface,
            linewidth=1.8 if hollow else 1.0,
            alpha=0.92 if best else 0.55,
            zorder=3,
        )
    _limit(axes, points)
    # To the right of its last point the front goes on: nothing slower is better.
    steps = _staircase([(point.latency, point.mean_iou) for point in front], right=axes.get_xlim()[1])
    axes.plot(*zip(*steps, strict=True), color=LIGHT.ink, linewidth=1.0, linestyle=(0, (4, 2)), zorder=2)
    axes.set(xlabel=x_label, ylabel=y_label)
    _legend(figure, points)
    FigureCanvasAgg(figure).draw()  # type: ignore[no-untyped-call]
    circles = [(point.latency, point.mean_iou, area) for point, area in zip(points, sizes, strict=True)]
    place_labels(axes, _names(points, sizes), circles=circles, lines=[steps])
    return figure


def _staircase(front: Sequence[tuple[float, float]], *, right: float) -> list[tuple[float, float]]:
    """Return the corners of the front's line, which goes on to ``right``."""
    corners = [front[0]]
    for x, y in front[1:]:
        corners += [(x, corners[-1][1]), (x, y)]
    return [*corners, (right, corners[-1][1])]


def _lines(axes: Axes, points: Sequence[Point]) -> None:
    """Join the points of each model."""
    for model in dict.fromkeys(point.model for point in points):
        own = sorted((point.latency, point.mean_iou) for point in points if point.model == model)
        axes.plot(*zip(*own, strict=True), color=LIGHT.muted, linewidth=0.9, alpha=0.6, zorder=1)


def _limit(axes: Axes, points: Sequence[Point]) -> None:
    """Leave room for circles and names, and mark latencies with plain numbers."""
    low, high = min(point.latency for point in points), max(point.latency for point in points)
    margin = max(1.5, (high / low) ** 0.14)
    axes.set_xlim(low / margin, high * margin)
    bottom, top = min(point.mean_iou for point in points), max(point.mean_iou for point in points)
    space = max(0.01, 0.22 * (top - bottom))
    axes.set_ylim(bottom - space, top + space)
    subs = (1, 2, 5) if high / low < 300 else (1,)
    axes.xaxis.set_major_locator(LogLocator(subs=subs))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.12g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.locator_params(axis="y", nbins=8)


def _names(points: Sequence[Point], sizes: Sequence[float]) -> list[tuple[str, float, float, float]]:
    """Return each model's name with its fastest point and that point's area."""
    fastest: dict[str, tuple[Point, float]] = {}
    for point, area in zip(points, sizes, strict=True):
        if point.model not in fastest or point.latency < fastest[point.model][0].latency:
            fastest[point.model] = (point, area)
    return [(name, point.latency, point.mean_iou, area) for name, (point, area) in fastest.items()]


def _legend(figure: Figure, points: Sequence[Point]) -> None:
    handles = [_heading("Runtime")]
    shown = {point.title: point for point in points}
    order = list(COLORS)
    ordered = sorted(shown.values(), key=lambda point: (order.index(point.runtime), point.title))
    handles += [_circle(point.title, 60.0, fill=point.fill, line=point.line) for point in ordered]
    largest = max(point.file_bytes for point in points)
    if largest > 0:
        handles += [_heading(""), _heading("File")]
        handles += [
            _circle(formatting.size(size), _area(size, largest), fill=LIGHT.surface, line=LIGHT.muted)
            for size in _sample_sizes(largest)
        ]
    handles += [
        _heading(""),
        Line2D([], [], color=LIGHT.ink, linewidth=1.0, linestyle=(0, (4, 2)), label="Pareto front"),
        Line2D([], [], color=LIGHT.muted, linewidth=0.9, alpha=0.6, label="same model"),
    ]
    box = figure.legend(
        handles=handles, loc="outside right upper", frameon=False, labelspacing=0.75, handletextpad=0.9, handlelength=2
    )
    for text, handle in zip(box.get_texts(), handles, strict=True):
        heading = handle.get_linestyle() == "None" and handle.get_marker() == ""
        text.set_color(LIGHT.muted if heading else LIGHT.ink)


def _heading(text: str) -> Line2D:
    return Line2D([], [], linestyle="none", marker="", label=text)


def _circle(text: str, area: float, *, fill: str, line: str) -> Line2D:
    return Line2D(
        [], [], linestyle="none", marker="o", markersize=math.sqrt(area), color=fill, markeredgecolor=line, label=text
    )


def _area(size: float, largest: float) -> float:
    return max(SMALLEST, LARGEST * size / largest)


def _sample_sizes(largest: float) -> list[float]:
    """Return up to three round sizes in bytes, the largest at most a third of the largest file."""
    top = 10 ** math.floor(math.log10(largest))
    samples = [top / 100, top / 10, float(top)]
    return [size for size in samples if LARGEST * size / largest >= SMALLEST] or [float(top)]
