"""Accuracy over latency: the Pareto front, areas, and numbers that stand apart."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segshrink.profiling.scatter import LARGEST, SMALLEST, Point, areas, draw_benchmark, panel, pareto


def point(latency: float, mean_iou: float, *, size: float = 1e6) -> Point:
    return Point("model", "torch", "PyTorch", latency, mean_iou, size)


def test_the_front_is_what_nothing_beats() -> None:
    best = [point(1, 0.5), point(2, 0.6), point(9, 0.7)]
    worse = [point(1, 0.4), point(3, 0.6), point(3, 0.55), point(20, 0.7003)]
    assert pareto([*worse, *reversed(best)]) == best


def test_areas_are_proportional_to_files() -> None:
    assert areas([point(1, 0.5, size=size) for size in (4e6, 1e6, 10.0)]) == [LARGEST, LARGEST / 4, SMALLEST]


def test_every_circle_has_its_models_number_and_numbers_stand_apart() -> None:
    rng = np.random.default_rng(3)
    points = [
        Point(f"model {n % 5}", runtime, title, float(10 + rng.uniform(0, 1)), float(rng.uniform(0.5, 0.52)), 1e6)
        for n, (runtime, title) in enumerate([("torch", "PyTorch"), ("openvino", "OpenVINO")] * 5)
    ]
    figure = panel(points, x_label="latency", y_label="mean IoU").figure()
    numbers = {text.xy: text for text in figure.axes[0].texts}
    models: dict[str, set[str]] = {}
    for point in points:
        models.setdefault(point.model, set()).add(numbers[point.latency, point.mean_iou].get_text())
    assert all(len(written) == 1 for written in models.values()), "one model, one number"
    assert len(set.union(*models.values())) == 5, "and no two models the same"
    shown = {text.get_text() for text in figure.legends[0].get_texts()}
    assert {f"{written.pop()}  {model}" for model, written in models.items()} < shown
    figure.draw_without_rendering()
    centers = np.array([text.get_window_extent().get_points().mean(axis=0) for text in numbers.values()])
    distances = np.hypot(*(centers[:, None] - centers[None]).transpose(2, 0, 1)) + 1e9 * np.eye(len(centers))
    assert distances.min() > 3, "in pixels: no number hides another"


def row(model: str, latency: float | None, mean_iou: float | None, *, batch: int = 1) -> dict[str, Any]:
    measured = {"batch": batch, "threads": 2, "latency_ms": None if latency is None else {"median": latency}}
    return {
        "model": model,
        "runtime": "onnxruntime",
        "runtime_title": "ONNX Runtime",
        "mean_iou": mean_iou,
        "file_bytes": 500_000,
        "measurements": [measured],
    }


def benchmark(*rows: dict[str, Any]) -> dict[str, Any]:
    return {"size": 512, "data": None, "split": None, "leaking": False, "rows": rows}


def test_a_benchmark_becomes_a_picture() -> None:
    drawn = draw_benchmark(benchmark(row("$a_b$", 3.0, 0.5), row("b", 9.0, 0.6)))
    assert drawn is not None
    two = np.asarray(Image.open(io.BytesIO(drawn)).convert("RGB")).astype(int)
    assert two.shape[1] > two.shape[0] > 500
    one = draw_benchmark(benchmark(row("$a_b$", 3.0, 0.5), row("b", None, 0.6)))
    assert one != drawn, "what could not be timed is not drawn"


@pytest.mark.parametrize("rows", [[], [row("a", None, 0.5)], [row("a", 3.0, None)]])
def test_without_both_numbers_there_is_no_picture(rows: list[dict[str, Any]]) -> None:
    assert draw_benchmark(benchmark(*rows)) is None
