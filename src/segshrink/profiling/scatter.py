"""Accuracy against latency of a benchmark, with file size as area and the Pareto front."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from segshrink import formatting
from segshrink.report.panels import LIGHT, Panel, plain_logarithmic, to_png

T = TypeVar("T")

WIDTH, HEIGHT = 8.0, 4.8
# Areas of circles in square points: of the largest file, and the least that can be seen.
LARGEST, SMALLEST = 1300.0, 32.0
# Runtimes in the order in which the legend names them.
COLORS = {
    "torch": LIGHT.roles["teacher"][0],
    "torch-compile": LIGHT.roles["model"][1],
    "onnxruntime": LIGHT.roles["model"][0],
    "openvino": LIGHT.roles["student"][0],
    "litert": LIGHT.roles["control"][0],
}
_HEADINGS = ("Model", "Runtime", "File")
_FRONT_STYLE: Any = {"color": LIGHT.ink, "linewidth": 1.0, "linestyle": (0, (4, 2))}


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
        """Color of the circle; one that was kept from bf16 is hollow."""
        return LIGHT.surface if self.title.endswith("fp32") else self.line

    @property
    def line(self) -> str:
        """Color of the runtime."""
        return COLORS[self.runtime]


def draw_benchmark(benchmark: Mapping[str, Any]) -> bytes | None:
    """Draw a benchmark's models: mean IoU over latency, file size as area.

    Latency is that of the smallest batch with the most threads that were measured.

    Args:
        benchmark: What ``benchmark.json`` holds, or ``pareto.json``.

    Returns:
        A PNG; None when no model has both numbers.
    """
    timed = [(row, entry) for row in benchmark["rows"] for entry in row["measurements"] if entry["latency_ms"]]
    if not timed:
        return None
    shapes = {(entry["batch"], entry["threads"]) for _, entry in timed}
    batch, threads = min(shapes, key=lambda shape: (shape[0], -shape[1]))
    points = [
        Point(
            row["model"],
            row["runtime"],
            row["runtime_title"],
            entry["latency_ms"]["median"],
            row["mean_iou"],
            row["file_bytes"] or 0.0,
        )
        for row, entry in timed
        if row["mean_iou"] is not None and (entry["batch"], entry["threads"]) == (batch, threads)
    ]
    if not points:
        return None
    scored = ", ".join(text for text in (benchmark["data"], benchmark["split"]) if text)
    leaks = " (leaking split)" if benchmark["leaking"] else ""
    used = f"batch {batch}, {threads} thread{'s' if threads > 1 else ''}"
    size = benchmark["size"]
    x_label = f"latency in ms: {size} × {size} pixels, {used} (logarithmic)"
    y_label = f"mean IoU ({scored}{leaks})" if scored else "mean IoU"
    return to_png(panel(points, x_label=x_label, y_label=y_label))


def panel(points: Sequence[Point], *, x_label: str, y_label: str) -> Panel:
    """Return the figure of points, each with its model's number, which the legend explains."""
    alt = "; ".join(f"{p.model} on {p.title}: {p.mean_iou:.3f} in {p.latency:.3g} ms" for p in points)
    size = (WIDTH, max(HEIGHT, 0.9 + 0.27 * len(_handles(points))))
    draw = partial(_draw, points=points, x_label=x_label, y_label=y_label)
    return Panel("benchmark", "Accuracy over latency", alt, draw, size)


def pareto_front(items: Sequence[T], costs: Callable[[T], tuple[float, ...]]) -> list[T]:
    """Return the items that no other beats: none costs at most as much in everything and less in something.

    Args:
        items: In any order, which is kept.
        costs: Returns what an item is compared by, each the less the better.
    """

    def beats(other: tuple[float, ...], item: tuple[float, ...]) -> bool:
        return other != item and all(less <= more for less, more in zip(other, item, strict=True))

    compared = [costs(item) for item in items]
    return [
        item for item, cost in zip(items, compared, strict=True) if not any(beats(other, cost) for other in compared)
    ]


def pareto(points: Sequence[Point]) -> list[Point]:
    """Return the points that no other beats in latency and mean IoU at once, by rising latency.

    What isn't better in the three digits that are shown isn't better: runtimes round in their own ways.
    """
    front = pareto_front(points, lambda point: (point.latency, -round(point.mean_iou, 3)))
    return sorted(front, key=lambda point: point.latency)


def areas(points: Sequence[Point]) -> list[float]:
    """Return areas in square points, proportional to file sizes; tiny ones are drawn as large as can be seen."""
    largest = max(point.file_bytes for point in points) or 1.0
    return [_area(point.file_bytes, largest) for point in points]


def _draw(axes: Axes, points: Sequence[Point], *, x_label: str, y_label: str) -> None:
    _limit(axes, points)
    front = pareto(points)
    # To the right of its last point the front goes on: nothing slower is better.
    corners = [(point.latency, point.mean_iou) for point in front] + [(axes.get_xlim()[1], front[-1].mean_iou)]
    axes.step(*zip(*corners, strict=True), where="post", zorder=2, **_FRONT_STYLE)
    for point, area in sorted(zip(points, areas(points), strict=True), key=lambda pair: -pair[1]):
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
    axes.set(xlabel=x_label, ylabel=y_label)
    handles, figure = _handles(points), axes.get_figure(root=True)
    assert isinstance(figure, Figure)  # noqa: S101 - axes of a panel
    box = figure.legend(handles=handles, loc="outside right upper", labelspacing=0.75, handletextpad=0.9)
    for text in box.get_texts():
        if text.get_text() in _HEADINGS:
            text.set_color(LIGHT.muted)
    figure.draw_without_rendering()
    _write_numbers(axes, points)


def _limit(axes: Axes, points: Sequence[Point]) -> None:
    """Leave room for circles, and mark latencies with plain numbers."""
    low, high = min(point.latency for point in points), max(point.latency for point in points)
    margin = max(1.5, (high / low) ** 0.14)
    axes.set_xlim(low / margin, high * margin)
    bottom, top = min(point.mean_iou for point in points), max(point.mean_iou for point in points)
    space = max(0.01, 0.22 * (top - bottom))
    axes.set_ylim(bottom - space, top + space)
    plain_logarithmic(axes, subs=(1, 2, 5) if high / low < 300 else (1,))
    axes.locator_params(axis="y", nbins=8)


def _numbers(points: Sequence[Point]) -> dict[str, int]:
    """Return a number for each model, by rising latency."""
    ordered = sorted(points, key=lambda point: point.latency)
    return {model: number for number, model in enumerate(dict.fromkeys(point.model for point in ordered), start=1)}


def _write_numbers(axes: Axes, points: Sequence[Point]) -> None:
    """Write each point's number beside it, on the side that is farthest from other points and numbers.

    The figure must have been laid out.
    """
    numbers = _numbers(points)
    centers = axes.transData.transform([(point.latency, point.mean_iou) for point in points])
    centers *= 72 / float(axes.figure.dpi)
    numbered: list[np.ndarray] = []
    for index, (point, area) in enumerate(zip(points, areas(points), strict=True)):
        taken = np.array([*np.delete(centers, index, axis=0), *numbered]).reshape(-1, 2)
        reach = math.sqrt(area) / 2 + 7
        sides = reach * np.array([(0, 1), (1, 0), (0, -1), (-1, 0)])
        room = [np.hypot(*(centers[index] + side - taken).T).min(initial=np.inf) for side in sides]
        side = sides[int(np.argmax(room))]
        numbered.append(centers[index] + side)
        axes.annotate(
            str(numbers[point.model]),
            (point.latency, point.mean_iou),
            (float(side[0]), float(side[1])),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=9.5,
            color=LIGHT.ink,
            zorder=4,
            path_effects=[withStroke(linewidth=2.5, foreground=LIGHT.surface)],
        ).set_in_layout(False)


def _handles(points: Sequence[Point]) -> list[Line2D]:
    """Return the legend: models, runtimes, sizes of files, and the front."""
    models = [_text(f"{number}  {model}") for model, number in _numbers(points).items()]
    order = list(COLORS)
    titles = {point.title: point for point in points}
    runtimes = [
        _circle(point.title, 60.0, fill=point.fill, line=point.line)
        for point in sorted(titles.values(), key=lambda point: (order.index(point.runtime), point.title))
    ]
    largest = max(point.file_bytes for point in points)
    sizes = [
        _circle(formatting.size(size), _area(size, largest), fill=LIGHT.surface, line=LIGHT.muted)
        for size in (_sample_sizes(largest) if largest > 0 else ())
    ]
    groups = zip(_HEADINGS, (models, runtimes, sizes), strict=True)
    handles = [handle for heading, group in groups if group for handle in (_text(heading), *group, _text(""))]
    return [*handles, Line2D([], [], label="Pareto front", **_FRONT_STYLE)]


def _text(text: str) -> Line2D:
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
