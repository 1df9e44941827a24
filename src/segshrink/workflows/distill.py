"""Distillation from end to end: teacher, doctor, student, control, measurements, report."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from segshrink.config import Distillation, Recipe, TeacherSource, Teaching, as_recipe, distillation_overrides
from segshrink.data import Dataset, SceneStore
from segshrink.errors import ConfigError, TrainingError
from segshrink.files import writing
from segshrink.folder_lock import claimed
from segshrink.formatting import listing
from segshrink.losses import WeightedTerm
from segshrink.report import report as write_report
from segshrink.run_folder import RunFolder
from segshrink.teachers import Teacher, open_teachers
from segshrink.teachers.torch_teacher import for_crops
from segshrink.training.build_student import check_chosen, check_teacher_bands
from segshrink.training.features import check_own_taps
from segshrink.training.hardware import check_memory, lightning_precision, use_free_threads
from segshrink.training.lightning_fit import quieten_lightning
from segshrink.training.resume import check_same_teacher
from segshrink.training.terms import check_teacher, student_terms, teaching_temperature
from segshrink.user_code import trusted_functions
from segshrink.workflows.advantage import check_advantage
from segshrink.workflows.diagnose import diagnose_briefly
from segshrink.workflows.progress import Progress, silent
from segshrink.workflows.time_limit import TimeLimit, seconds_of
from segshrink.workflows.train import (
    measure_run,
    score_teacher,
    time_runs,
    train_role,
    train_teacher,
)
from segshrink.workflows.unlabeled import with_judge
from segshrink.workflows.web_page import write_web_page

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class DistillResult:
    """A student beside its teacher and its control.

    Attributes:
        folder: The student's run folder.
        mean_iou: By "student", "teacher" and, where it was trained, "control": on the validation split, 0 to 1.
        report: The page that compares them.
    """

    folder: Path
    mean_iou: dict[str, float]
    report: Path


def distill(
    recipe: Recipe | str | Path,
    *,
    out: str | Path,
    teacher: str | Path | Sequence[str | Path] = (),
    student: str | None = None,
    control: bool = False,
    resume: bool = False,
    doctor: bool = True,
    force: bool = False,
    time: str | float | None = None,
    progress: Progress = silent,
) -> DistillResult:
    """Teach a small student with a big teacher, and measure and report what came of it.

    A control is trained first: it says how much there is to distil. ``out/map.html`` is the student as a page for
    browsers, where it can be exported.

    Args:
        recipe: The recipe, or its file; when nothing names a teacher, its own is trained into ``out/teacher-run``.
        out: The student's run folder; the control goes to ``out/control``, the teacher's measures to ``out/teacher``.
        teacher: Sources instead of the recipe's teachers: a run or model folder, ``smp:...``, ``torchvision:...``,
            ``hf:...``, ``onnx:FILE``, ``tflite:FILE``, ``keras:FILE``, ``labels:FOLDER``, ``module:function``; several
            are averaged.
        student: Network id or model folder instead of the recipe's student.
        control: Also train the same student without the teacher.
        resume: Go on with what an interrupted call left; what is finished is skipped.
        doctor: Look for what keeps the teacher from teaching before the student's training begins.
        force: Train the student even where the teacher leads the control by too little.
        time: Choose the steps so that all of it ends in time, such as "2h" or seconds; the recipe's epochs stay, and
            with ``resume`` what was chosen before.
        progress: Told how far each stage has come.

    Raises:
        ConfigError: The recipe has no student or a wrong one, or the run in ``out`` learned from another teacher.
        FileError: A file is missing; ``out`` is in use, or holds a run and ``resume`` isn't given, or what this program
            didn't write.
        ModelError: A teacher is damaged, or doesn't fit the data.
        TrainingError: There is little to distil, see ``force``, and the report compares teacher and control; or a
            loss became NaN or infinite.
    """
    out = Path(out)
    recipe = as_recipe(recipe, distillation_overrides(teacher, student))
    limit = None if time is None else TimeLimit(seconds_of(time), 2 if control else 1)
    quieten_lightning()
    folder = RunFolder(out)
    with claimed(out), trusted_functions(*recipe.functions):
        refuse_foreign_runs(out)
        if not resume:
            folder.refuse_begun()
            if control:
                folder.control.refuse_begun()
        _distill(
            recipe, out=out, control=control, resume=resume, doctor=doctor, force=force, limit=limit, progress=progress
        )
        write_web_page(out, folder.web_page)
        report = write_report([out])
    folders = {"teacher": folder.teacher, "student": folder, **({"control": folder.control} if control else {})}
    scores = {role: described.evaluation().scores.mean_iou for role, described in folders.items()}
    return DistillResult(out, scores, report)


def refuse_foreign_runs(out: Path) -> None:
    """Refuse a folder where a distillation would replace what this program didn't write."""
    folder = RunFolder(out)
    for each in (folder, folder.own_teacher, folder.teacher, folder.control):
        each.refuse_foreign()


def _distill(
    recipe: Recipe,
    *,
    out: Path,
    control: bool,
    resume: bool,
    doctor: bool,
    force: bool,
    limit: TimeLimit | None,
    progress: Progress,
) -> None:
    if recipe.student is None:
        raise ConfigError(f"recipe '{recipe.name}' has no 'student' section; add one, or give --student")
    recipe, dataset = with_judge(recipe, out=out, control=control, progress=progress)
    taught = recipe
    if limit is not None and not recipe.distillation.teachers and recipe.teacher is not None:
        earlier = RunFolder(out).own_teacher
        taught = _as_before(recipe, earlier, "teacher") if earlier.has_run else limit.for_teacher(recipe, dataset)
    teaching, terms = prepare_teachers(taught, dataset, out=out, resume=resume, progress=progress)
    open_again = partial(opened_quietly, teaching, dataset)
    if limit is not None and doctor and not RunFolder(out).has_run:
        diagnose_briefly(recipe, teaching, dataset)  # what it takes is no longer left
        doctor = False
    if limit is not None:
        begun = next((run for run in (RunFolder(out), RunFolder(out).control) if run.has_run), None)
        if begun is None:
            recipe = limit.for_students(recipe, dataset, teacher=open_again, terms=terms)
        else:
            recipe = _as_before(recipe, begun, "student")
    runs = [out]
    if control:
        runs.append(out / "control")
        train_role(recipe, out=runs[-1], role="control", dataset=dataset, resume=resume, progress=progress)
        measure_run(runs[-1], dataset, reference=out / "teacher", progress=progress)
    if not RunFolder(out).has_run:
        try:
            check_advantage(recipe, dataset, out=out, teacher=open_again, force=force)
        except TrainingError as error:
            page = write_report([out / "control", out / "teacher"], out)
            raise TrainingError(f"{error}; {page} compares the two") from error
        if doctor:
            diagnose_briefly(recipe, teaching, dataset)
    train_role(
        recipe,
        out=out,
        role="student",
        dataset=dataset,
        teacher=open_again,
        terms=terms,
        resume=resume,
        progress=progress,
    )
    measure_run(out, dataset, reference=out / "teacher", progress=progress)
    time_runs(runs, teacher=open_again, progress=progress)


def _as_before(recipe: Recipe, folder: RunFolder, role: Literal["teacher", "student"]) -> Recipe:
    """Return a recipe with the steps that were chosen when a run began."""
    earlier = folder.recipe()
    return recipe.model_copy(update={"crops": earlier.crops, role: getattr(earlier, role)})


def prepare_teachers(
    recipe: Recipe, dataset: Dataset, *, out: Path, resume: bool, progress: Progress
) -> tuple[Distillation, Sequence[WeightedTerm]]:
    """Check what a student is to learn; where no teacher is named train the recipe's own; measure the teachers.

    Returns:
        What the student learns from, every teacher named, and its terms.

    Raises:
        ConfigError: The recipe's student, terms or teachers are wrong.
        FileError: A teacher's file is missing or can't be read.
        ModelError: A teacher is damaged, or doesn't fit the data.
    """
    if recipe.student is None:
        raise ConfigError(f"recipe '{recipe.name}' has no 'student' section; add one, or give --student")
    # Wrong terms and networks are refused before a teacher is trained.
    check_chosen(recipe.student.model, dataset)
    lightning_precision(recipe.student.training.precision)
    check_memory(recipe.crops, bands=dataset.bands, classes=len(dataset.classes))
    terms = student_terms(recipe.distillation, recipe.student.terms)
    teaching = recipe.distillation
    if not teaching.teachers:
        check_own_taps(recipe, terms, dataset)
        teacher_run = RunFolder(out).own_teacher.path
        train_teacher(recipe, out=teacher_run, dataset=dataset, resume=resume, progress=progress)
        teaching = teaching.model_copy(update={"teachers": [TeacherSource(source=str(teacher_run))]})
    use_free_threads()
    measure_teachers(teaching, terms, dataset, out=out, resume=resume, progress=progress)
    return teaching, terms


def measure_teachers(
    teaching: Distillation,
    terms: Sequence[WeightedTerm],
    dataset: Dataset,
    *,
    out: Path,
    resume: bool,
    progress: Progress,
) -> None:
    """Open the teachers of a run, say what they don't know, and evaluate them into ``out/teacher``.

    Raises:
        ConfigError: The recipe wants of the teachers what they can't give, or the run learned from others.
        FileError: A teacher's file is missing or can't be read.
        ModelError: A teacher is damaged, or doesn't fit the data.
    """
    teacher = open_teachers(teaching, dataset.classes, bands=dataset.bands)
    check_teacher_bands(teacher, dataset)
    if resume:
        check_same_teacher(out, teacher)
    check_teacher(teacher, terms, cached=bool(teaching.teacher_cache))
    if not teaching.teacher_cache:
        for_crops(teacher, dataset.description.resize)  # refuses one that can't follow crops
    if (notice := unknown_classes(teacher, terms)) is not None:
        _LOGGER.warning(notice)
    teacher.check_scenes([sample.name for sample in (*dataset.train, *dataset.unlabeled, *dataset.val)])
    if _is_measured(RunFolder(out).teacher, teacher, dataset):
        return
    with writing(out):
        temperature = teaching_temperature(terms)
        score_teacher(teacher, teaching, dataset, out=out / "teacher", temperature=temperature, progress=progress)
    if (notice := overlooked_classes(teacher)) is not None:
        _LOGGER.warning(notice)


def unknown_classes(teacher: Teacher, terms: Sequence[WeightedTerm]) -> str | None:
    """Say which classes of the data set a teacher doesn't know, and who teaches them then; None: it knows all."""
    unknown = [name for index, name in enumerate(teacher.classes.names) if index not in teacher.known]
    if not unknown:
        return None
    them = "it" if len(unknown) == 1 else "them"
    if any(not term.needs_teacher for _, term in terms):
        return f"the teacher doesn't know {listing(unknown)}; the student learns {them} from labels only"
    return (
        f"the teacher doesn't know {listing(unknown)} and no loss term learns from labels, so nothing teaches {them}; "
        f"say in the teacher's 'classes' which of its classes stand for {them}, or add a term on labels"
    )


def overlooked_classes(teacher: Teacher) -> str | None:
    """Say which classes of a teacher were likeliest somewhere and stand for none of the data set's; None: none."""
    if not (names := teacher.overlooked):
        return None
    return (
        f"the teacher found {listing(list(names))} in these images, for which no class of the data set stands: where "
        "they are likelier than all others together it teaches nothing; say in the teacher's 'classes' what they are"
    )


def opened_quietly(teaching: Teaching, dataset: Dataset) -> Teacher:
    """Open teachers whose notices were read when they were measured."""
    with without_notices():
        return open_teachers(teaching, dataset.classes, bands=dataset.bands)


def _is_measured(folder: RunFolder, teacher: Teacher, dataset: Dataset) -> bool:
    """Whether a folder's measures are those of this very teacher on these very images, which older ones don't name."""
    if not (folder.has_run and folder.has_evaluation and folder.run().identity == teacher.identity):
        return False
    return folder.run().judged_on in (None, SceneStore(dataset.val, dataset.classes).key)


@contextmanager
def without_notices() -> Iterator[None]:
    """Keep back what teachers say about themselves; it was read already."""
    logger = logging.getLogger("segshrink")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
