"""Figures: valid, readable on both grounds, safe with any name."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from segshrink.report import collect
from segshrink.report.figures import (
    calibration_panels,
    confusion_panels,
    curve_panels,
    soft_answer_panels,
    summary_panels,
    training_panels,
)
from segshrink.report.panels import DARK, LIGHT, Panel, plain_logarithmic, to_png, to_svg

Writer = Callable[..., Path]


def words(svg: bytes) -> list[str]:
    root = ElementTree.fromstring(svg)  # noqa: S314
    return ["".join(node.itertext()).strip() for node in root.iter("{http://www.w3.org/2000/svg}text")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, write_student_run: Writer) -> Path:
    classes = (("<b> $x_1$ & 水", "#123456"), ("Land", "#8429F6"), ("None", "#00FF00"))
    return write_student_run(tmp_path_factory.mktemp("figures"), classes=classes, absent=(2,), images=3)


def test_panels_of_a_full_comparison(folder: Path) -> None:
    runs = collect([folder])
    assert [panel.key for panel in summary_panels(runs)] == ["mean_iou", "mean_iou_over_latency"]
    assert [panel.key for panel in training_panels(runs)] == [
        "loss",
        "validation_mean_iou",
        "loss_cross_entropy",
        "loss_pixel_kl",
    ]
    titles = [panel.title for panel in curve_panels(runs)]
    assert titles == ["<b> $x_1$ & 水", "Land", "All classes pooled"], "no curve of an absent class"
    assert [panel.key for panel in soft_answer_panels(runs)] == ["soft_answers_1_teacher"]
    assert [panel.title for panel in confusion_panels(runs)] == ["Teacher", "Control", "Student"]
    assert [panel.key for panel in calibration_panels(runs)] == ["reliability", "confidence"]


def test_confusion_shows_row_shares(folder: Path) -> None:
    runs = collect([folder])
    matrix = np.array(runs[0].evaluation.confusion)  # type: ignore[union-attr]
    shown = words(to_svg(confusion_panels(runs)[0])[0])
    for row in range(2):
        for share in matrix[row] / matrix[row].sum():
            assert f"{100 * share:.0f}" in shown
    assert shown.count("–") == 3, "the row of the absent class"
    assert "<b> $x_1$ & 水" in shown, "names stay as they are"


def test_curves_show_average_precision(folder: Path) -> None:
    runs = collect([folder])
    light, _ = to_svg(curve_panels(runs)[1])
    for run in runs:
        assert run.evaluation is not None
        assert any(f"AP {run.evaluation.curves[1].average_precision:.3f}" in text for text in words(light))


def test_dark_figure_is_the_light_one_in_other_colors(folder: Path) -> None:
    light, dark = to_svg(training_panels(collect([folder]))[0])
    assert words(light) == words(dark)
    assert LIGHT.ink in light.decode()
    assert DARK.ink in dark.decode()
    used = [LIGHT.ink, LIGHT.muted, LIGHT.grid, *sum(LIGHT.roles.values(), ())]
    assert not any(color in dark.decode() for color in used)


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_every_color_stands_out_from_its_ground(theme: object) -> None:
    assert isinstance(theme, type(LIGHT))

    def contrast(color: str) -> float:
        def linear(value: float) -> float:
            return value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4

        def luminance(text: str) -> float:
            parts = [linear(int(text[at : at + 2], 16) / 255) for at in (1, 3, 5)]
            return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

        pair = sorted((luminance(color), luminance(theme.surface)))
        return (pair[1] + 0.05) / (pair[0] + 0.05)

    assert contrast(theme.ink) > 7
    assert contrast(theme.muted) > 4.5
    assert all(contrast(colors[0]) > 3 for colors in theme.roles.values())


def test_png_has_its_title_and_a_white_ground(folder: Path) -> None:
    panel: Panel = summary_panels(collect([folder]))[0]
    picture = np.asarray(Image.open(io.BytesIO(to_png(panel))).convert("RGB"))
    assert (picture[0] == 255).all()
    bare = np.asarray(Image.open(io.BytesIO(to_png(replace(panel, title="")))).convert("RGB"))
    assert (picture[:60] < 128).any()
    assert not (bare[:20] < 128).any()


def test_figures_are_the_same_every_time(folder: Path) -> None:
    panel = confusion_panels(collect([folder]))[0]
    assert to_svg(panel) == to_svg(panel)


def test_one_epoch_is_drawn(tmp_path: Path, write_run: Writer) -> None:
    panels = training_panels(collect([write_run(tmp_path, "model", epochs=1, leave_out=("evaluation.json",))]))
    assert all(words(to_svg(panel)[0]) for panel in panels)


def test_ticks_of_shares_are_the_shares_they_stand_at(folder: Path) -> None:
    confidence = next(panel for panel in calibration_panels(collect([folder])) if panel.key == "confidence")
    axis = confidence.figure().axes[0].yaxis
    for share in (0.0, 0.025, 0.05, 0.175, 0.0005):
        label = axis.get_major_formatter()(share, 0)
        assert float(label.removesuffix(" %")) == pytest.approx(100 * share)


def test_a_bin_of_few_pixels_is_faint(folder: Path) -> None:
    run = collect([folder])[0]
    counts = [entry.count for entry in run.evaluation.calibration.bins if entry.count]
    reliability = next(panel for panel in calibration_panels([run]) if panel.key == "reliability")
    points = reliability.figure().axes[0].collections[-1]
    strengths = points.get_facecolors()[:, 3]
    assert list(np.argsort(strengths)) == list(np.argsort(counts))
    assert strengths.max() == 1
    assert strengths.min() < 0.5


def test_a_legend_covers_no_curve(folder: Path) -> None:
    for panel in [*curve_panels(collect([folder])), *calibration_panels(collect([folder]))]:
        figure = panel.figure()
        figure.draw_without_rendering()
        (box,) = figure.legends
        assert not box.get_window_extent().overlaps(figure.axes[0].get_window_extent())


@pytest.mark.parametrize("costs", [(2050, 2450), (10, 14), (20, 95), (3, 60)])
def test_a_logarithmic_axis_has_ticks_that_leave_room_for_each_other(costs: tuple[float, float]) -> None:
    axes = Figure(figsize=(4, 2)).add_subplot()
    axes.plot(costs, (0, 1))
    plain_logarithmic(axes)
    axes.margins(x=0.15)
    low, high = axes.get_xlim()
    assert 2 <= sum(low <= tick <= high for tick in axes.get_xticks()) <= 6
