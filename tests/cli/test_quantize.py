from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from segshrink.config import load_recipe
from segshrink.prediction import open_backend

from .conftest import Run, left_behind

pytest.importorskip("nncf", reason="NNCF is not installed")


@pytest.fixture
def trained(recipe: Path, tmp_path: Path) -> Path:
    """A run folder that knows its data."""
    from segshrink.training import train

    folder = tmp_path / "run"
    train(load_recipe(recipe, ["student.training.epochs=6"]), out=folder, role="control")
    return folder


def test_a_run_is_quantized_for_both_runtimes(segshrink: Run, trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "int8"
    result = segshrink("quantize", trained, "--out", out, "--max-drop", 100)
    assert result.status == 0, result.err
    assert {path.name for path in out.iterdir()} == {
        "fp32.onnx",
        "int8.onnx",
        "int8.xml",
        "int8.bin",
        "quantization.json",
    }
    record = json.loads((out / "quantization.json").read_text())
    assert [(row["runtime"], row["precision"]) for row in record["rows"]] == [
        (runtime, precision) for runtime in ("onnxruntime", "openvino") for precision in ("fp32", "int8")
    ]
    assert record["tiles"] == 3
    for row in record["rows"]:
        assert row["agreement"] > 0.9
        assert row["latency_ms"] > 0
    assert record["rows"][1]["bytes"] == (out / "int8.onnx").stat().st_size
    assert record["rows"][3]["bytes"] == sum((out / name).stat().st_size for name in ("int8.xml", "int8.bin"))
    assert record["verdict"] in result.out.replace("\n", " ")
    assert "int8 openvino" in result.out
    image = np.random.default_rng(0).integers(0, 256, (2, 37, 51, 3), dtype=np.uint8)
    float32 = open_backend(out / "fp32.onnx")
    for name in ("int8.onnx", "int8.xml"):
        backend = open_backend(out / name)
        assert backend.description == float32.description
        assert (backend.classify(image) == float32.classify(image)).mean() > 0.85
        assert str(tmp_path) not in (out / name).read_bytes().decode("latin-1")
    assert not left_behind(tmp_path)


def test_bad_input_is_one_sentence_and_leaves_nothing(segshrink: Run, model: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "int8"
    cases = {
        "no run folder that knows its data set": (model,),
        "'onnx'; did you mean 'onnxruntime'?": (model, "--data", data, "--runtime", "onnx"),
        "no runtime is named": (model, "--data", data, "--runtime", ","),
        "at least 0, found -1": (model, "--data", data, "--max-drop", "-1"),
    }
    for words, arguments in cases.items():
        result = segshrink("quantize", *arguments, "--out", out)
        assert result.status == 2
        assert words in result.sentence
        assert not out.exists()
    kept = tmp_path / "mine"
    kept.mkdir()
    (kept / "notes.txt").write_text("keep me")
    result = segshrink("quantize", model, "--data", data, "--out", kept)
    assert str(kept / "notes.txt") in result.sentence
    assert [path.name for path in kept.iterdir()] == ["notes.txt"]


def test_images_of_other_bands_are_refused(segshrink: Run, model: Path, data: Path, tmp_path: Path) -> None:
    for path in data.parent.glob("*/images/*.jpg"):
        Image.open(path).convert("L").save(path)
    result = segshrink("quantize", model, "--data", data, "--out", tmp_path / "int8", "--runtime", "onnxruntime")
    assert "the model takes 3 bands but the images of 'rectangles' have 1" in result.sentence


def test_classes_in_another_order_are_refused(segshrink: Run, model: Path, data: Path, tmp_path: Path) -> None:
    content = yaml.safe_load(data.read_text())
    content["classes"] = content["classes"][::-1]
    data.write_text(yaml.safe_dump(content))
    result = segshrink("quantize", model, "--data", data, "--out", tmp_path / "int8", "--runtime", "onnxruntime")
    assert "are not those of data set 'rectangles'" in result.sentence
    assert not left_behind(tmp_path)


def test_a_run_folder_makes_nobody_run_code(recipe: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    own_recipe = import_module("segshrink.workflows.quantize")._own_recipe
    assert own_recipe(tmp_path) is None
    for source, kept in (("stranger:network", []), (str(tmp_path), [str(tmp_path)])):
        content = json.loads(recipe.read_text()) | {"distillation": {"teachers": [{"source": source}]}}
        (tmp_path / "config.yaml").write_text(json.dumps(content))
        own = own_recipe(tmp_path)
        assert [teacher.source for teacher in own.distillation.teachers] == kept
        assert ("would run code" in caplog.text) == (not kept)
        caplog.clear()
