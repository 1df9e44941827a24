"""Draw what distillation is worth over steps, labels and what teaches, from the cells of ``proof.py``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from statistics import mean
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

from proof_cells import BUILDINGS, LENGTHS, PLACES, VOC
from segshrink import EvaluationRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CONTROL, STUDENT = "#8a8a8a", "#0b6e4f"
COLUMNS = 3
# Of an axis of scores: narrower ones make noise look large.
LEAST_SPAN = 0.04
# Labeled images where all are: of Pascal VOC's training list, and of both places.
ALL = {"voc": 772, "place-1": 966, "place-5": 504}
TEACHING = {"itself,\npool": "consistency", "one,\npool": "one-pool", "bank": "labeled", "bank,\npool": "pool"}


@dataclass(frozen=True)
class Panel:
    """Scores of controls and students beside each other, a dot for each seed.

    Attributes:
        title: What is judged.
        axis: What the numbers below are.
        places: Those numbers, or names.
        control: For each, the seeds' scores without a teacher; empty where they aren't known.
        student: For each, those of the students.
        ordered: The places are numbers, so that a line may join the means.
    """

    title: str
    axis: str
    places: tuple[str, ...]
    control: tuple[tuple[float, ...], ...]
    student: tuple[tuple[float, ...], ...]
    ordered: bool = True

    @property
    def pairs(self) -> int:
        """Places of which both are known."""
        return sum(bool(one and other) for one, other in zip(self.control, self.student, strict=True))


@dataclass(frozen=True)
class _Pair:
    """What stands at one place of an axis: the cells of controls and students, with a ``*`` for their seeds."""

    place: str
    control: str
    student: str
    seeds: int


def draw(records: Mapping[str, dict[str, Any]]) -> Figure | None:
    """Return a figure with a panel for each comparison of which something is known; None without any.

    Args:
        records: What the cells came to, by name.
    """
    shown = [panel for panel in _panels(records) if panel.pairs]
    if not shown:
        return None
    rows, columns = ceil(len(shown) / COLUMNS), min(len(shown), COLUMNS)
    figure = Figure(figsize=(3.2 * columns, 3.0 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).flatten()
    for panel, axes in zip(shown, grid, strict=False):
        _fill(axes, panel)
    for axes in grid[len(shown) :]:
        axes.set_axis_off()
    figure.legend(*grid[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    return figure


def _panels(records: Mapping[str, dict[str, Any]]) -> list[Panel]:
    """Return all comparisons, known or not yet."""

    def scores(pattern: str, seeds: int, of: Callable[[EvaluationRecord], float]) -> tuple[float, ...]:
        names = (pattern.replace("*", str(seed)) for seed in range(seeds))
        known = (records[name]["evaluation"] for name in names if name in records)
        return tuple(of(EvaluationRecord.model_validate(each)) for each in known)

    def panel(title: str, axis: str, pairs: Sequence[_Pair], of: Callable[[EvaluationRecord], float]) -> Panel:
        controls = tuple(scores(pair.control, pair.seeds, of) for pair in pairs)
        students = tuple(scores(pair.student, pair.seeds, of) for pair in pairs)
        return Panel(title, axis, tuple(pair.place for pair in pairs), controls, students)

    voc = [
        _Pair(str(count or ALL["voc"]), f"voc/control-{count}-*", f"voc/student-{count}-*", seeds)
        for count, seeds in VOC
    ]
    lengths = [
        _Pair(f"{count:,}", f"dubai/control-{count}-*", f"dubai/pool-{count}-*", seeds)
        for count, seeds in sorted(LENGTHS)
    ]
    teaching = [
        _Pair(name, "dubai/control-4000-*", f"dubai/{cell}-4000-*", 2)
        for name, cell in TEACHING.items()
        if f"dubai/{cell}-4000-0" in records
    ]
    panels = [panel("Pascal VOC, mIoU", "labeled images", voc, _mean_iou)]
    for here, there in (PLACES, PLACES[::-1]):
        names = [(str(count or ALL[here]), f"buildings/{here}-{count}", seeds) for count, seeds in BUILDINGS]
        buildings = [_Pair(place, f"{name}/control-*", f"{name}/pool-*", seeds) for place, name, seeds in names]
        panels.append(panel(f"Buildings of {there}, IoU", f"labeled tiles of {here}", buildings, _second_iou))
    panels.append(panel("Dubai, mIoU", "steps", lengths, _mean_iou))
    kinds = panel("Dubai, mIoU", "what teaches, 4,000 steps", teaching, _mean_iou)
    return [*panels, replace(kinds, ordered=False)]


def _mean_iou(evaluation: EvaluationRecord) -> float:
    return evaluation.scores.mean_iou


def _second_iou(evaluation: EvaluationRecord) -> float:
    return evaluation.scores.iou[1] or 0.0


def _fill(axes: Axes, panel: Panel) -> None:
    for side, color, label in ((panel.control, CONTROL, "control"), (panel.student, STUDENT, "student")):
        known = [(place, each) for place, each in enumerate(side) if each]
        means = [mean(each) for _, each in known]
        if panel.ordered:
            axes.plot([place for place, _ in known], means, color=color)
        else:
            axes.hlines(means, [place - 0.25 for place, _ in known], [place + 0.25 for place, _ in known], color=color)
        dots = [(place, score) for place, each in known for score in each]
        axes.scatter([place for place, _ in dots], [score for _, score in dots], color=color, s=14, label=label)
    axes.set(title=panel.title, xlabel=panel.axis, xlim=(-0.4, len(panel.places) - 0.6))
    axes.set_xticks(range(len(panel.places)), panel.places)
    scores = [score for side in (panel.control, panel.student) for each in side for score in each]
    middle, half = (max(scores) + min(scores)) / 2, max(0.6 * (max(scores) - min(scores)), LEAST_SPAN / 2)
    axes.set_ylim(middle - half, middle + half)
    axes.spines[["top", "right"]].set_visible(False)
    axes.title.set_fontsize(10)
