"""The examination: teachers on the user's own validation images, the student, and the terms between them."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from segshrink.classes import IGNORE_INDEX
from segshrink.config import Recipe, TeacherSource
from segshrink.data import open_dataset
from segshrink.doctor.cause_search import Search
from segshrink.doctor.findings import Diagnosis, Finding, ranked
from segshrink.doctor.measuring import POOR_LEVEL, Matrices
from segshrink.doctor.plan import Plan
from segshrink.doctor.sample import Sample, draw_sample
from segshrink.doctor.scaling import Scaling, unchanged
from segshrink.doctor.students import examine_student, open_student
from segshrink.doctor.teacher_checks import LEAST_CHANGE, listen, unsteadiness
from segshrink.doctor.teacher_findings import (
    Named,
    knowledge_finding,
    output_findings,
    score_finding,
    steadiness_findings,
)
from segshrink.doctor.input_variants import Progress, Trial, measure
from segshrink.errors import ConfigError
from segshrink.models import SegmentationModel
from segshrink.teachers import Teacher, open_teacher, open_teachers
from segshrink.teachers.adapter import adapter_normalization, adapter_of
from segshrink.teachers.teacher import TILE
from segshrink.teachers.torch_teacher import AdaptedNetwork

# Crops looked at: of the training's size, of whole tiles where the teacher's answers come from a cache, and in brief.
CROPS, TILES, FEW = 32, 24, 6


@dataclass(frozen=True)
class Patient:
    """Who is examined.

    Attributes:
        recipe: Data, crops, terms and student; a recipe's defaults where the user has none.
        sources: The teachers.
        student: Run or model folder of a trained student, or a network id; None: the recipe's student, if it has one,
            before its training.
    """

    recipe: Recipe
    sources: tuple[TeacherSource, ...]
    student: str | None = None


def examine(
    patient: Patient, *, images: int | None = None, brief: bool = False, progress: Progress | None = None
) -> Diagnosis:
    """Examine teachers, student and terms on crops of the validation images.

    Args:
        patient: Who is examined.
        images: Number of crops; None: 32, or 24 whole tiles where the student learns from a cache.
        brief: Look at six crops in seconds: search for causes only where a teacher does badly.
        progress: Called with (done, of how many, what is being done).

    Raises:
        ConfigError: There is no teacher, or no validation image.
        SegshrinkError: Whatever opening data, teacher or student raises.
    """
    if not patient.sources:
        raise ConfigError("there is no teacher to examine; give one with --teacher or in distillation.teachers")
    recipe = patient.recipe
    plan = Plan.of(recipe)
    dataset = open_dataset(recipe.data)
    cached = bool(recipe.distillation.teacher_cache) and not brief
    sample = draw_sample(
        dataset,
        images=images or (FEW if brief else TILES if cached else CROPS),
        size=TILE if cached else recipe.crops.size,
        shrink=not plan.learns_features,
        seed=recipe.seed,
    )
    teachers = [open_teacher(source, dataset.classes, bands=dataset.bands) for source in patient.sources]
    findings: list[Finding] = []
    heard: list[Matrices] = []
    for position, teacher in enumerate(teachers):
        named = Named(teacher, patient.sources, position)
        said, matrices = examine_teacher(named, sample, plan, brief=brief, progress=progress)
        findings += said
        heard.append(matrices)
    student = open_student(patient.student, recipe, dataset, sample)
    if student is not None:
        teaching = recipe.distillation.model_copy(update={"teachers": list(patient.sources)})
        teacher, matrices = teachers[0], heard[0]
        if len(teachers) > 1 or teaching.flips or teaching.scales != [1.0]:
            teacher = open_teachers(teaching, dataset.classes, bands=dataset.bands)
            matrices = measure(teacher, sample, Trial(), range(len(sample)))
        findings += examine_student(student, teacher, matrices, sample, recipe, plan, brief=brief)
    return Diagnosis(recipe.data.name, len(sample), sample.size, ranked(findings))


def examine_teacher(
    named: Named, sample: Sample, plan: Plan, *, brief: bool = False, progress: Progress | None = None
) -> tuple[list[Finding], Matrices]:
    """Listen to a teacher, and look for what explains what it gets wrong.

    Returns the findings, and its confusion matrices (n, C, C) as it is.

    Args:
        named: The teacher and where it stands in the recipe.
        sample: The crops.
        plan: What the student is to learn from it.
        brief: Search for causes only where it does badly.
        progress: Called with (done, of how many, what is being done).
    """
    teacher, source = named.teacher, named.sources[named.position]
    teacher.to("cuda" if torch.cuda.is_available() else "cpu")
    scales = plan.distillation.scales
    base = Trial(zoom=scales[0] if len(scales) == 1 else 1.0)
    heard = listen(teacher, sample, base, temperature=plan.temperature, progress=progress)
    bad = heard.level < POOR_LEVEL
    bands = int(sample.images.shape[1])
    inner = inner_scaling(teacher, source, bands=bands)
    noise = unsteadiness(teacher, sample, base)
    steady = max(noise.values()) <= LEAST_CHANGE
    search = Search(teacher, sample, base=base, matrices=heard.matrices, inner=inner, progress=progress)
    cause = search.run(bad=bad, steady=steady) if heard.judged and (bad or not brief) else None
    if cause is not None and heard.not_finite and listen(teacher, sample, cause.trial).not_finite:
        cause = None  # what isn't a number stays so: that is the fault
    known = knowledge_finding(named, _labels(sample, len(teacher.classes)), teacher.classes)
    findings = [
        score_finding(named, heard, cause, search.alone, base=base, plan=plan, scaling=inner or unchanged(bands)),
        *output_findings(named, heard, plan, misled=bad or cause is not None),
        *steadiness_findings(named, noise),
        *([known] if known else []),
    ]
    return findings, heard.matrices


def inner_scaling(teacher: Teacher, source: TeacherSource, *, bands: int) -> Scaling | None:
    """Return what is known to be done to pixels before a teacher's network gets them; None: nothing is known."""
    module = teacher.module
    network = module.network if isinstance(module, AdaptedNetwork) else module
    if isinstance(network, SegmentationModel):
        normalization = network.description.normalization
    else:
        normalization = adapter_normalization(adapter_of(source), bands)
    scaling = Scaling("", normalization.mean, normalization.std)
    return None if scaling.like(unchanged(bands)) else scaling


def _labels(sample: Sample, classes: int) -> list[int]:
    """Return the number of labelled pixels of each class."""
    counts = torch.bincount(sample.targets.flatten(), minlength=IGNORE_INDEX + 1)[:classes]
    return [int(count) for count in counts]
