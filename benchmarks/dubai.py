"""Distil a small network for the Dubai aerial scenes and compare it with its control, honestly.

    python benchmarks/dubai.py --data ../shared/data/dubai --weights ../shared/weights/mobilenet_v2_imagenet.safetensors

Stages, each a run folder under ``--out`` that is skipped when finished and resumed when interrupted:

- ``teacher``: the recipe's teacher, once.
- ``students``: three seeds of the same network with the same steps, without (control) and with the teacher, side by
  side. The teacher's answers come from its cache, so both take nearly the same time; the results say how long.
- ``groups``: leave-one-group-out over {4, 7, 8}, {2}, {5}, {6}: teacher, control and student, shorter, all alike.
- ``patches``: the tutorials' protocol, 256-pixel patches shuffled 80/20. It leaks, and is labeled so.

``--only STAGE`` runs one; ``benchmarks/dubai_results.py`` writes the results of all finished runs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

from segshrink.allocator import restart_with_tuned_allocator

if TYPE_CHECKING:
    from segshrink.training.run import Role

ROOT = Path(__file__).resolve().parents[1]
SEEDS = (0, 1, 2)
GROUPS = {
    "tiles-4-7-8": ["Tile 4", "Tile 7", "Tile 8"],
    "tile-2": ["Tile 2"],
    "tile-5": ["Tile 5"],
    "tile-6": ["Tile 6"],
}
STAGES = ("teacher", "students", "groups", "patches")


@dataclass(frozen=True)
class Job:
    """One training: where it goes, what it is, and how it differs from ``configs/dubai.yaml``."""

    out: Path
    role: Role
    overrides: tuple[str, ...]
    teacher: Path | None = None


def jobs_of(stage: str, out: Path, common: tuple[str, ...], short: dict[str, int]) -> list[list[Job]]:
    """Return a stage's jobs in waves; the jobs of a wave may run side by side."""
    if stage == "teacher":
        return [[Job(out / "teacher", "teacher", common)]]
    if stage == "students":
        return [
            [
                Job(out / f"control-{seed}", "control", (*common, f"seed={seed}")),
                Job(out / f"student-{seed}", "student", (*common, f"seed={seed}"), out / "teacher"),
            ]
            for seed in SEEDS
        ]
    brief: tuple[str, ...] = (
        f"teacher.training.epochs={short['teacher']}",
        f"student.training.epochs={short['student']}",
    )
    if stage == "patches":
        brief = (*brief, "data.split={patches: 256, share: 0.2}")
        return _trio(out / "patches", (*common, *brief))
    folds = [_trio(out / "groups" / name, (*common, *brief, _held_out(name))) for name in GROUPS]
    return [[job for fold in folds for job in fold[0]], [job for fold in folds for job in fold[1]]]


def _trio(out: Path, overrides: tuple[str, ...]) -> list[list[Job]]:
    teacher = out / "teacher"
    return [
        [Job(teacher, "teacher", overrides)],
        [Job(out / "control", "control", overrides), Job(out / "student", "student", overrides, teacher)],
    ]


def _held_out(name: str) -> str:
    groups = ", ".join(f"{group}: {tiles}" for group, tiles in GROUPS.items())
    return f"data.split={{groups: {{{groups}}}, held_out: {name}}}"


def run(job: Job) -> str:
    """Train, evaluate and measure one job; a finished one is left as it is."""
    from segshrink.config import load_recipe
    from segshrink.data import open_dataset
    from segshrink.teachers import open_teacher
    from segshrink.training import evaluate_run, train

    if (job.out / "evaluation.json").exists():
        return f"{job.out.name}: done before"
    recipe = load_recipe(ROOT / "configs" / "dubai.yaml", [*job.overrides])
    dataset = open_dataset(recipe.data)
    teacher = open_teacher(job.teacher, dataset.classes) if job.teacher else None
    if teacher is not None and job.teacher is not None:
        teacher.name = job.teacher.name
    result = train(recipe, out=job.out, role=job.role, teacher=teacher, dataset=dataset, resume=True)
    evaluate_run(job.out, dataset)
    return f"{job.out.name}: val mIoU {result.mean_iou:.3f}, {result.steps} steps, {result.seconds / 60:.1f} min"


def main(arguments: Sequence[str]) -> None:
    """Run the stages asked for, ``--processes`` trainings side by side on ``--threads`` threads each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with 'Tile 2' ...")
    parser.add_argument("--weights", type=Path, required=True, help="ImageNet MobileNetV2, safetensors")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "benchmark-dubai")
    parser.add_argument("--only", choices=STAGES, action="append", default=None)
    parser.add_argument("--short-teacher", type=int, default=4, help="epochs of 592 crops in groups and patches")
    parser.add_argument("--short-student", type=int, default=4, help="the same for student and control")
    parser.add_argument("--processes", type=int, default=2, help="trainings side by side")
    parser.add_argument("--threads", type=int, default=1, help="threads of each training")
    given = parser.parse_args(arguments)
    common = (
        f"data.root={given.data.resolve()}",
        # The student is the first twelve blocks of this teacher's encoder with a lighter decoder.
        "teacher.model.id=smp:Unet/mobilenet_v2",
        "distillation.inherit_encoder=true",
        f"teacher.model.encoder_weights={given.weights.resolve()}",
        f"student.model.encoder_weights={given.weights.resolve()}",
        f"teacher.training.threads={given.threads}",
        f"student.training.threads={given.threads}",
    )
    short = {"teacher": given.short_teacher, "student": given.short_student}
    with ProcessPoolExecutor(given.processes, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        for stage in given.only or STAGES:
            for wave in jobs_of(stage, given.out, common, short):
                for line in pool.map(run, wave):
                    print(line, flush=True)


if __name__ == "__main__":
    restart_with_tuned_allocator()
    main(sys.argv[1:])
