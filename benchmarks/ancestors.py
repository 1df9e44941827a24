"""Five student projects, run again: their networks and settings, a control beside each student.

    export SEGSHRINK_RUNS=/runs                     # outside the checkout
    while python benchmarks/ancestors.py; do :; done   # one training each time; resumes; status 1 when none is left

A to D distilled the U-Net of the Keras tutorials into one with half the filters on the Dubai scenes
(``configs/ancestors/half-unet.yaml``): with their alpha and temperature, with the losses of ``configs/dubai.yaml``, on
tiles nobody trained on and on their leaking patches, for the 1,300 steps of their ten epochs; and the same two networks
with all of our settings for as many steps. The average of three teachers, and a student of it. What the doctor says
about their faults, put back in. E taught a separable U-Net on Pascal VOC: ``configs/ancestors/separable-unet.yaml``
with DeepLab's TFLite file for the teacher, 4,000 steps of four crops. Nothing is chosen on the scenes that judge: every
training hands over its last state. One thread each; several processes may run side by side. Results go to
``benchmarks/results/ancestors.*``: what they hold is trained again only where something that is left to do needs its
folder.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from locks import locked
from segshrink import (
    EvaluationRecord,
    Recipe,
    RunFolder,
    Teacher,
    diagnose,
    evaluate,
    load_recipe,
    open_dataset,
    open_teachers,
)
from segshrink.allocator import restart_with_tuned_allocator
from segshrink.config import TeacherSource, distillation_overrides
from segshrink.files import read_json, write_json, write_text
from segshrink.training import train
from segshrink.training.run import Role

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "configs"
JUDGED, SAID = "judged.json", "faults.json"
# On their pages, of their own leaking split.
THEIRS = {"accuracy": 0.556, "mean_iou": 0.20, "weighted_f1": 0.43}
PATCHES = "data.split={patches: 256, share: 0.2}"
OUR_LOSSES = (
    "distillation.terms=[{name: cross_entropy, weight: 0.25, options: {label_smoothing: 0.05}}, "
    "{name: jaccard, weight: 0.35}, {name: pixel_kl, weight: 0.5}, {name: soft_jaccard, weight: 0.35}]"
)
OUR_SETTINGS = (
    "crops.per_epoch=1040",
    *(
        f"{role}.{key}"
        for role, width in (("teacher", 16), ("student", 8))
        for key in (
            f"model={{id: unet, options: {{width: {width}}}}}",
            "training.epochs=10",
            "training.learning_rate=0.003",
        )
    ),
)
# DeepLab is asked about the images as they are, by tiles of its 257 pixels.
ON_VOC = (
    "distillation.teachers=[{source: 'tflite:WEIGHTS/deeplabv3_257_mv_gpu.tflite', "
    "adapter: {fit: tile, mean: 127.5, std: 127.5}}]",
    "crops={size: 192, batch_size: 4, per_epoch: 800, draw: image}",
    "student.training.epochs=20",
    "student.training.validate_every=20",
)
HALF_UNET, SEPARABLE_UNET = "ancestors/half-unet.yaml", "ancestors/separable-unet.yaml"


@dataclass(frozen=True)
class Cell:
    """One training, or others' answers: its name, what it is, its teachers' names, and how its recipe differs."""

    name: str
    says: str
    role: Role | None
    overrides: tuple[str, ...] = ()
    teachers: tuple[str, ...] = ()
    config: str = HALF_UNET


def _theirs(name: str, says: str, *overrides: str) -> list[Cell]:
    teacher = (f"{name}/teacher",)
    return [
        Cell(f"{name}/teacher", f"U-Net 16, {says}", "teacher", overrides),
        Cell(f"{name}/control", f"U-Net 8, {says}, labels only", "control", overrides),
        Cell(f"{name}/student", f"U-Net 8, {says}, their alpha and T", "student", overrides, teacher),
    ]


def _tiles(seed: int) -> list[Cell]:
    name, overrides = f"tiles-{seed}", (f"seed={seed}",)
    ours = Cell(
        f"{name}/student-our-losses",
        "U-Net 8, tiles, our losses",
        "student",
        (*overrides, OUR_LOSSES),
        (f"{name}/teacher",),
    )
    return [*_theirs(name, "tiles", *overrides), ours]


def _ours() -> list[Cell]:
    says = "tiles, all of our settings"
    return [
        Cell("ours/teacher", f"U-Net 16, {says}", "teacher", OUR_SETTINGS, (), "dubai.yaml"),
        Cell("ours/control", f"U-Net 8, {says}, labels only", "control", OUR_SETTINGS, (), "dubai.yaml"),
        Cell("ours/student", f"U-Net 8, {says}", "student", OUR_SETTINGS, ("ours/teacher",), "dubai.yaml"),
    ]


def _average() -> list[Cell]:
    three = ("tiles-0/teacher", "tiles-1/teacher", "tiles-2/teacher")
    return [
        Cell("tiles-2/teacher", "U-Net 16, tiles", "teacher", ("seed=2",)),
        Cell("average/teacher", "mean of three U-Nets 16", None, (), three),
        Cell("average/student", "U-Net 8, tiles, our losses, taught by the mean", "student", (OUR_LOSSES,), three),
    ]


def _separable() -> list[Cell]:
    says = "separable U-Net, VOC"
    return [
        Cell("voc/teacher", "DeepLab, VOC", None, ON_VOC, (), SEPARABLE_UNET),
        Cell("voc/control", f"{says}, labels only", "control", ON_VOC, (), SEPARABLE_UNET),
        Cell("voc/student", f"{says}, their alpha and T", "student", ON_VOC, (), SEPARABLE_UNET),
    ]


CELLS = [*_tiles(0), *_theirs("patches", "their patches", PATCHES), *_ours(), *_tiles(1), *_average(), *_separable()]


class Ancestors:
    """The runs on this machine: where data, run folders and results lie."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.data: Path = given.data.resolve()
        self.weights: Path = given.weights.resolve()
        self.runs: Path = given.runs.resolve() / "ancestors"
        self.file: Path = given.results / "ancestors.json"

    def recipe(self, cell: Cell) -> Recipe:
        """Return what a cell trains."""
        on_voc = cell.config == SEPARABLE_UNET
        overrides = [
            *(override.replace("WEIGHTS/", f"{self.weights}/") for override in cell.overrides),
            f"data.root={self.data / ('VOCdevkit/VOC2012' if on_voc else 'dubai')}",
            *([] if on_voc else ["teacher.training.threads=1"]),
            "student.training.threads=1",
            f"distillation.teacher_cache={self.runs / 'answers'}",
        ]
        if cell.teachers:
            overrides += distillation_overrides([self.runs / name for name in cell.teachers])
        return load_recipe(CONFIGS / cell.config, overrides)

    def left(self) -> list[Cell]:
        """Return the cells to run, in order: without a record, or needed by what is left to do and not here."""
        wanted = {cell.name for cell in CELLS if cell.name not in self.cells}
        needed = {name for cell in CELLS if cell.name in wanted for name in cell.teachers}
        if not self.doctor:
            needed.add(CELLS[0].name)
        return [cell for cell in CELLS if cell.name in wanted | needed and not self.judged(cell.name).exists()]

    def judged(self, name: str) -> Path:
        """Return the file of a cell's record in its folder."""
        return self.runs / name / JUDGED

    def run_next(self) -> bool:
        """Run the first cell that isn't done and that nobody runs; tell whether there was one."""
        if not self.doctor and self.judged(CELLS[0].name).exists():
            with locked(self.runs / ".locks" / "faults.lock") as mine:
                if mine:
                    write_json(self.runs / SAID, self.faults())
                    return True
        for cell in self.left():
            if not all(self.judged(name).exists() for name in cell.teachers):
                continue
            with locked(self.runs / ".locks" / f"{cell.name.replace('/', '-')}.lock") as mine:
                if mine and not self.judged(cell.name).exists():
                    print(f"{cell.name}: begins", flush=True)
                    self.run(cell)
                    return True
        return False

    def run(self, cell: Cell) -> None:
        """Train, judge and record a cell."""
        recipe, folder = self.recipe(cell), RunFolder(self.runs / cell.name)
        dataset = open_dataset(recipe.data)

        def teacher() -> Teacher:
            return open_teachers(recipe.distillation, dataset.classes, bands=dataset.bands)

        if cell.role is None:
            judged = evaluate(teacher(), dataset, out=folder.path, name="average", pictures=0)
        else:
            taught = teacher if cell.role == "student" else None
            train(recipe, out=folder.path, role=cell.role, teacher=taught, dataset=dataset, resume=True)
            judged = evaluate(folder.model, dataset, out=folder.path, name=cell.role, pictures=0)
        write_json(self.judged(cell.name), self.record(cell, folder, judged))
        print(f"{cell.name}: mIoU {judged.scores.mean_iou:.3f}", flush=True)

    def record(self, cell: Cell, folder: RunFolder, judged: EvaluationRecord) -> dict[str, Any]:
        """Return what a cell came to."""
        run = folder.run() if cell.role is not None else None
        per_image = [image.mean_iou for image in judged.per_image if image.mean_iou is not None]
        return {
            "cell": cell.name,
            "says": cell.says,
            "role": cell.role or "average",
            "leaking": judged.leaking,
            "parameters": judged.model.parameters,
            "mean_iou": judged.scores.mean_iou,
            "mean_of_images": statistics.mean(per_image),
            "accuracy": judged.scores.accuracy,
            **{
                f"weighted_{name}": getattr(judged.scores, f"weighted_{name}") for name in ("precision", "recall", "f1")
            },
            "iou": dict(zip([entry.name for entry in judged.classes], judged.scores.iou, strict=True)),
            "steps": None if run is None else run.steps,
            "processor_seconds": None if run is None else run.processor_seconds,
            "peak_memory_mb": None if run is None else run.peak_memory_mb,
            "seed": None if run is None else run.seed,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": None if run is None else run.machine.model_dump(exclude_none=True),
        }

    def faults(self) -> dict[str, list[str]]:
        """Return what the doctor says first about each fault, put back into the teacher of their tiles."""
        from ancestor_faults import FAULTS

        recipe = self.recipe(CELLS[0])
        folder = self.runs / "tiles-0" / "teacher"
        said: dict[str, list[str]] = {"none": self.said(recipe, TeacherSource(source=str(folder)))}
        for fault in FAULTS:
            options = {"path": str(folder), "fault": fault}
            source = TeacherSource(source="ancestor_faults:faulty", options=options, adapter={"output": "logits"})
            said[fault] = self.said(recipe, source)
        return said

    def said(self, recipe: Recipe, source: TeacherSource) -> list[str]:
        """Return the doctor's sentences about a teacher, the worst first."""
        teaching = recipe.distillation.model_copy(update={"teachers": [source], "teacher_cache": False})
        findings = diagnose(recipe.model_copy(update={"distillation": teaching})).findings
        return [f"{one.severity}: {one.message}" for one in findings if one.severity != "fine"]

    def write(self) -> None:
        """Write what is done so far."""
        cells, doctor = self.cells, self.doctor
        records = [cells[cell.name] for cell in CELLS if cell.name in cells]
        if records:
            write_json(self.file, {"published": THEIRS, "cells": records, "faults": doctor})
            write_text(self.file.with_suffix(".md"), "\n".join(page(records, doctor)) + "\n")

    @property
    def cells(self) -> dict[str, dict[str, Any]]:
        """Records by name: of the results, and of the folders here."""
        known = read_json(self.file)["cells"] if self.file.exists() else []
        here = [read_json(self.judged(cell.name)) for cell in CELLS if self.judged(cell.name).exists()]
        return {record["cell"]: record for record in (*known, *here)}

    @property
    def doctor(self) -> dict[str, list[str]]:
        """What the doctor says, from the folder here or the results; empty where it wasn't asked."""
        here = self.runs / SAID
        found: dict[str, list[str]] = {}
        if here.exists():
            found = read_json(here)
        elif self.file.exists():
            found = read_json(self.file)["faults"]
        return found


def page(records: Sequence[dict[str, Any]], faults: dict[str, list[str]]) -> list[str]:
    """Return the lines of the results' page."""
    machine = next(record["machine"] for record in records if record["machine"])
    lines = [
        "# Five student projects, run again",
        "",
        f"Written by `python benchmarks/ancestors.py`, {records[-1]['date']}, {machine['cpu']}, torch "
        f"{machine['torch']}, one thread. Tiles 2 and 5, on which nobody trained, judge; the patches are their own "
        "split, with parts of one scene on both sides. 1,300 steps each. On VOC, 4,000 steps, images of val.txt judge "
        f"at their own size. Their page says for the student on patches: accuracy {THEIRS['accuracy']}, mIoU "
        f"{THEIRS['mean_iou']}, weighted F1 {THEIRS['weighted_f1']}.",
        "",
        "| what | seed | mIoU | mean of images' mIoU | accuracy | precision | recall | F1 | classes of IoU < 0.01 | "
        "processor minutes | peak MB |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- | ---: | ---: |",
    ]
    for one in records:
        lost = [name for name, iou in one["iou"].items() if iou is None or iou < 0.01]
        cells = [
            one["says"] + (" (leaks)" if one["leaking"] else ""),
            "–" if one["seed"] is None else str(one["seed"]),
            *(f"{one[name]:.3f}" for name in ("mean_iou", "mean_of_images", "accuracy")),
            *(f"{one[f'weighted_{name}']:.3f}" for name in ("precision", "recall", "f1")),
            ", ".join(lost) or "none",
            "–" if one["processor_seconds"] is None else f"{one['processor_seconds'] / 60:.1f}",
            "–" if one["peak_memory_mb"] is None else f"{one['peak_memory_mb']:.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "Precision, recall and F1 are weighted by the classes' true pixels.", ""]
    if faults:
        lines += ["## What the doctor says when their faults are put back in", ""]
        lines += [f"- **{fault}**: {' / '.join(said) or 'nothing'}" for fault, said in faults.items()]
    return lines


def main(arguments: Sequence[str]) -> int:
    """Run the next cell and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    home = Path(os.environ.get("SEGSHRINK_RUNS", ROOT.parent / "runs"))
    data = Path(os.environ.get("SEGSHRINK_DATA", ROOT.parent / "shared" / "data"))
    parser.add_argument("--runs", type=Path, default=home, help="run folders; by default $SEGSHRINK_RUNS")
    parser.add_argument("--data", type=Path, default=data, help="data sets; by default $SEGSHRINK_DATA")
    parser.add_argument("--weights", type=Path, default=ROOT.parent / "shared" / "weights", help="DeepLab's file")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    ancestors = Ancestors(parser.parse_args(arguments))
    ran = ancestors.run_next()
    ancestors.write()
    return 0 if ran else 1


if __name__ == "__main__":
    restart_with_tuned_allocator()
    sys.exit(main(sys.argv[1:]))
