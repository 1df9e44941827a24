"""``segshrink prune``: smaller copies, and what the original teaches them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from segshrink.classes import ClassMap
from segshrink.colors import format_color
from segshrink.models import build_model, count_parameters, load_model

from .conftest import COLORS, left_behind

OPTIONS = {"width": 16, "depth": 2}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    classes = ClassMap.build([(name, format_color(color), None) for name, color in COLORS.items()])
    folder = tmp_path_factory.mktemp("models") / "original"
    build_model("unet", classes, options=OPTIONS).save(folder)
    return folder


def test_a_copy_of_half_the_width(segshrink, original: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "half"
    result = segshrink("prune", original, "--out", out, "--width", "0.5", "--size", 64, "--data", data)
    assert result.status == 0, result.err
    before, after = (count_parameters(load_model(folder)) for folder in (original, out))
    for word in ("parameters", f"{before:,}", f"{after:,}", f"{after / before:.0%}", "multiply-accumulates", "bytes"):
        assert word in result.out
    assert result.err.count("lost accuracy") == 1
    assert f"lost accuracy until the original teaches it: segshrink distill RECIPE --teacher {original}" in result.err
    assert json.loads((out / "config.json").read_text())["structure"]["layers"]["head"] == {"in_channels": 8}


def test_a_number_of_parameters(segshrink, original: Path, tmp_path: Path) -> None:
    out = tmp_path / "small"
    result = segshrink("prune", original, "-o", out, "--parameters", "7.5k", "--size", 32, "--steps", 2)
    assert result.status == 0, result.err
    assert 6500 < count_parameters(load_model(out)) <= 7500


def test_the_original_teaches_its_copy(segshrink, original: Path, recipe: Path, tmp_path: Path) -> None:
    content = json.loads(recipe.read_text())
    content["student"]["model"] = {"id": "mobile", "options": {"width": 0.25}}  # the copy takes its place
    content["distillation"] = {"inherit_encoder": True}
    recipe.write_text(json.dumps(content))
    out = tmp_path / "run"
    options = ("prune", original, "--out", out, "--ratio", "0.3", "--size", 32, "--recipe", recipe)
    (out / "pruned").mkdir(parents=True)
    (out / "pruned/cat.jpg").write_bytes(b"cat")
    assert "something other than a model" in segshrink(*options).sentence
    result = segshrink(*options, "student.training.epochs=1", "--overwrite")
    assert result.status == 0, result.err
    assert (out / "pruned/cat.jpg").read_bytes() == b"cat"
    for word in ("Teacher", "Student", "report:"):
        assert word in result.out
    copy, trained = load_model(out / "pruned"), load_model(out / "model")
    assert trained.description.structure == copy.description.structure
    assert trained.description.normalization == copy.description.normalization
    assert json.loads((out / "run.json").read_text())["teacher"] == str(original)
    assert str(out / "pruned") in (out / "config.yaml").read_text()
    assert not (out / "control").exists()

    again = segshrink(*options, "student.training.epochs=1")
    assert "--resume" in again.sentence
    written = (out / "pruned/config.json").stat().st_mtime_ns
    assert segshrink(*options, "student.training.epochs=1", "--resume").status == 0
    assert (out / "pruned/config.json").stat().st_mtime_ns == written
    evaluated = segshrink("evaluate", out)
    assert evaluated.status == 0, evaluated.err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), ("--width", "found none")),
        (("--width", "0.5", "--macs", "5M"), ("found --width, --macs",)),
        (("--ratio", "0.5", "--parameters", "5k"), ("found --ratio, --parameters",)),
        (("--macs", "many"), ("--macs must be a number such as 500M", "'many'")),
        (("--macs", "1.2.3M"), ("--macs must be a number",)),
        (("--width", "2"), ("--width", "1")),
        (("--width", "0"), ("width is the share that stays", "found 0")),
        (("--ratio", "1"), ("between 0 and 1", "found 1")),
        (("--ratio", "0.5", "--steps", "0"), ("at least 1", "found 0")),
        (("--depth", "0.5"), ("no residual block", "width")),
        (("--parameters", "100"), ("can't be reached", "nearest")),
        (("--ratio", "0.5", "seed=3"), ("'seed=3' changes a recipe", "--recipe")),
        (("--ratio", "0.5", "--control"), ("--control", "--recipe")),
        (("--ratio", "0.5", "--resume"), ("--resume", "--recipe")),
    ],
)
def test_wrong_wishes(
    segshrink, original: Path, tmp_path: Path, options: tuple[str, ...], words: tuple[str, ...]
) -> None:
    result = segshrink("prune", original, "--out", tmp_path / "out", *options)
    assert result.status == (1 if {"no residual block", "can't be reached"} & {*words} else 2)
    for word in words:
        assert word in result.sentence
    assert not (tmp_path / "out").exists()
    assert not left_behind(tmp_path)


def test_what_stands_in_the_way(segshrink, original: Path, recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/cat.jpg").write_bytes(b"cat")
    result = segshrink("prune", original, "--out", tmp_path / "photos", "--width", "0.5", "--size", 32)
    assert "something other than a model" in result.sentence
    assert "no model folder" in segshrink("prune", tmp_path / "absent", "-o", tmp_path / "x", "--width", "0.5").sentence
