"""The runs that a report compares: what their folders hold, how they are called, and which may be compared."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import get_args

from segshrink.errors import FileError
from segshrink.evaluation_records import EvaluationRecord
from segshrink.run_folder import RECORDS, Metrics, RunFolder
from segshrink.run_records import ProfileRecord, Role, RunRecord

ROLES: tuple[Role, ...] = get_args(Role)


@dataclass(frozen=True)
class Run:
    """One run folder.

    Attributes:
        folder: The folder.
        record: ``run.json``; where there is none, nothing but the role that the folder's place tells.
        evaluation: None where the model wasn't evaluated.
        profile: None where it wasn't measured.
        metrics: Columns of ``metrics.csv``, empty where there is none.
        label: A short name, unique in the report: its role, with its name where several share a role.
        shade: Its place among the runs of its role, which chooses its color.
    """

    folder: RunFolder
    record: RunRecord
    evaluation: EvaluationRecord | None = None
    profile: ProfileRecord | None = None
    metrics: Metrics = field(default_factory=dict)
    label: str = ""
    shade: int = 0

    @property
    def role(self) -> Role:
        """What it is to the others."""
        return self.record.role

    @property
    def name(self) -> str:
        """The run's own name."""
        return self.record.name or self.folder.path.resolve().name

    @property
    def parameters(self) -> int | None:
        """Number of weights, from the profile or else from the evaluation."""
        if self.profile and self.profile.parameters is not None:
            return self.profile.parameters
        return self.evaluation.model.parameters if self.evaluation else None

    @property
    def mean_iou(self) -> float | None:
        """The mIoU of its evaluation."""
        return self.evaluation.scores.mean_iou if self.evaluation else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """The interval of its mIoU."""
        return self.evaluation.interval.mean_iou if self.evaluation and self.evaluation.interval else None

    @property
    def latency(self) -> float | None:
        """Median milliseconds for one image."""
        return self.profile.latency_ms.median if self.profile and self.profile.latency_ms else None

    @property
    def judged_by_teacher(self) -> bool:
        """Whether its scores are the agreement with the teacher, for want of masks."""
        return self.evaluation is not None and self.evaluation.truth == "teacher"

    @property
    def leaking(self) -> bool:
        """Whether its scores come from a leaking split."""
        return self.evaluation is not None and self.evaluation.leaking


def collect(folders: Sequence[Path]) -> list[Run]:
    """Read run folders, each with its ``teacher`` and ``control`` when it has them, in the order teacher to student.

    A ``teacher`` that is known not to be the one that the student learned from is left out.

    Raises:
        FileError: A folder is missing or is no run folder, or a file in it is unreadable.
        DataError: A file holds something else than it should.
    """
    if not folders:
        raise FileError("no run folder is given; name at least one")
    runs: dict[Path, Run] = {}
    for folder in map(RunFolder, folders):
        if not folder.path.is_dir():
            raise FileError(f"{folder.path} is not a folder; give the folder of a run")
        if not folder.is_run:
            raise FileError(f"{folder.path} holds none of {', '.join(RECORDS)}; give the folder that a run wrote")
        places: tuple[tuple[RunFolder, Role], ...]
        places = ((folder.control, "control"), (folder, "model"))
        if not _describes_another_teacher(folder):
            places = ((folder.teacher, "teacher"), *places)
        for place, role in places:
            if place.is_run and (path := place.path.resolve()) not in runs:
                runs[path] = _read(place, role)
    return _labeled(sorted(_without_copies(runs.values()), key=lambda run: ROLES.index(run.role)))


def focus(runs: Sequence[Run]) -> Run | None:
    """Return the run the page is about: the first evaluated student, else the last evaluated run."""
    evaluated = [run for run in runs if run.evaluation]
    return next((run for run in evaluated if run.role == "student"), evaluated[-1] if evaluated else None)


def first(runs: Sequence[Run], role: Role) -> Run | None:
    """Return the first run of ``role``, evaluated ones before others."""
    matching = [run for run in runs if run.role == role]
    return next((run for run in matching if run.evaluation), matching[0] if matching else None)


def comparable(run: Run | None, other: Run | None) -> bool:
    """Whether two runs were judged on the same split of the same data with the same classes and pixels."""
    if run is None or other is None or run.evaluation is None or other.evaluation is None:
        return False
    return run.evaluation.is_comparable(other.evaluation)


def same_machine(run: Run | None, other: Run | None) -> bool:
    """Whether two profiles were measured alike: same processor, threads and image size."""
    if run is None or other is None or run.profile is None or other.profile is None:
        return False
    return measured_with(run.profile) == measured_with(other.profile)


def measured_with(profile: ProfileRecord) -> tuple[str | None, int | None, tuple[int, ...]]:
    """Return what a latency depends on beside the model: processor, threads and image size."""
    threads = profile.latency_ms.threads if profile.latency_ms else None
    return profile.machine.cpu, threads, profile.input[-2:]


def timed_together(profiles: Sequence[ProfileRecord]) -> bool:
    """Whether models were timed in turns; one alone was."""
    sessions = {profile.session for profile in profiles}
    return len(profiles) < 2 or (len(sessions) == 1 and None not in sessions)


def _describes_another_teacher(folder: RunFolder) -> bool:
    """Whether the teacher that is described inside a student's folder is known not to be the one that taught it."""
    if not (folder.has_run and folder.teacher.has_run):
        return False
    identities = {folder.run().teacher_identity, folder.teacher.run().identity}
    return len(identities - {None}) > 1


def _read(folder: RunFolder, role: Role) -> Run:
    return Run(
        folder,
        folder.run() if folder.has_run else RunRecord(role=role),
        folder.evaluation() if folder.has_evaluation else None,
        folder.profile() if folder.has_profile else None,
        folder.metrics(),
    )


def _without_copies(runs: Iterable[Run]) -> list[Run]:
    """Drop further copies of a teacher: student runs of several seeds each carry the same one."""
    kept: dict[object, Run] = {}
    for run in runs:
        confusion = run.evaluation.confusion if run.evaluation else ()
        copied = (run.name, run.record.seed, run.record.created, confusion)
        kept.setdefault(copied if run.role == "teacher" else id(run), run)
    return list(kept.values())


def _labeled(runs: Sequence[Run]) -> list[Run]:
    """Give each run its label and its shade."""
    roles = [run.role for run in runs]
    texts = []
    for run in runs:
        role = run.role.capitalize()
        alone = role if roles.count(run.role) == 1 else f"{role} {run.name}"
        texts.append(run.name if run.role == "model" else alone)
    return [
        replace(
            run,
            label=text if texts.count(text) == 1 else f"{text} ({texts[: place + 1].count(text)})",
            shade=roles[:place].count(run.role),
        )
        for place, (run, text) in enumerate(zip(runs, texts, strict=True))
    ]
