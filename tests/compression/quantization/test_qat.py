from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import parametrize

from segshrink.compression.quantization import qat
from segshrink.compression.quantization.fake_quantization import fake_quantized, observing
from segshrink.compression.quantization.qat import quantization_aware_distillation
from segshrink.config import Recipe, TeacherSource
from segshrink.data import CropModule, SceneStore, open_dataset
from segshrink.errors import ConfigError
from segshrink.evaluation import Confusion
from segshrink.models import SegmentationModel
from segshrink.teachers import TorchTeacher


def spoil(model: SegmentationModel, factor: float) -> SegmentationModel:
    """Return a model that computes the same with every other channel ``factor`` times larger between two layers."""
    spoiled = copy.deepcopy(model)
    first = next(layer for layer in spoiled.network.modules() if isinstance(layer, nn.BatchNorm2d))
    second = [layer for layer in spoiled.network.modules() if isinstance(layer, nn.Conv2d)][1]
    with torch.no_grad():
        for values in (first.weight, first.bias):
            values[::2] *= factor
        second.weight[:, ::2] /= factor
    return spoiled


def rounded_score(model: SegmentationModel, recipe: Recipe, tiles: Sequence[NDArray[np.uint8]]) -> float:
    """Return the validation mIoU of a model whose numbers are rounded, with ranges from the tiles."""
    dataset = open_dataset(recipe.data)
    store = SceneStore(dataset.val, dataset.classes)
    confusion = Confusion(3)
    copied = copy.deepcopy(model).eval()
    with fake_quantized(copied.network) as inputs, torch.no_grad():
        with observing(inputs):
            for tile in tiles:
                copied(torch.from_numpy(tile)[None])
        for scene in range(len(store)):
            image = torch.from_numpy(np.array(store.image(scene))).permute(2, 0, 1)[None]
            confusion.update(
                copied(image).argmax(dim=1)[0].to(torch.uint8), torch.from_numpy(np.array(store.mask(scene)))
            )
    return float(confusion.scores().mean_iou)


def test_distillation_makes_up_for_rounding(
    model: SegmentationModel, recipe: Recipe, tiles: list[NDArray[np.uint8]]
) -> None:
    spoiled = spoil(model, 1000)
    before = {name: value.clone() for name, value in spoiled.state_dict().items()}
    training = recipe.student.training.model_copy(update={"epochs": 36})  # type: ignore[union-attr]
    longer = recipe.model_copy(update={"student": recipe.student.model_copy(update={"training": training})})  # type: ignore[union-attr]
    random_before = torch.get_rng_state()
    trained = quantization_aware_distillation(spoiled, open_dataset(recipe.data), recipe=longer)
    hurt, healed = (rounded_score(one, recipe, tiles) for one in (spoiled, trained))
    assert hurt < rounded_score(model, recipe, tiles) - 0.005
    assert healed > hurt + 0.005
    assert all(torch.equal(value, spoiled.state_dict()[name]) for name, value in before.items())
    assert torch.equal(torch.get_rng_state(), random_before)
    assert not any(parametrize.is_parametrized(module) for module in trained.modules())
    assert trained.state_dict().keys() == spoiled.state_dict().keys()
    averages = [name for name in before if name.endswith(("running_mean", "running_var"))]
    assert averages
    assert all(torch.equal(trained.state_dict()[name], before[name]) for name in averages)


@pytest.mark.parametrize("whole_scenes", [False, True])
def test_the_teacher_is_the_recipes_where_it_answers_about_crops(
    model: SegmentationModel, recipe: Recipe, monkeypatch: pytest.MonkeyPatch, whole_scenes: bool
) -> None:
    asked = []

    class Named(TorchTeacher):
        def logits(self, images: Tensor) -> Tensor:
            asked.append(len(images))
            return super().logits(images)

    teacher = Named(copy.deepcopy(model), output="logits")
    teacher.whole_scenes = whole_scenes
    monkeypatch.setattr(qat, "open_teachers", lambda *_, **__: teacher)
    teaching = recipe.distillation.model_copy(update={"teachers": [TeacherSource(source="elsewhere")]})
    quantization_aware_distillation(
        model, open_dataset(recipe.data), recipe=recipe.model_copy(update={"distillation": teaching})
    )
    assert sum(asked) == (0 if whole_scenes else 32)


def test_a_recipe_without_a_student_says_so(model: SegmentationModel, recipe: Recipe) -> None:
    with pytest.raises(ConfigError, match="no 'student' section"):
        quantization_aware_distillation(
            model, open_dataset(recipe.data), recipe=recipe.model_copy(update={"student": None})
        )


def test_a_model_learns_on_at_its_working_size(
    model: SegmentationModel, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[CropModule] = []

    class Seen(CropModule):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            made.append(self)

    monkeypatch.setattr(qat, "CropModule", Seen)
    halved = model.with_resize(0.5)
    trained = quantization_aware_distillation(halved, open_dataset(recipe.data), recipe=recipe)
    assert trained.description == halved.description
    assert made[0].train_store.shape(0) == (48, 48), "of 96 pixels"
    before, after = (next(each.network.parameters()) for each in (halved, trained))
    assert not torch.equal(before, after)
