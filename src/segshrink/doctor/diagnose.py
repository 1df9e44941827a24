"""The diagnosis of a distillation: its teachers on the user's own validation images, its student, its terms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from segshrink.config import Distillation, Recipe, TeacherSource
from segshrink.config.recipe import is_folder
from segshrink.data import Dataset, open_dataset
from segshrink.doctor.cause_search import POOR_LEVEL, Cause, CauseSearch, Progress
from segshrink.doctor.findings import Diagnosis, Finding, RecipeTerms, ranked
from segshrink.doctor.input_variants import InputVariant, VariantScores, single_variants
from segshrink.doctor.sample import Matrices, Sample, draw_sample, level
from segshrink.doctor.student_checks import open_student, student_findings
from segshrink.doctor.teacher_checks import (
    LEAST_CHANGE,
    TeacherEntry,
    changed_source,
    knowledge_findings,
    noise_findings,
    output_findings,
    score_finding,
)
from segshrink.doctor.teacher_outputs import output_noise, probe
from segshrink.errors import ConfigError
from segshrink.run_folder import RunFolder
from segshrink.teachers import open_teacher, open_teachers
from segshrink.teachers.teacher import TILE
from segshrink.teachers.torch_teacher import for_crops

# Crops looked at, as many as have the pixels of so many 256 pixels a side, within limits; and in brief.
_CROPS, _FEWEST, _BRIEF = 32, 12, 6


def diagnose_recipe(
    recipe: Recipe,
    teachers: Sequence[TeacherSource | str | Path] | None = None,
    *,
    student: str | Path | None = None,
    dataset: Dataset | None = None,
    images: int | None = None,
    brief: bool = False,
    progress: Progress | None = None,
) -> Diagnosis:
    """Find out why distillation doesn't work, on crops of the validation images.

    Args:
        recipe: Data, crops, terms and student.
        teachers: The teachers; None: the recipe's.
        student: Run or model folder of a trained student, or a network id; None: the recipe's student, if it has one,
            before its training.
        dataset: The recipe's data, opened already.
        images: Number of crops; None: 32 of up to 256 pixels a side, fewer larger ones, at least 12.
        brief: Look at six crops in seconds: search for causes only where a teacher does badly.
        progress: Called with (done, of how many, what is being done).

    Raises:
        ConfigError: There is no teacher, or no validation image.
        SegshrinkError: Whatever opening data, teacher or student raises.
    """
    listed = recipe.distillation.teachers if teachers is None else teachers
    sources = [source if isinstance(source, TeacherSource) else TeacherSource(source=str(source)) for source in listed]
    if not sources:
        raise ConfigError("there is no teacher to examine; give one with --teacher or in distillation.teachers")
    terms = RecipeTerms.of(recipe)
    dataset = dataset or open_dataset(recipe.data)
    cached = recipe.distillation.teacher_cache
    size = TILE if cached and not brief else recipe.crops.size
    # A teacher whose answers are cached sees images as they are.
    resize = None if cached else dataset.description.resize
    sample = draw_sample(
        dataset,
        images=images or (_BRIEF if brief else min(max(_CROPS * 256**2 // size**2, _FEWEST), _CROPS)),
        size=size,
        shrink=not terms.learns_features,
        seed=recipe.seed,
        resize=resize,
    )
    opened = [open_teacher(source, dataset.classes, bands=dataset.bands) for source in sources]
    opened = opened if cached else [for_crops(teacher, resize) for teacher in opened]
    findings: list[Finding] = []
    for position, teacher in enumerate(opened):
        entry = TeacherEntry(teacher, sources, position, terms, dataset.bands)
        teacher_findings, matrices = diagnose_teacher(entry, sample, brief=brief, progress=progress)
        findings += teacher_findings
    model = open_student(student, recipe, dataset, sample)
    if model is not None:
        (teacher, *others), teaching = opened, recipe.distillation.model_copy(update={"teachers": sources})
        if others or teaching.flips or teaching.scales != [1.0]:
            teacher = open_teachers(teaching, dataset.classes, bands=dataset.bands)
            teacher = teacher if cached else for_crops(teacher, resize)
            matrices = VariantScores(teacher, sample).of(InputVariant())
        folder = None
        if student is not None and Path(student).is_dir() and is_folder(str(student)):
            folder = RunFolder(student)
        findings += student_findings(model, folder, teacher, matrices, sample, recipe, brief=brief)
    return Diagnosis(recipe.data.name, len(sample), sample.size, ranked(findings))


@dataclass(frozen=True)
class BetterUse:
    """How a teacher is used better than its source says.

    Attributes:
        source: The source that says so.
        finding: What was found, with the scores before and after.
    """

    source: TeacherSource
    finding: Finding


def find_better_use(
    source: TeacherSource, dataset: Dataset, *, images: int, progress: Progress | None = None
) -> BetterUse | None:
    """Find pixel scaling, band order or class order with which a teacher that does badly does well.

    Args:
        source: The teacher, whose answers are to be cached.
        dataset: Its validation images are looked at.
        images: Crops of up to 512 pixels a side.
        progress: Called with (done, of how many, what is being done).

    Returns:
        None where the teacher does well as it is, or nothing of the kind explains why it doesn't.

    Raises:
        SegshrinkError: Whatever opening the teacher raises.
    """
    recipe = Recipe(data=dataset.description, distillation=Distillation(teachers=[source], teacher_cache=True))
    teacher = open_teacher(source, dataset.classes, bands=dataset.bands)
    entry = TeacherEntry(teacher, [source], 0, RecipeTerms.of(recipe), dataset.bands)
    sample = draw_sample(dataset, images=images, size=TILE, shrink=True)
    (finding, *_), _, cause = _examined(entry, sample, brief=True, progress=progress)
    changed = None if cause is None else changed_source(entry, cause)
    return None if changed is None else BetterUse(changed, finding)


def diagnose_teacher(
    entry: TeacherEntry, sample: Sample, *, brief: bool = False, progress: Progress | None = None
) -> tuple[list[Finding], Matrices]:
    """Look at a teacher's answers, and for what explains what it gets wrong.

    Returns the findings, and its confusion matrices (n, C, C) as it is.

    Args:
        entry: The teacher and where it stands in the recipe.
        sample: The crops.
        brief: Search for causes only where it does badly.
        progress: Called with (done, of how many, what is being done).
    """
    findings, matrices, _ = _examined(entry, sample, brief=brief, progress=progress)
    return findings, matrices


def _examined(
    entry: TeacherEntry, sample: Sample, *, brief: bool, progress: Progress | None
) -> tuple[list[Finding], Matrices, Cause | None]:
    teacher, base = entry.teacher, entry.base
    teacher.to("cuda" if torch.cuda.is_available() else "cpu")
    answers = probe(teacher, sample, base, progress=progress)
    noise = output_noise(teacher, sample, base)
    poor, cause = level(answers.matrices) < POOR_LEVEL, None
    if answers.matrices.any() and (poor or not brief):
        scores = VariantScores(teacher, sample)
        scores.remember(base, answers.matrices)
        steady = max(noise.values()) <= LEAST_CHANGE
        singles = single_variants(scores, answers.predicted, base=base, inner=entry.inner, steady=steady)
        cause = CauseSearch(scores, base=base, singles=singles, inner=entry.inner, progress=progress).run()
    if cause is not None and answers.not_finite and probe(teacher, sample, cause.variant).not_finite:
        cause = None  # what isn't a number stays so: that is the fault
    findings = [
        score_finding(entry, answers, cause),
        *output_findings(entry, answers, misled=poor or cause is not None),
        *noise_findings(entry, noise),
        *knowledge_findings(entry, sample),
    ]
    return findings, answers.matrices, cause
