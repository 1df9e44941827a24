"""Training from the model of a folder: its network, weights and normalization; what contradicts it is refused."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from segshrink.classes import VOC_CLASSES, ClassMap
from segshrink.compression.search.candidates import list_candidates
from segshrink.config import ModelChoice, Recipe, dump_yaml, load_recipe
from segshrink.data import CropModule, open_dataset
from segshrink.errors import ConfigError, FileError, ModelError
from segshrink.model_description import Normalization
from segshrink.models import SegmentationModel, build_model, load_model
from segshrink.teachers import Augmented, Ensemble, TorchTeacher
from segshrink.training import train
from segshrink.training.build_student import build_chosen, build_for_data, check_teacher_bands, tell_random_start
from segshrink.user_code import trusted_functions

from .conftest import write_scene

SCALING = Normalization((100.0, 90.0, 80.0), (40.0, 50.0, 60.0))


def started(names: list[str]) -> SegmentationModel:
    classes = ClassMap.build([(name, None, None) for name in names])
    return build_model("unet", classes, options={"width": 8, "depth": 2}, normalization=SCALING)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    started(["Ground", "Roof", "Water"]).save(tmp_path / "start")
    return tmp_path / "start"


def chosen(recipe: Recipe, **choice: object) -> SegmentationModel:
    return build_chosen(ModelChoice.model_validate(choice), open_dataset(recipe.data), lambda: SCALING)


def test_training_starts_from_the_folders_weights(recipe: Recipe, folder: Path, tmp_path: Path) -> None:
    model = chosen(recipe, id=str(folder))
    before = load_model(folder)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.state_dict().items())
    assert model.training
    assert model.description.normalization == SCALING

    content = json.loads(recipe.model_dump_json())
    content["student"]["model"] = {"id": str(folder)}
    content["student"]["training"] |= {"epochs": 1, "learning_rate": 1e-12}
    out = tmp_path / "run"
    train(Recipe.model_validate(content), out=out, role="control")
    trained = load_model(out)
    assert trained.description.normalization == SCALING
    weight = trained.network.state_dict()["head.weight"]
    assert torch.allclose(weight, before.network.state_dict()["head.weight"], atol=1e-6)
    assert load_recipe(out / "config.yaml").student == Recipe.model_validate(content).student


def test_the_model_knows_its_training_images(recipe: Recipe, tmp_path: Path) -> None:
    small = build_for_data(recipe.student.model, CropModule(open_dataset(recipe.data)))
    assert small.description.images is None, "four images of 96 pixels tell too little"
    rng = np.random.default_rng(1)
    for number in range(4):
        write_scene(recipe.data.root / "train", f"t{number}", rng, size=260)
    model = build_for_data(recipe.student.model, CropModule(open_dataset(recipe.data)))
    assert model.description.images is not None
    assert model.description.images.scenes == 16, "four parts of each"
    model.save(tmp_path / "model")
    kept = load_model(tmp_path / "model").description.images
    assert kept is not None
    np.testing.assert_allclose(kept.mean, model.description.images.mean, rtol=1e-3)


def test_folders_are_found_beside_the_recipe(recipe: Recipe, folder: Path, tmp_path: Path, monkeypatch) -> None:
    content = json.loads(recipe.model_dump_json())
    content["student"]["model"] = {"id": "start"}
    (tmp_path / "recipe.yaml").write_text(json.dumps(content))
    (tmp_path / "unet").mkdir()  # no model, so an id stays an id
    loaded = load_recipe(tmp_path / "recipe.yaml")
    assert loaded.student is not None
    assert loaded.student.model.id == str(folder)
    assert loaded.teacher is not None
    assert loaded.teacher.model.id == "unet"
    (tmp_path / "config.yaml").write_text(dump_yaml(loaded))
    assert load_recipe(tmp_path / "config.yaml") == loaded
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for override in ("student.model.id=../start", "student.model={id: ../start}"):
        again = load_recipe(tmp_path / "recipe.yaml", [override])
        assert again.student is not None
        assert again.student.model.id == str(folder)


@pytest.mark.parametrize(
    ("choice", "name"),
    [
        ({"options": {"width": 4}}, "options"),
        ({"encoder_weights": "x.pth"}, "encoder_weights"),
        ({"normalization": "imagenet"}, "normalization"),
        ({"sigmoid": True}, "sigmoid"),
    ],
)
def test_what_the_folder_brings_is_not_given_again(
    recipe: Recipe, folder: Path, choice: dict[str, object], name: str
) -> None:
    with pytest.raises(ConfigError, match=f"brings its own '{name}'; leave it out"):
        chosen(recipe, id=str(folder), **choice)


def test_classes_must_be_the_data_sets(recipe: Recipe, tmp_path: Path) -> None:
    started(["Roof", "Ground", "Water"]).save(tmp_path / "turned")
    with pytest.raises(ModelError, match="in the order Roof, Ground, Water, the data set in the order Ground"):
        chosen(recipe, id=str(tmp_path / "turned"))
    started(["Roof", "Ground", "Sea"]).save(tmp_path / "other")
    with pytest.raises(ModelError, match="has the classes Roof, Ground, Sea, but Ground, Roof, Water are asked for"):
        chosen(recipe, id=str(tmp_path / "other"))


def test_a_folder_with_the_name_of_a_network_is_written_like_a_folder(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    started(["Ground", "Roof", "Water"]).save(tmp_path / "mobile")
    monkeypatch.chdir(tmp_path)
    assert chosen(recipe, id="mobile").description.id == "mobile"
    assert chosen(recipe, id="./mobile").description.id == "unet"
    assert [list_candidates(ModelChoice(id=id))[0].family for id in ("mobile", "./mobile")] == ["mobile", "unet"]
    for id in ("mobile", "./mobile"):
        tell_random_start(ModelChoice(id=id))
    assert ["mobile starts" in line for line in caplog.messages] == [True]
    content = json.loads(recipe.model_dump_json())
    for id, loaded in (("mobile", "mobile"), ("./mobile", str(tmp_path / "mobile"))):
        content["student"]["model"] = {"id": id}
        (tmp_path / "recipe.yaml").write_text(json.dumps(content))
        assert load_recipe(tmp_path / "recipe.yaml").student.model.id == loaded


def test_a_folder_that_is_not_there(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(FileError, match="no model folder at"):
        chosen(recipe, id=str(tmp_path / "absent"))


@pytest.mark.parametrize(
    ("choice", "told"),
    [
        ({"id": "unet"}, True),
        ({"id": "smp:Unet/resnet34"}, True),
        ({"id": "smp:Unet/resnet34", "encoder_weights": "imagenet"}, False),
        ({"id": "smp:Unet/resnet34", "encoder_weights": "w.pth"}, False),
        ({"id": "smp:Unet/resnet34", "options": {"weights": "imagenet"}}, False),
        ({"id": "hf:some/model"}, False),
        ({"id": "./runs/teacher"}, False),
    ],
)
def test_a_random_start_is_told(choice: dict[str, Any], told: bool, caplog: pytest.LogCaptureFixture) -> None:
    tell_random_start(ModelChoice.model_validate(choice))
    assert [choice["id"] in line and "random" in line for line in caplog.messages] == [True] * told
    assert ("encoder_weights: imagenet" in caplog.text) == (told and choice["id"] != "unet")


@pytest.mark.parametrize(
    ("names", "fits"),
    [
        (("red", "green", "blue"), True),
        (("blue", "green", "red"), False),
        (("nir", "red", "green"), False),
        (None, True),
    ],
)
def test_teachers_that_learned_from_other_bands_are_refused(
    recipe: Recipe, names: tuple[str, ...] | None, fits: bool
) -> None:
    dataset = replace(open_dataset(recipe.data), band_names=("red", "green", "blue"))
    model = build_model("unet", dataset.classes, options={"width": 4, "depth": 2})
    model.description = replace(model.description, band_names=names)
    teacher = Augmented(Ensemble([TorchTeacher(model), TorchTeacher(model)], [1.0, 1.0]), flips=True)
    with nullcontext() if fits else pytest.raises(ModelError, match=r"red, green, blue.*'bands'"):
        check_teacher_bands(teacher, dataset)


def head_of(model: SegmentationModel, name: str) -> torch.Tensor:
    return model.network.state_dict()["head.weight"][model.description.classes.names.index(name)]


@pytest.mark.parametrize("told", ["by the recipe", "by labels", "by name alone"])
def test_training_goes_on_with_another_class_list(recipe: Recipe, tmp_path: Path, told: str) -> None:
    """Water and Ground are found by name in another order; Roof is the old House where something says so."""
    old = started(["Water", "House", "Ground", "Tree"])
    old.save(tmp_path / "old")
    content = json.loads(recipe.model_dump_json())
    content["student"]["model"] = {}
    if told == "by the recipe":
        content["student"]["model"] = {"start_classes": {"Roof": "House"}}
    elif told == "by labels":
        content["data"]["classes"][1]["labels"] = ["House"]
    recipe_file = tmp_path / "recipe.yaml"
    recipe_file.write_text(json.dumps({**content, "start": "old"}))
    loaded = load_recipe(recipe_file)
    assert loaded.student is not None
    choice = loaded.student.model
    assert choice.start == choice.id == str(tmp_path / "old")

    model = build_chosen(choice, open_dataset(loaded.data), lambda: SCALING)
    assert model.description.classes.names == ("Ground", "Roof", "Water")
    assert model.description.normalization == SCALING
    for name in ("Ground", "Water"):
        assert torch.equal(head_of(model, name), head_of(old, name))
    assert torch.equal(head_of(model, "Roof"), head_of(old, "House")) == (told != "by name alone")
    kept = {name: value for name, value in old.network.state_dict().items() if not name.startswith("head.")}
    assert all(torch.equal(model.network.state_dict()[name], value) for name, value in kept.items())
    (tmp_path / "config.yaml").write_text(dump_yaml(loaded))
    assert load_recipe(tmp_path / "config.yaml") == loaded


@pytest.mark.parametrize(("renamed", "kept"), [({}, []), ({"Roof": ["car", "bus"]}, ["Roof"])])
def test_training_starts_from_published_weights(recipe: Recipe, tmp_path: Path, renamed: dict, kept: list[str]) -> None:
    """Those of ESPNetv2 bring all but the head's rows of classes that they don't know."""
    voc = ClassMap.build(VOC_CLASSES)
    published = build_model("espnetv2", voc, options={"scale": 0.5}).network.state_dict()
    torch.save({f"module.{name}": value for name, value in published.items()}, tmp_path / "espnetv2.pth")
    model = chosen(recipe, start=str(tmp_path / "espnetv2.pth"), start_classes=renamed)
    assert (model.description.id, model.description.options) == ("espnetv2", {"scale": 0.5})
    assert model.description.classes.names == ("Ground", "Roof", "Water")
    head = "bu_dec_l4.merge_layer.3."
    own = model.network.state_dict()
    assert all(torch.equal(own[name], value) for name, value in published.items() if not name.startswith(head))
    mean = published[f"{head}weight"][[VOC_CLASSES.index("car"), VOC_CLASSES.index("bus")]].mean(dim=0)
    matching = [
        name for name, row in zip(("Ground", "Roof", "Water"), own[f"{head}weight"], strict=True) if row.equal(mean)
    ]
    assert matching == kept


def test_a_start_that_contradicts_itself_is_refused(recipe: Recipe, tmp_path: Path) -> None:
    started(["Water", "House"]).save(tmp_path / "old")
    with pytest.raises(ModelError, match=r"has no class 'Hut'"):
        chosen(recipe, start=str(tmp_path / "old"), start_classes={"Roof": "Hut"})
    started(["Sea", "House"]).save(tmp_path / "other")
    with pytest.raises(ModelError, match=r"share no name with the data set's"):
        chosen(recipe, start=str(tmp_path / "other"))
    with pytest.raises(FileError, match="no model folder"):
        chosen(recipe, start=str(tmp_path / "gone"))
    with pytest.raises(ValueError, match="start brings its own network; leave id: mobile out"):
        ModelChoice.model_validate({"id": "mobile", "start": "old"})
    with pytest.raises(ValueError, match="start_classes says"):
        ModelChoice.model_validate({"id": "mobile", "start_classes": {"a": "b"}})


def test_a_function_is_called_only_where_the_user_named_it(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run folder's recipe may be a stranger's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    code = "from pathlib import Path\nfrom torch import nn\nPath('called').touch()\n"
    (tmp_path / "trusted_by_name.py").write_text(f"{code}def net(classes): return nn.Conv2d(3, classes, 1)\n")
    named = "trusted_by_name:net"
    with pytest.raises(ConfigError, match=f"{named}.*--trust"):
        chosen(recipe, id=named)
    with trusted_functions("trusted_by_name:other"), pytest.raises(ConfigError, match="--trust"):
        chosen(recipe, id=named)
    assert not (tmp_path / "called").exists()
    with trusted_functions(named):
        assert chosen(recipe, id=named).description.id == named
