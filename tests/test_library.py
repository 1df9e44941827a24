"""Ready models: small, described, and found by name wherever a model is given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
import yaml
from PIL import Image
from torch import nn

from segshrink import Predictor, build_model, load_model, load_recipe, open_dataset, open_teacher, predict_scene
from segshrink.classes import ClassMap
from segshrink.cli import main
from segshrink.errors import FileError
from segshrink.library import located, ready_models
from segshrink.model_description import Normalization
from segshrink.model_file import ModelFile
from segshrink.training.build_student import build_chosen

ROOT = Path(__file__).resolve().parents[1]
LARGEST_FILE, LARGEST_START, LARGEST_LIBRARY = 450_000, 1_000_000, 2_000_000
LANDCOVER, START = "aerial-landcover", "aerial"


@pytest.fixture
def image() -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", ready_models())
def test_a_ready_model_is_small_and_described(name: str) -> None:
    path = ready_models()[name]
    assert ModelFile.find(name).size_bytes <= (LARGEST_FILE if path.suffix else LARGEST_START)
    assert sum(each.stat().st_size for each in path.parent.rglob("*") if each.is_file()) <= LARGEST_LIBRARY
    if path.suffix:
        card, classes = path.with_suffix(".md").read_text(encoding="utf-8"), Predictor(path).classes
        assert "## Sources" in card
        assert all(f"| IoU of {each} |" in card for each in classes.names)
        assert path.name in (ROOT / "NOTICE").read_text(encoding="utf-8")


def test_what_lies_in_the_working_folder_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert located(LANDCOVER) == ready_models()[LANDCOVER]
    Path(LANDCOVER).mkdir()
    assert located(LANDCOVER) == LANDCOVER
    with pytest.raises(FileError, match=r"nowhere does not exist.* or a ready model: .*aerial-landcover"):
        ModelFile.find("nowhere")


def test_the_name_stands_for_the_file(image: npt.NDArray[np.uint8], tmp_path: Path) -> None:
    path = ready_models()[LANDCOVER]
    named, same = (Predictor(each).predict_array(image) for each in (LANDCOVER, path))
    assert np.array_equal(named.probabilities, same.probabilities)
    Image.fromarray(image).save(tmp_path / "scene.png")
    files = predict_scene(LANDCOVER, tmp_path / "scene.png", tmp_path / "maps")
    assert np.array_equal(np.asarray(Image.open(files.classes)), same.index)


def test_it_teaches(image: npt.NDArray[np.uint8]) -> None:
    path = ready_models()[LANDCOVER]
    batch = torch.from_numpy(image).permute(2, 0, 1)[None]
    teachers = [open_teacher(each, Predictor(path).classes) for each in (LANDCOVER, path)]
    assert torch.equal(*(teacher.logits(batch) for teacher in teachers))


@pytest.mark.parametrize("name", [LANDCOVER, START])
def test_it_can_be_inspected(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", name]) == 0
    assert "Vegetation" in capsys.readouterr().out


def test_a_student_starts_from_it(tmp_path: Path) -> None:
    for name in "ab":
        Image.new("RGB", (64, 64)).save(tmp_path / f"{name}.png")
        Image.new("L", (64, 64)).save(tmp_path / f"{name}_mask.png")
    data = {
        "root": str(tmp_path), "images": "?.png", "masks": "?_mask.png", "classes": ["Sea", "Water"],
        "split": {"train": ["a.png"], "val": ["b.png"]}, "name": "two",
    }  # fmt: skip
    recipe = {"name": "two", "data": data, "student": {"model": {"start": START}}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    choice = load_recipe(tmp_path / "recipe.yaml").student.model
    assert choice.start == START
    student = build_chosen(choice, open_dataset(load_recipe(tmp_path / "recipe.yaml").data), pytest.fail)
    start = load_model(START)
    water = start.description.classes.names.index("Water")
    head, old = (_last_weights(each.network) for each in (student, start))
    assert torch.equal(head[1], old[water])
    assert len(head) == 2


def test_an_encoder_starts_from_it() -> None:
    start = load_model(START)
    classes = ClassMap.build([("a", None, None), ("b", None, None)])
    model = build_model("mobile", classes, options=start.description.options, encoder_weights=Path(START))
    weights = start.network.state_dict().items()
    old = {name: value for name, value in weights if name.startswith("encoder.") and value.is_floating_point()}
    assert all(torch.equal(value, model.network.state_dict()[name]) for name, value in old.items())
    assert model.description.normalization == start.description.normalization == Normalization.named("half", 3)


def _last_weights(network: nn.Module) -> torch.Tensor:
    return [value for name, value in network.named_parameters() if name.endswith("weight")][-1]
