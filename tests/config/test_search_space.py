"""Values of a recipe that a study chooses."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from segshrink.config import OpenValue, load_open_recipe, load_recipe
from segshrink.errors import ConfigError

CLASSES = [{"name": "field", "color": "#008000"}, {"name": "road", "color": "#808080"}]


def recipe_file(folder: Path, **sections: object) -> Path:
    data = {"name": "fields", "images": "*.png", "classes": CLASSES, "split": {"random": 0.2}}
    student = {"model": {"id": "unet"}, "training": {"learning_rate": {"log": [1e-4, 1e-2]}, "epochs": {"int": [4, 9]}}}
    terms = [{"name": "cross_entropy"}, {"name": "pixel_kl", "weight": {"uniform": [0, 4], "default": 1.5}}]
    content = {"name": "fields", "data": data, "student": student, "distillation": {"terms": terms}, **sections}
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_open_values_are_found_anywhere_and_closed_by_their_default_or_middle(tmp_path: Path) -> None:
    path = recipe_file(tmp_path, crops={"size": {"choice": [128, 64, 256]}})
    recipe, space = load_open_recipe(path)
    assert set(space) == {
        "student.training.learning_rate",
        "student.training.epochs",
        "distillation.terms.1.weight",
        "crops.size",
    }
    assert recipe.student is not None
    assert recipe.student.training.learning_rate == pytest.approx(1e-3)
    assert recipe.student.training.epochs == 6
    assert recipe.crops.size == 128
    assert recipe.distillation.terms is not None
    assert [term.weight for term in recipe.distillation.terms] == [1, 1.5]


def test_an_override_opens_a_value_and_keeps_the_recipes_own(tmp_path: Path) -> None:
    path = recipe_file(tmp_path, seed=3, crops={"size": 96, "batch_size": 2})
    overrides = [
        "crops.size={choice: [64, 96]}",
        "crops.batch_size={int: [1, 8], default: 4}",
        "student.training.epochs=5",
    ]
    recipe, space = load_open_recipe(path, overrides)
    assert (recipe.crops.size, recipe.crops.batch_size) == (96, 4)
    assert recipe.student is not None
    assert recipe.student.training.epochs == 5
    assert "student.training.epochs" not in space
    assert space["crops.size"] == OpenValue(choice=[64, 96])


def test_the_share_of_the_teacher_is_opened_as_alpha_and_may_close_it(tmp_path: Path) -> None:
    path = recipe_file(tmp_path, distillation={"alpha": {"uniform": [0.2, 0.8]}})
    recipe, space = load_open_recipe(path, ["distillation.soft_weight=0.9"])
    assert recipe.distillation.alpha == pytest.approx(0.1)
    assert "distillation.alpha" not in space
    path = recipe_file(tmp_path, distillation={"soft_weight": {"uniform": [0.2, 0.8]}})
    with pytest.raises(ConfigError, match=r"distillation\.soft_weight.*open 'distillation\.alpha'"):
        load_open_recipe(path)


@pytest.mark.parametrize(
    ("value", "match"),
    [
        ({"log": [0, 1]}, "positive"),
        ({"uniform": [2, 1]}, "smaller"),
        ({"uniform": [0, 1], "choice": [1]}, "exactly one"),
        ({"choice": []}, "at least 1"),
        ({"int": [1, 2], "default": 3}, "default 3"),
        ({"int": [0.5, 2]}, "int"),
    ],
)
def test_what_is_wrong_with_an_open_value_is_said_with_its_place(value: object, match: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=match) as error:
        load_open_recipe(recipe_file(tmp_path, augmentation={"noise": value}))
    assert "augmentation.noise" in str(error.value)


def test_what_judges_can_not_be_open(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="seed"):
        load_open_recipe(recipe_file(tmp_path, seed={"int": [0, 5]}))


def test_a_recipe_with_open_values_is_for_tune_only(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="segshrink tune"):
        load_recipe(recipe_file(tmp_path))
