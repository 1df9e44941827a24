"""The recipe lines that a diagnosis gives fix the teacher, opened as a recipe opens it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from segshrink.config import Distillation, Recipe, TeacherSource, Term
from segshrink.doctor import diagnose_recipe
from segshrink.doctor.findings import RecipeTerms
from segshrink.doctor.input_variants import InputVariant, VariantScores
from segshrink.doctor.sample import Sample, mean_iou
from segshrink.model_description import Normalization
from segshrink.models import SegmentationModel
from segshrink.teachers import open_teachers

from .conftest import CROP, look

# A user's module: networks that want something else than raw pixels.
MODULE = """
import torch
from torch import nn
from torch.nn import functional as F
from segshrink.models import load_model

class Network(nn.Module):
    def __init__(self, folder, change):
        super().__init__()
        self.network = load_model(folder)
        self.change = change

    def forward(self, images):
        x = images.float()
        if "unit" in self.change:
            x = x * 255
        if "tiny" in self.change:
            x = x / 255
        if "twice" in self.change:
            x = x / 127.5 - 1
        if "bgr" in self.change:
            x = x.flip(1)
        if "small" in self.change:
            x = F.interpolate(x, scale_factor=0.5, mode="bilinear", antialias=True)
        y = self.network(x)
        if "small" in self.change:
            y = F.interpolate(y, scale_factor=2, mode="bilinear")
        if "order" in self.change:
            y = y[:, [1, 2, 0, 4, 3]]
        return y.softmax(1) * 1.0 if "probabilities" in self.change else y

def network(folder, change):
    return Network(folder, change)
"""


def applied(recipe: Recipe, fix: str) -> Recipe:
    """The recipe with the lines of a fix in it."""
    raw: dict[str, Any] = recipe.model_dump(mode="json", exclude_unset=True)
    for line in fix.splitlines():
        key, value = line.split(": ", 1)
        section, name = key.split(".")
        raw.setdefault(section, {})[name] = yaml.safe_load(value)
    return Recipe.model_validate(raw)


def score(recipe: Recipe, sample: Sample, model: SegmentationModel) -> float:
    """mIoU of a recipe's teachers, as a student would learn from them."""
    teacher = open_teachers(recipe.distillation, model.description.classes)
    return mean_iou(VariantScores(teacher, sample).of(InputVariant()))


def fixed(recipe: Recipe, source: dict[str, Any], sample: Sample, good: SegmentationModel) -> tuple[str, float, float]:
    """The kind that is named first, and the score before and with its fix."""
    sick = recipe.model_copy(update={"distillation": Distillation.model_validate({"teachers": [source]})})
    (entry,) = sick.distillation.teachers
    teacher = open_teachers(sick.distillation, good.description.classes)
    first = look(teacher, sample, sick, entry)[0]
    assert first.severity == "fault", first
    cured = applied(sick, first.fix)
    return first.kind, score(sick, sample, good), score(cured, sample, good)


@pytest.mark.parametrize(
    ("change", "adapter", "kind"),
    [
        ("unit", None, "scaling"),
        ("tiny", None, "scaling"),
        ("twice", None, "scaling"),
        ("", {"mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375]}, "scaling"),
        ("bgr", None, "order"),
        ("", {"order": "bgr"}, "order"),
        ("order", None, "classes"),
        ("order", {"classes": ["Fine", "Roof", "Coarse", "Ground", "Water"]}, "classes"),
        ("small", None, "size"),
        ("unit bgr", {"mean": 127.5}, "scaling and order"),
        ("small order", None, "size and classes"),
        ("probabilities", {"output": "logits"}, "probabilities"),
    ],
)
def test_the_line_fixes_a_users_network(
    good: SegmentationModel,
    sample: Sample,
    recipe: Recipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: str,
    adapter: dict[str, Any] | None,
    kind: str,
) -> None:
    good.save(tmp_path / "model")
    (tmp_path / "planted_networks.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    source: dict[str, Any] = {
        "source": "planted_networks:network",
        "options": {"folder": str(tmp_path / "model"), "change": change},
    }
    if adapter is not None:
        source["adapter"] = adapter
    kind_named, before, after = fixed(recipe, source, sample, good)
    assert kind_named == kind
    assert after > 0.85
    assert after > before + 0.1 or kind == "probabilities"


def test_the_line_fixes_model_folders(good: SegmentationModel, sample: Sample, recipe: Recipe, tmp_path: Path) -> None:
    described = good.description
    wrong = {
        "scaling": replace(described, normalization=Normalization((0.5,) * 3, (0.25,) * 3)),
        "classes": replace(
            described, classes=replace(described.classes, names=("Ground", "Water", "Roof", "Coarse", "Fine"))
        ),
    }
    for kind, description in wrong.items():
        folder = tmp_path / kind
        SegmentationModel(good.network, description).save(folder)
        kind_named, before, after = fixed(recipe, {"source": str(folder)}, sample, good)
        assert kind_named == kind
        assert after > 0.85 > before + 0.1


def test_only_the_entry_of_the_sick_teacher_changes(
    good: SegmentationModel, sample: Sample, recipe: Recipe, tmp_path: Path
) -> None:
    good.save(tmp_path / "well")
    description = replace(good.description, normalization=Normalization((0.5,) * 3, (0.25,) * 3))
    SegmentationModel(good.network, description).save(tmp_path / "sick")

    sources = tuple(TeacherSource(source=str(tmp_path / name), weight=2) for name in ("well", "sick"))
    diagnosis = diagnose_recipe(recipe.model_copy(update={"student": None}), sources, images=8)
    (fault,) = diagnosis.faults
    assert fault.kind == "scaling"
    assert f"teacher {tmp_path / 'sick'}" in fault.message
    first, second = applied(recipe, fault.fix).distillation.teachers
    assert first == sources[0]
    assert (second.source, second.weight) == (sources[1].source, 2)
    assert second.adapter is not None
    assert (diagnosis.images, diagnosis.size) == (8, CROP)


def test_lines_for_lists_and_presets_of_terms_are_whole_lists() -> None:
    supervised = (Term(name="cross_entropy"), Term(name="jaccard", weight=0.5))
    terms = [Term(name="cross_entropy"), Term(name="channel_kl", weight=3, options={"temperature": 4.0})]
    listed = RecipeTerms(Distillation(terms=terms), supervised)
    assert listed.temperature == 4
    assert listed.temperature_line(8) == (
        "distillation.terms: [{name: cross_entropy, weight: 1}, "
        "{name: channel_kl, weight: 3, options: {temperature: 8}}]"
    )
    assert "{name: channel_kl, weight: 0.6, " in listed.weights_line({1: 0.2})
    defaults = [Term(name="cross_entropy"), Term(name="decoupled_kl"), Term(name="cross_image_relation")]
    listed = RecipeTerms(Distillation(terms=defaults), supervised)
    assert listed.temperature == 4
    assert listed.temperature_line(8) == (
        "distillation.terms: [{name: cross_entropy, weight: 1}, "
        "{name: decoupled_kl, options: {temperature: 8}, weight: 1}, {name: cross_image_relation, weight: 1}]"
    )
    preset = RecipeTerms(Distillation(preset="cwd"), supervised)
    null, line = preset.weights_line({0: 2, 1: 2}).splitlines()
    assert null == "distillation.preset: null"
    assert yaml.safe_load(line.removeprefix("distillation.terms: ")) == [
        {"name": "cross_entropy", "weight": 2},
        {"name": "jaccard", "weight": 1},
        {"name": "channel_kl", "weight": 3, "options": {"temperature": 4}},
    ]
    # With alpha, one share stands for all labels' terms.
    assert RecipeTerms(Distillation(alpha=0.5), supervised).weights_line({2: 3}).startswith("distillation.alpha: 0.25 ")
    assert (
        RecipeTerms(Distillation(alpha=0.5), supervised)
        .weights_line({0: 3, 1: 3})
        .startswith("distillation.alpha: 0.75 ")
    )
