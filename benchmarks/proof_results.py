"""What the cells of ``proof.py`` came to: records, tables, and the goals they are held against."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any

from safetensors.torch import load_file, save_file

from proof_cells import BUILDINGS, ESPNET_SEEDS, GROUPS, LENGTHS, ONE_STUDENTS, PLACES, VOC, VOC_LEVERS, Cell
from proof_figures import draw
from segshrink import EvaluationRecord, __version__, paired_bootstrap, welch_interval
from segshrink.evaluation_records import CalibrationRecord
from segshrink.files import read_json, write_json, write_text
from segshrink.machine import describe_machine

JUDGED = "judged.json"
# Points of IoU that are hoped for, by labeled tiles.
BUILDING_GAINS = {25: 5.0, 100: 3.0, 0: 1.0}
# Points of mIoU that are hoped for on Pascal VOC, by labeled images.
VOC_GAINS = {150: 3.0, 0: 1.5}
ESPNET_PAIR = ("voc/espnet-student-*", "voc/espnet-control-*")
# Of the int8 file that is handed over.
SMALL_BYTES = 600_000
# Seconds of a processor a step, and for a teacher's answers or a bank's scores, until some were measured.
EXPECTED = {"teacher": 2.5, "student": 1.0, "answers": 6000.0, "bank": 3000.0}
_ROLES = {"control": "student", "student": "student", "teacher": "teacher", "answers": "answers", "bank": "bank"}


class Results:
    """Records of finished cells, in their folders and together beside the benchmarks.

    Args:
        folder: Where ``proof.json``, ``proof.md``, ``proof.png`` and weights are written.
        runs: Where run folders lie.
        cells: All that are planned.
    """

    def __init__(self, folder: Path, runs: Path, cells: Sequence[Cell]) -> None:
        self.folder, self.runs, self.cells = folder, runs, cells
        self.records: dict[str, dict[str, Any]] = {}
        self.read()

    def read(self) -> None:
        """Read the records that are there, also those that other processes have written meanwhile."""
        file = self.folder / "proof.json"
        self.records |= read_json(file)["cells"] if file.exists() else {}
        for cell in self.cells:
            if (found := self.in_folder(cell)) is not None:
                self.records[cell.name] = found

    def in_folder(self, cell: Cell) -> dict[str, Any] | None:
        """Return the record of a cell whose folder is here and finished."""
        path = self.runs / cell.name / JUDGED
        return read_json(path) if path.exists() else None

    def left(self, cells: Sequence[Cell]) -> list[Cell]:
        """Return the cells to run, in order: without a record, or needed by such a one and their folder is gone."""
        wanted = {cell.name for cell in cells if cell.name not in self.records}
        for cell in reversed([*cells, *cells]):
            if cell.name in wanted:
                wanted |= {need.name for need in cells if need.name in cell.needs and self.in_folder(need) is None}
        return [cell for cell in cells if cell.name in wanted]

    def ready(self, cell: Cell) -> bool:
        """Whether everything that a cell needs is in its folder."""
        return all((self.runs / name / JUDGED).exists() for name in cell.needs)

    def expected_seconds(self, cell: Cell) -> float:
        """Return how long a cell is likely to keep a processor busy."""
        role = _ROLES[cell.role]
        alike = [record for record in self.records.values() if _ROLES[record["role"]] == role]
        costs = [record["processor_seconds"] / max(record["steps"], 1) for record in alike]
        return (median(costs) if costs else EXPECTED[role]) * max(cell.steps, 1)

    def record(
        self,
        cell: Cell,
        evaluation: EvaluationRecord,
        consensus: EvaluationRecord | None,
        *,
        seconds: float,
        pool_agreement: float | None,
        weights: Path,
    ) -> None:
        """Write what a cell came to, the tables, and where it is asked for its weights in half precision."""
        self.records[cell.name] = {
            "cell": cell.name,
            "role": cell.role,
            "steps": cell.steps,
            "seed": cell.seed,
            "processor_seconds": round(seconds, 1),
            "pool_agreement": pool_agreement,
            "segshrink": __version__,
            "machine": describe_machine(),
            "evaluation": _compact(evaluation),
            "consensus": None if consensus is None else _compact(consensus),
        }
        write_json(self.runs / cell.name / JUDGED, self.records[cell.name])
        if cell.keeps_weights:
            kept = self.folder / "proof" / cell.name.replace("/", "-")
            kept.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(weights / "config.json", kept / "config.json")
            tensors = load_file(weights / "model.safetensors")
            halved = {name: each.half() if each.is_floating_point() else each for name, each in tensors.items()}
            save_file(halved, kept / "model.safetensors", metadata={"format": "pt"})
        self.read()
        self.write()

    def write(self) -> None:
        """Write ``proof.json``, ``proof.md`` and ``proof.png``."""
        records = dict(sorted(self.records.items()))
        write_text(self.folder / "proof.json", json.dumps({"cells": records}, separators=(",", ":")) + "\n")
        head = [
            "cell",
            "steps",
            "mIoU",
            "95 % over images",
            "3 px from borders",
            "consensus",
            "as its teacher",
            "on the pool",
            "processor hours",
        ]
        rows = [head, ["---"] * len(head)]
        for name, record in records.items():
            evaluation = EvaluationRecord.model_validate(record["evaluation"])
            consensus = record["consensus"] and EvaluationRecord.model_validate(record["consensus"])
            span = evaluation.interval.mean_iou if evaluation.interval else None
            rows.append(
                [
                    name,
                    str(record["steps"] or "–"),
                    f"{evaluation.scores.mean_iou:.3f}",
                    f"{span[0]:.3f} to {span[1]:.3f}" if span else "–",
                    f"{evaluation.inner.scores.mean_iou:.3f}" if evaluation.inner else "–",
                    f"{consensus.scores.mean_iou:.3f}" if consensus else "–",
                    f"{evaluation.agreement.accuracy:.3f}" if evaluation.agreement else "–",
                    f"{record['pool_agreement']:.3f}" if record["pool_agreement"] else "–",
                    f"{record['processor_seconds'] / 3600:.2f}",
                ]
            )
        table = [f"| {' | '.join(row)} |" for row in rows]
        title = (
            "# Does distillation pay?\n\nWritten by `benchmarks/proof.py`, which explains it. Nothing was chosen on "
        )
        goals = "\n".join(check(self)[0])
        figure, picture = draw(self.records), ""
        if figure is not None:
            figure.savefig(self.folder / "proof.png", dpi=110)
            picture = "![Scores of controls and students over labels and steps, a dot for each seed](proof.png)\n\n"
        write_text(
            self.folder / "proof.md",
            f"{title}what is judged.\n\n{picture}## Goals\n\n```text\n{goals}\n```\n\n"
            + "\n".join([*self.levers_table(), "## Cells", "", *table])
            + "\n",
        )

    def levers_table(self) -> list[str]:
        """Return the lines on what was tried for the goal with all of Pascal VOC's labels; none before it begins."""
        known = {name: self.records.get(f"voc/levers/{name}") for name in ("control", "student", *VOC_LEVERS)}
        scores = {name: each["evaluation"]["scores"]["mean_iou"] for name, each in known.items() if each}
        if not {"control", "student"} < scores.keys():
            return []
        rows = [
            f"| {says} | {scores['student']:.3f} | {scores[name]:.3f} | {record['processor_seconds'] / 60:.0f} |"
            for name, (says, _) in VOC_LEVERS.items()
            if (record := known[name])
        ]
        return [
            "## Tried for the goal with all of Pascal VOC's labels",
            "",
            "3,000 steps on all labeled images but 150, which judge here: nothing is chosen on the images of the goal. "
            f"The control has {scores['control']:.3f}.",
            "",
            "| what | student before | after | processor minutes |",
            "| --- | --- | --- | --- |",
            *rows,
            "",
        ]

    def evaluations(self, pattern: str, seeds: int) -> list[EvaluationRecord] | None:
        """Return the evaluations of a cell's seeds, ``pattern`` with a ``*`` for them; None where one is missing."""
        names = [pattern.replace("*", str(seed)) for seed in range(seeds)]
        if any(name not in self.records for name in names):
            return None
        return [EvaluationRecord.model_validate(self.records[name]["evaluation"]) for name in names]


def plan_table(cells: Sequence[Cell], results: Results) -> list[str]:
    """Return the lines of ``--plan``."""
    left = {cell.name for cell in results.left(cells)}
    lines, done_hours, left_hours = [], 0.0, 0.0
    for cell in cells:
        if cell.name in left:
            hours = results.expected_seconds(cell) / 3600
            left_hours += hours
            state = "failed" if (results.runs / cell.name / "failed.txt").exists() else "left"
            state = state if state == "failed" or results.ready(cell) else "waits"
        else:
            hours = results.records[cell.name]["processor_seconds"] / 3600
            done_hours += hours
            state = "done"
        lines.append(f"{cell.name:36} {cell.role:8} {cell.steps or '':>5} {hours:6.2f} h  {state}")
    return [*lines, f"{len(cells)} cells: {done_hours:.1f} processor hours done, about {left_hours:.1f} left"]


@dataclass(frozen=True)
class Outcome:
    """What one goal came to: a value in points of mIoU or in mIoU, and its intervals where it is a difference."""

    value: float
    seeds: str
    over_seeds: tuple[float, float] | None = None
    over_images: tuple[float, float] | None = None
    holds: bool = True


@dataclass(frozen=True)
class Goal:
    """A line of the check; ``measure`` gives None where a run is missing."""

    text: str
    least: float
    measure: Callable[[Results], Outcome | None]


def check(results: Results) -> tuple[list[str], bool]:
    """Return a line for each goal, and whether all were tried.

    A goal is met where its value is reached and no interval holds 0, unsure where one does.
    """
    lines, tried = [], True
    for goal in GOALS:
        outcome = goal.measure(results)
        if outcome is None:
            lines.append(f"untried  {goal.text} >= {goal.least:g}")
            tried = False
            continue
        spans = ((outcome.over_seeds, "over seeds"), (outcome.over_images, "over images"))
        shown = "".join(f", {span[0]:+.2f} to {span[1]:+.2f} {what}" for span, what in spans if span)
        sure = all(span[0] > 0 for span, _ in spans if span)
        verdict = "missed" if outcome.value < goal.least or not outcome.holds else "met" if sure else "unsure"
        lines.append(f"{verdict:7}  {goal.text} >= {goal.least:g}: {outcome.value:.3g}{shown} ({outcome.seeds})")
    return lines, tried


def _score(name: str) -> Callable[[Results], Outcome | None]:
    def measure(results: Results) -> Outcome | None:
        found = results.evaluations(name, 1)
        return Outcome(found[0].scores.mean_iou, "one bank") if found else None

    return measure


def _above_best_member(results: Results) -> Outcome | None:
    """Compare five students of 8,000 steps with the best single teacher, one pass each."""
    students, members = results.evaluations("dubai/pool-8000-*", 5), results.evaluations("dubai/bank/member-*", 5)
    return _difference(students, [max(members, key=_mean_iou)]) if students and members else None


def _above_controls(results: Results) -> Outcome | None:
    """Compare five students with the best of the control's three lengths."""
    students = results.evaluations("dubai/pool-8000-*", 5)
    lengths = [results.evaluations(f"dubai/control-{steps}-*", seeds) for steps, seeds in LENGTHS]
    known = [controls for controls in lengths if controls]
    if students is None or len(known) < len(lengths):
        return None
    return _difference(students, max(known, key=lambda controls: mean(map(_mean_iou, controls))))


def _above_consistency(results: Results) -> Outcome | None:
    students, others = results.evaluations("dubai/pool-4000-*", 2), results.evaluations("dubai/consistency-4000-*", 2)
    return _difference(students, others) if students and others else None


def _leave_one_out(results: Results) -> Outcome | None:
    """Return the mean gain over the groups left out, which must be positive in three of four."""
    gains = []
    for name in GROUPS:
        student, control = (results.evaluations(f"groups/{name}/{kind}", 1) for kind in ("pool", "control"))
        if student is None or control is None:
            return None
        gains.append(100 * (_mean_iou(student[0]) - _mean_iou(control[0])))
    each = ", ".join(f"{name}: {gain:+.1f}" for name, gain in zip(GROUPS, gains, strict=True))
    return Outcome(mean(gains), each, holds=sum(gain > 0 for gain in gains) >= 3)


def _buildings(place: str, count: int, seeds: int) -> Callable[[Results], Outcome | None]:
    """Return the measure of the buildings' IoU above the control's, in points, with few labeled tiles of a place."""

    def measure(results: Results) -> Outcome | None:
        sides = [results.evaluations(f"buildings/{place}-{count}/{kind}-*", seeds) for kind in ("pool", "control")]
        if sides[0] is None or sides[1] is None:
            return None
        one, other = ([100 * (each.scores.iou[1] or 0.0) for each in side] for side in (sides[0], sides[1]))
        return Outcome(mean(one) - mean(other), f"{seeds} seeds each", welch_interval(one, other))

    return measure


def _pair(student: str, control: str, seeds: int) -> Callable[[Results], Outcome | None]:
    """Return the measure of students' mIoU above their controls', in points."""

    def measure(results: Results) -> Outcome | None:
        sides = [results.evaluations(name, seeds) for name in (student, control)]
        return _difference(sides[0], sides[1]) if sides[0] and sides[1] else None

    return measure


def _espnet(results: Results) -> Outcome | None:
    """Return the mean mIoU of ESPNetv2's students."""
    found = results.evaluations("voc/espnet-student-*", ESPNET_SEEDS)
    return Outcome(mean(map(_mean_iou, found)), f"{ESPNET_SEEDS} seeds") if found else None


def _small_file(results: Results) -> Outcome | None:
    """Return how many times as fast the small file is, which must be small and as good, as ``proof_int8.py`` found."""
    file = results.folder / "proof_int8.json"
    if not file.exists():
        return None
    found = read_json(file)
    (chosen,) = (student for student in found["students"] if student["run"] == found["chosen"])
    latency, score, whole = found["latency_ms"], chosen["file_judged"], chosen["whole_judged"]
    times = {count: latency["teacher"][count] / latency["handed over"][count] for count in latency["teacher"]}
    each = ", ".join(f"{value:.1f} with threads: {count}" for count, value in times.items())
    told = f"{each}; {chosen['bytes'] / 1000:.0f} kB, mIoU {score:.3f}, in float32 {whole:.3f}"
    good = score >= max(whole, found["teacher"]["mean_iou"]) and chosen["bytes"] < SMALL_BYTES
    return Outcome(min(times.values()), told, holds=good)


def _difference(first: Sequence[EvaluationRecord], second: Sequence[EvaluationRecord]) -> Outcome:
    """Return the difference of the mean mIoUs in points, with its intervals."""
    one, other = list(map(_mean_iou, first)), list(map(_mean_iou, second))
    welch, images = welch_interval(one, other), paired_bootstrap(first, second)
    return Outcome(
        100 * (mean(one) - mean(other)),
        f"{len(one)} and {len(other)} seeds",
        welch and (100 * welch[0], 100 * welch[1]),
        (100 * images[0], 100 * images[1]),
    )


def _mean_iou(evaluation: EvaluationRecord) -> float:
    return evaluation.scores.mean_iou


def _compact(evaluation: EvaluationRecord) -> dict[str, Any]:
    """Return an evaluation without curves and pictures."""
    images = tuple(image.model_copy(update={"pictures": None}) for image in evaluation.per_image)
    changes = {"curves": (), "pooled_curve": None, "calibration": CalibrationRecord(), "per_image": images}
    return evaluation.model_copy(update=changes).to_json()


GOALS = (
    Goal(
        "Dubai: student of the recipe's one teacher - control, 4,000 steps each, points",
        2.0,
        _pair(f"{ONE_STUDENTS}-*", "dubai/control-4000-*", 2),
    ),
    Goal("Dubai: bank, mean over mirror images and zooms, mIoU", 0.69, _score("dubai/bank")),
    Goal("Dubai: student - best single teacher, points", 0.0, _above_best_member),
    Goal("Dubai: student - best length of control, points", 2.0, _above_controls),
    Goal("Dubai: student - labels with consistency on the pool, points", 0.7, _above_consistency),
    Goal("Dubai: leave one group out, mean gain, points", 1.5, _leave_one_out),
    *(
        Goal(
            f"Buildings: {place}, {count or 'all'} labeled tiles, student - control, points of IoU",
            BUILDING_GAINS[count],
            _buildings(place, count, seeds),
        )
        for count, seeds in BUILDINGS
        for place in PLACES
    ),
    *(
        Goal(
            f"Pascal VOC: student - control, {count or 'all'} labels, points",
            VOC_GAINS[count],
            _pair(f"voc/student-{count}-*", f"voc/control-{count}-*", seeds),
        )
        for count, seeds in VOC
    ),
    Goal("Pascal VOC: student - control, ESPNetv2 s1.5, points", 1.0, _pair(*ESPNET_PAIR, ESPNET_SEEDS)),
    Goal("Pascal VOC: ESPNetv2 s1.5, mIoU", 0.6, _espnet),
    Goal("int8: times as fast as the best single teacher in fp32, below 600 kB and as good", 20.0, _small_file),
)
