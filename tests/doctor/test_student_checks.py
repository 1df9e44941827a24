"""Students that have collapsed, teachers no better than the control, and terms out of balance."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from segshrink.config import Distillation, Recipe, Term
from segshrink.doctor import Diagnosis, diagnose_recipe
from segshrink.doctor.findings import RecipeTerms
from segshrink.doctor.gradients import balance_findings, gradient_norms
from segshrink.doctor.sample import Sample
from segshrink.errors import ConfigError, ModelError
from segshrink.evaluation_records import ClassRecord, EvaluationRecord, ScoresRecord
from segshrink.models import SegmentationModel
from segshrink.run_folder import RunFolder
from segshrink.teachers import TorchTeacher
from segshrink.training.terms import student_terms

Make = Callable[[], SegmentationModel]


def biased(model: SegmentationModel, *, by: dict[int, float]) -> SegmentationModel:
    """A copy that likes some classes more, or less."""
    changed = copy.deepcopy(model)
    head: Any = changed.network.head
    with torch.no_grad():
        for index, value in by.items():
            head.bias[index] += value
    return changed


def run_folder(path: Path, model: SegmentationModel, score: float, control: SegmentationModel | None = None) -> Path:
    """A student's run as far as the doctor looks at it."""
    model.save(path / "model")
    if control is not None:
        control.save(path / "control" / "model")
    (path / "control").mkdir(exist_ok=True)
    count = len(model.description.classes)
    record = EvaluationRecord(
        data="data",
        split="val",
        classes=[ClassRecord(name=name) for name in model.description.classes.names],
        scores=ScoresRecord(mean_iou=score, iou=[score] * count),
        confusion=[[0] * count] * count,
    )
    RunFolder(path / "control").write_evaluation(record)
    return path


def diagnosed(recipe: Recipe, teacher: SegmentationModel, student: Path, tmp_path: Path) -> Diagnosis:
    teacher.save(tmp_path / "the-teacher")
    return diagnose_recipe(recipe, [tmp_path / "the-teacher"], student=student, images=12)


def test_a_collapsed_student_is_a_fault(good: SegmentationModel, recipe: Recipe, tmp_path: Path) -> None:
    model = biased(good, by={0: 100.0})
    model.save(tmp_path / "student")
    diagnosis = diagnosed(recipe, good, tmp_path / "student", tmp_path)
    assert diagnosis.findings[0].kind == "collapsed"
    assert diagnosis.findings[0].severity == "fault"
    assert "100% of its predictions are Ground" in diagnosis.findings[0].message
    assert "never predicted: Roof, Water, Fine, Coarse" in diagnosis.findings[0].message
    assert diagnosis.findings[0].fix == "crops.rare_class_share: 0.5"
    assert diagnosis.findings[0].numbers["predicted"]["Ground"] == 1


def test_one_lost_class_is_a_warning_and_none_is_fine(good: SegmentationModel, recipe: Recipe, tmp_path: Path) -> None:
    biased(good, by={3: -100.0}).save(tmp_path / "student")
    rare = recipe.model_copy(update={"crops": recipe.crops.model_copy(update={"rare_class_share": 0.6})})
    diagnosis = diagnosed(rare, good, tmp_path / "student", tmp_path)
    (finding,) = [finding for finding in diagnosis.findings if finding.about == "student"]
    assert (finding.kind, finding.severity) == ("collapsed", "warning")
    assert "never predicted: Fine" in finding.message
    assert "jaccard" in finding.fix
    good.save(tmp_path / "student")
    diagnosis = diagnosed(recipe, good, tmp_path / "student", tmp_path)
    assert [finding.severity for finding in diagnosis.findings if finding.about == "student"] == ["fine"]
    assert "outgrown" not in {finding.kind for finding in diagnosis.findings}
    diagnosis = diagnosed(recipe, biased(good, by={3: -100.0}), tmp_path / "student", tmp_path)
    assert [finding.severity for finding in diagnosis.findings if finding.kind == "outgrown"] == ["warning"]


@pytest.mark.parametrize(
    ("teacher_by", "control_by", "severity"),
    [({}, {3: -100.0}, "fine"), ({3: -100.0}, {}, "fault"), ({}, {}, "warning")],
    ids=["better", "worse", "the same"],
)
def test_the_teacher_is_compared_with_the_control_on_the_same_crops(
    good: SegmentationModel,
    recipe: Recipe,
    tmp_path: Path,
    teacher_by: dict[int, float],
    control_by: dict[int, float],
    severity: str,
) -> None:
    run = run_folder(tmp_path / "run", good, 0.5, control=biased(good, by=control_by))
    diagnosis = diagnosed(recipe, biased(good, by=teacher_by), run, tmp_path)
    (finding,) = [finding for finding in diagnosis.findings if finding.kind == "control"]
    assert finding.severity == severity
    assert diagnosis.healthy == (severity != "fault")


def test_the_controls_evaluation_does_where_its_model_is_gone(
    good: SegmentationModel, recipe: Recipe, tmp_path: Path
) -> None:
    for score, severity in ((0.5, "fine"), (0.93, "warning"), (1.0, "fault")):
        run = run_folder(tmp_path / f"run{score}", good, score)
        diagnosis = diagnosed(recipe, biased(good, by={4: -2.0}), run, tmp_path)
        (finding,) = [finding for finding in diagnosis.findings if finding.kind == "control"]
        assert finding.numbers["control_mean_iou"] == score
        assert finding.severity == severity, finding


def norms_of(
    student: SegmentationModel, teacher: SegmentationModel, distillation: Distillation, sample: Sample, steps: int = 0
) -> tuple[dict[str, float], RecipeTerms]:
    plan = RecipeTerms(distillation, (Term(name="cross_entropy"),))
    terms = student_terms(distillation, plan.supervised)
    return gradient_norms(student, TorchTeacher(teacher), terms, sample, batch_size=4, batches=2, steps=steps), plan


def test_the_norms_are_those_of_the_gradient(student: Make, good: SegmentationModel, sample: Sample) -> None:
    model = student()
    before = copy.deepcopy(model.state_dict())
    terms = [Term(name="pixel_kl"), Term(name="cross_entropy", weight=2.0), Term(name="jaccard", weight=0.0)]
    norms, _ = norms_of(model, good, Distillation(terms=terms), sample)
    assert list(norms) == ["cross_entropy", "pixel_kl"]
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    expected = []
    for start in (0, 4):
        copied = copy.deepcopy(model).train()
        images, targets = sample.images[start : start + 4], sample.targets[start : start + 4]
        torch.nn.functional.cross_entropy(copied(images), targets, ignore_index=255).mul(2).backward()
        gradients = [parameter.grad.flatten() for parameter in copied.parameters()]
        expected.append(float(torch.cat(gradients).norm()))
    assert norms["cross_entropy"] == pytest.approx(np.mean(expected), rel=1e-4)


@pytest.mark.parametrize(
    ("section", "term"),
    [
        ({"alpha": 0.999}, "cross_entropy"),
        ({"alpha": 0.001}, "pixel_kl"),
        ({"terms": [{"name": "cross_entropy"}, {"name": "pixel_kl", "weight": 500}]}, "pixel_kl"),
        ({"terms": [{"name": "cross_entropy"}, {"name": "pixel_kl"}, {"name": "dist", "weight": 1e-4}]}, "dist"),
        ({"terms": [{"name": "cross_entropy"}, {"name": "hint", "weight": 1e-5}]}, "cross_entropy"),
        (
            {
                "terms": [
                    {"name": "cross_entropy", "weight": 0.01},
                    {"name": "pixel_kl"},
                    {"name": "jaccard", "weight": 0.01},
                ]
            },
            "pixel_kl",
        ),
    ],
    ids=["labels drown", "teacher drowns", "a list", "three terms", "features", "two for labels"],
)
def test_an_unbalanced_term_is_named_with_the_weight_that_balances(
    student: Make, good: SegmentationModel, sample: Sample, section: dict[str, Any], term: str
) -> None:
    distillation = Distillation.model_validate(section)
    norms, plan = norms_of(student(), good, distillation, sample, 6)
    terms = student_terms(distillation, plan.supervised)
    (finding,) = balance_findings(norms, terms, plan, state="the student")
    assert (finding.kind, finding.severity, finding.numbers["term"]) == ("balance", "warning", term)
    key, value = finding.fix.split(": ", 1)
    changed = Distillation.model_validate({**section, key.removeprefix("distillation."): yaml.safe_load(value)})
    norms, plan = norms_of(student(), good, changed, sample, 6)
    (balanced,) = balance_findings(norms, student_terms(changed, plan.supervised), plan, state="the student")
    assert balanced.severity == "fine"
    assert balanced.numbers["shares"][term] == pytest.approx(1 / len(norms), abs=0.1)


def test_a_healthy_recipe_is_balanced_and_a_silent_term_is_a_fault(
    student: Make, good: SegmentationModel, sample: Sample
) -> None:
    norms, plan = norms_of(student(), good, Distillation(), sample)
    (finding,) = balance_findings(norms, student_terms(Distillation(), plan.supervised), plan, state="it")
    assert finding.severity == "fine"
    assert sum(finding.numbers["shares"].values()) == pytest.approx(1)
    silent = {**norms, "pixel_kl": 0.0}
    (finding,) = balance_findings(silent, student_terms(Distillation(), plan.supervised), plan, state="it")
    assert (finding.kind, finding.severity) == ("silent", "fault")
    assert balance_findings({"pixel_kl": 1.0}, (), plan, state="it") == []


def test_refusals(good: SegmentationModel, recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no teacher to examine"):
        diagnose_recipe(recipe)
    good.save(tmp_path / "teacher")
    with pytest.raises(ModelError, match="unknown model"):
        diagnose_recipe(recipe, [tmp_path / "teacher"], student="moblie", images=4)
