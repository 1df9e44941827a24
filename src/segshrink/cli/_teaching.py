"""The teachers of a distillation, before it begins: opened, checked against recipe and data, and measured."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from segshrink.cli._console import progress_bar, tell
from segshrink.cli._errors import writing
from segshrink.config import Recipe, Teaching
from segshrink.data import Dataset, open_dataset
from segshrink.formatting import listing
from segshrink.losses import WeightedTerm
from segshrink.records import Section
from segshrink.teachers import Teacher, open_teachers
from segshrink.training import describe_teacher
from segshrink.training.build_student import check_teacher_bands
from segshrink.training.run import check_same_teacher
from segshrink.training.terms import student_terms


def measure_teachers(teaching: Teaching, recipe: Recipe, *, out: Path, resume: bool) -> None:
    """Open the teachers of a run, say what they don't know, and evaluate and profile them into ``out/teacher``.

    Args:
        teaching: The teachers.
        recipe: The recipe; it has a student.
        out: The student's run folder.
        resume: Refuse other teachers than those that the run learned from.

    Raises:
        ConfigError: The recipe wants of the teachers what they can't give, or the run learned from others.
        FileError: A teacher's file is missing or can't be read.
        ModelError: A teacher is damaged, or doesn't fit the data.
    """
    dataset = open_dataset(recipe.data)
    teacher = open_teachers(teaching, dataset.classes, bands=dataset.bands)
    check_teacher_bands(teacher, dataset)
    if resume:
        check_same_teacher(out, teacher)
    if recipe.student is not None:
        terms = student_terms(recipe.distillation, recipe.student.terms, teacher)
        if (notice := unknown_classes(teacher, terms)) is not None:
            tell(notice)
    teacher.check_scenes([sample.name for sample in (*dataset.train, *dataset.unlabeled, *dataset.val)])
    if _measured(out / "teacher", teacher):
        return
    with progress_bar("evaluate teacher") as advance, writing(out):
        describe_teacher(teacher, dataset, out=out / "teacher", progress=advance)
    if (notice := overlooked_classes(teacher)) is not None:
        tell(notice)


def opener(teaching: Teaching, dataset: Dataset) -> Callable[[], Teacher]:
    """Return what opens teachers once more; their notices were read when they were measured."""

    def open_again() -> Teacher:
        with without_notices():
            return open_teachers(teaching, dataset.classes, bands=dataset.bands)

    return open_again


def unknown_classes(teacher: Teacher, terms: tuple[WeightedTerm, ...]) -> str | None:
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


def _measured(folder: Path, teacher: Teacher) -> bool:
    """Whether a folder's measures are those of this very teacher."""
    written = all((folder / name).exists() for name in ("run.json", "evaluation.json"))
    return written and Section.open(folder / "run.json").path("identity") == teacher.identity


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
