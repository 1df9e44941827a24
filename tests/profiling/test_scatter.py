"""Accuracy over latency: the Pareto front, areas, and names that cover nothing."""

from __future__ import annotations

import io
import json
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from segshrink.errors import DataError, FileError
from segshrink.profiling.label_placement import place_labels
from segshrink.profiling.scatter import LARGEST, SMALLEST, Point, areas, draw_benchmark, pareto
from segshrink.report.themes import new_figure


def point(latency: float, mean_iou: float, *, size: float = 1e6) -> Point:
    return Point("model", "torch", "PyTorch", latency, mean_iou, size)


def test_the_front_is_what_nothing_beats() -> None:
    best = [point(1, 0.5), point(2, 0.6), point(9, 0.7)]
    worse = [point(1, 0.4), point(3, 0.6), point(3, 0.55), point(20, 0.7003)]
    assert pareto([*worse, *reversed(best)]) == best


def test_areas_are_proportional_to_files() -> None:
    assert areas([point(1, 0.5, size=size) for size in (4e6, 1e6, 10.0)]) == [LARGEST, LARGEST / 4, SMALLEST]


def test_names_cover_neither_circles_nor_each_other() -> None:
    figure, axes = new_figure(6, 4, None)
    rng = np.random.default_rng(3)
    places = rng.uniform(0.4, 0.6, (9, 2))  # close together
    axes.set(xlim=(0, 1), ylim=(0, 1))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    circles = [(float(x), float(y), 60.0) for x, y in places]
    labels = place_labels(axes, [(f"model number {n}", *circle) for n, circle in enumerate(circles)], circles=circles)
    canvas.draw()
    boxes = [label.get_window_extent() for label in labels]
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
    centers = axes.transData.transform(places)
    assert not any(box.contains(*center) for box in boxes for center in centers)
    inside = axes.get_window_extent()
    assert all(inside.x0 <= box.x0 and box.x1 <= inside.x1 for box in boxes)


def row(model: str, latency: float | None, mean_iou: float | None, *, batch: int = 1) -> dict[str, Any]:
    measured = {"batch": batch, "threads": 2, "latency_ms": None if latency is None else {"median": latency}}
    return {
        "model": model,
        "runtime": "onnxruntime",
        "runtime_title": "ONNX Runtime",
        "mean_iou": mean_iou,
        "file_bytes": 5e5,
        "measurements": [measured],
    }


def test_a_benchmark_becomes_a_picture(tmp_path: Path) -> None:
    file = tmp_path / "benchmark.json"
    file.write_text(json.dumps({"size": 512, "rows": [row("$a_b$", 3.0, 0.5), row("b", 9.0, 0.6)]}))
    drawn = draw_benchmark(file)
    assert drawn is not None
    two = np.asarray(Image.open(io.BytesIO(drawn)).convert("RGB")).astype(int)
    assert two.shape[1] > two.shape[0] > 500
    file.write_text(json.dumps({"size": 512, "rows": [row("$a_b$", 3.0, 0.5), row("b", None, 0.6)]}))
    assert draw_benchmark(file) != drawn, "what could not be timed is not drawn"


@pytest.mark.parametrize("rows", [[], [row("a", None, 0.5)], [row("a", 3.0, None)]])
def test_without_both_numbers_there_is_no_picture(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    file = tmp_path / "benchmark.json"
    file.write_text(json.dumps({"size": 512, "rows": rows}))
    assert draw_benchmark(file) is None


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="segshrink benchmark"):
        draw_benchmark(tmp_path / "benchmark.json")
    (tmp_path / "benchmark.json").write_text(json.dumps({"rows": 3}))
    with pytest.raises(DataError, match="'rows' must be a list"):
        draw_benchmark(tmp_path / "benchmark.json")
