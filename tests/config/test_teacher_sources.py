"""Teachers in recipes: where their files are found, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from segshrink.config import (
    Adapter,
    TeacherSource,
    as_recipe,
    dump_yaml,
    load_adapter,
    load_recipe,
)
from segshrink.errors import ConfigError

TEACHERS = """\
distillation:
  teachers:
    - {source: runs/big, adapter: adapter.yaml, weights: COCO_WITH_VOC_LABELS_V1}
    - {source: "onnx:net.onnx", weights: net.pth, adapter: {size: 257, classes: names.txt}}
    - {source: "hf:someone/some-model", classes: {soil: [earth, sand]}, weight: 2}
  flips: left-right
  scales: [0.75, 1.0]
"""


def test_published_weights_of_torchvision_stand_behind_the_network() -> None:
    source = TeacherSource.model_validate("torchvision:fcn_resnet50@COCO_WITH_VOC_LABELS_V1")
    assert (source.source, source.weights) == ("torchvision:fcn_resnet50", Path("COCO_WITH_VOC_LABELS_V1"))
    assert TeacherSource.model_validate({"source": "runs/big@home"}).source == "runs/big@home"


def test_files_of_teachers_are_found_beside_the_recipe_and_other_names_are_left(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    text = recipe.read_text()
    recipe.write_text(text + TEACHERS)
    folder = recipe.parent
    (folder / "runs" / "big").mkdir(parents=True)
    for name in ("adapter.yaml", "net.onnx", "net.pth", "names.txt"):
        (folder / name).write_text("")
    monkeypatch.chdir("/")
    big, onnx, hub = load_recipe(recipe).distillation.teachers
    assert (big.source, big.adapter) == (str(folder / "runs" / "big"), folder / "adapter.yaml")
    assert str(big.weights) == "COCO_WITH_VOC_LABELS_V1"
    assert (onnx.source, onnx.weights) == (f"onnx:{folder / 'net.onnx'}", folder / "net.pth")
    assert isinstance(onnx.adapter, Adapter)
    assert (onnx.adapter.size, onnx.adapter.classes) == (257, folder / "names.txt")
    assert (hub.source, hub.classes, hub.weight) == ("hf:someone/some-model", {"soil": ["earth", "sand"]}, 2)
    distillation = load_recipe(recipe).distillation
    assert (distillation.flips, distillation.scales) == ("left-right", [0.75, 1.0])
    # A student of transformers starts from such a folder, too.
    text = (text + TEACHERS).replace("id: unet", '"id": "hf:runs/big"')
    recipe.write_text(text)
    student = load_recipe(recipe).student
    assert student is not None
    assert student.model.id == f"hf:{folder / 'runs' / 'big'}"
    long = f"x{'y' * 300}"
    (odd, empty) = load_recipe(
        recipe, [f"distillation.teachers=[{{source: {long}}}, {{source: ''}}]"]
    ).distillation.teachers
    assert (odd.source, empty.source) == (long, "")
    # On the command line they start from the working folder.
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    (only,) = load_recipe(recipe, ["distillation.teachers=[{source: mine}]"]).distillation.teachers
    assert only.source == str(tmp_path / "mine")
    # What a run writes down is read back as it was.
    (tmp_path / "config.yaml").write_text(dump_yaml(load_recipe(recipe)))
    assert load_recipe(tmp_path / "config.yaml") == load_recipe(recipe)


@pytest.mark.parametrize("key", ["softmax", "normalization", "scale", "batch", "ordre"])
def test_an_unknown_key_of_an_adapter_shows_all_its_keys(recipe: Path, key: str) -> None:
    recipe.write_text(f"{recipe.read_text()}distillation: {{teachers: [{{source: x, adapter: {{{key}: 1}}}}]}}\n")
    with pytest.raises(ConfigError, match=rf"unknown key 'distillation\.teachers\.0\.adapter\.{key}'") as caught:
        load_recipe(recipe)
    assert all(name in str(caught.value) for name in Adapter.model_fields)


@pytest.mark.parametrize(
    ("teaching", "expected"),
    [
        ("teachers: [{sorce: x}]", "unknown key 'distillation.teachers.0.sorce'; did you mean 'source'?"),
        ("teachers: [{source: x, weight: 0}]", "'distillation.teachers.0.weight' is wrong"),
        ("teachers: x", "'distillation.teachers' is wrong: expected a valid list"),
        ("scales: []", "'distillation.scales' is wrong"),
        ("scales: [0]", "'distillation.scales.0' is wrong"),
        ("combine: median", "'distillation.combine' is wrong"),
    ],
)
def test_wrong_teachers(recipe: Path, teaching: str, expected: str) -> None:
    recipe.write_text(f"{recipe.read_text()}distillation: {{{teaching}}}\n")
    with pytest.raises(ConfigError) as caught:
        load_recipe(recipe)
    assert expected in str(caught.value)


def test_an_adapter_finds_its_classes_beside_it(tmp_path: Path) -> None:
    (tmp_path / "adapter.yaml").write_text("{order: bgr, size: [257, 513], classes: names.txt}")
    adapter = load_adapter(tmp_path / "adapter.yaml")
    assert (adapter.order, adapter.size, adapter.classes) == ("bgr", (257, 513), tmp_path / "names.txt")
    (tmp_path / "adapter.yaml").write_text("ordre: bgr")
    with pytest.raises(ConfigError, match=r"adapter\.yaml: unknown key 'ordre'; did you mean 'order'"):
        load_adapter(tmp_path / "adapter.yaml")


@pytest.mark.parametrize(
    ("written", "override", "alpha"),
    [("alpha: 0.3", "soft_weight=0.9", 0.1), ("soft_weight: 0.9", "alpha=0.3", 0.3), ("flips: true", "alpha=0.3", 0.3)],
)
def test_an_override_of_one_share_replaces_the_other(recipe: Path, written: str, override: str, alpha: float) -> None:
    recipe.write_text(f"{recipe.read_text()}distillation: {{{written}, temperature: 3}}\n")
    overrides = [f"distillation.{override}"]
    for loaded in (load_recipe(recipe, overrides), as_recipe(load_recipe(recipe), overrides)):
        assert loaded.distillation.alpha == pytest.approx(alpha)
        assert loaded.distillation.temperature == 3


def test_the_share_of_the_teacher_is_one_minus_alpha(recipe: Path) -> None:
    text = recipe.read_text()
    recipe.write_text(f"{text}distillation: {{soft_weight: 0.9}}\n")
    loaded = load_recipe(recipe)
    assert loaded.distillation.alpha == pytest.approx(0.1)
    assert as_recipe(loaded).distillation == loaded.distillation
    recipe.write_text(f"{text}distillation: {{soft_weight: 0.9, alpha: 0.1}}\n")
    with pytest.raises(ConfigError, match=r"distillation.*'alpha'.*'soft_weight'"):
        load_recipe(recipe)
    recipe.write_text(f"{text}distillation: {{soft_weight: 1.9}}\n")
    with pytest.raises(ConfigError, match="soft_weight"):
        load_recipe(recipe)
