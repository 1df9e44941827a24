"""Keras files through the command line: looked at, scored, timed, exported and quantized like models of ours."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from segshrink.models import count_parameters, load_model

from .conftest import COLORS, Run

CODE = """
import keras

class Twice(keras.layers.Layer):
    def call(self, inputs):
        return 2 * inputs
"""


@pytest.fixture
def network(keras_file) -> Path:
    """A file with the names of the data set's classes beside it."""
    path, _ = keras_file("nested")
    return named(path)


def named(path: Path, **more: str) -> Path:
    Path(f"{path}.yaml").write_text(json.dumps({"classes": list(COLORS), **more}))
    return path


def test_inspect(segshrink: Run, network: Path, keras_file, tmp_path: Path) -> None:
    result = segshrink("inspect", f"keras:{network}")
    assert result.status == 0, result.err
    assert "custom:net.keras" in result.out
    assert f"{count_parameters(load_model(network)):,} parameters, 3 bands" in result.out
    assert f"classes: {', '.join(COLORS)}" in result.out
    unet, _ = keras_file("unet", name="unet.h5")
    found = json.loads(segshrink("inspect", unet, "--json").out)
    assert (found["id"], found["stride"]) == ("unet", 16)
    assert [role["name"] for role in found["roles"]][:2] == ["encoder", "decoder"]
    compared = json.loads(segshrink("inspect", unet, network, "--json").out)
    assert sum(stage["parameters"] for stage in compared[str(unet)]) == found["parameters"]


def test_an_exported_file_scores_as_the_keras_file(segshrink: Run, network: Path, data: Path, tmp_path: Path) -> None:
    result = segshrink("evaluate", f"keras:{network}", "--data", data, "--out", tmp_path / "scores", "--json")
    assert result.status == 0, result.err
    exported = segshrink("export", network, "--out", tmp_path / "net.onnx", "--no-card")
    assert exported.status == 0, exported.err
    again = segshrink("evaluate", tmp_path / "net.onnx", "--data", data, "--json")
    scores, same = (json.loads(text)["scores"]["mean_iou"] for text in (result.out, again.out))
    assert scores == pytest.approx(same, abs=1e-4)
    assert json.loads((tmp_path / "scores" / "evaluation.json").read_text())["scores"]["mean_iou"] == scores


def test_classes_have_to_be_named(segshrink: Run, keras_file, data: Path) -> None:
    path, _ = keras_file("nested")
    result = segshrink("evaluate", path, "--data", data)
    assert result.status == 1
    assert "class 0, class 1, class 2" in result.sentence
    assert f"{path}.yaml" in "".join(result.err.split())


def test_quantize(segshrink: Run, network: Path, data: Path, tmp_path: Path) -> None:
    pytest.importorskip("nncf", reason="NNCF is not installed")
    out = tmp_path / "int8"
    options = ("--data", data, "--out", out, "--max-drop", 100, "--runtime", "openvino")
    result = segshrink("quantize", f"keras:{network}", *options)
    assert result.status == 0, result.err
    rows = json.loads((out / "quantization.json").read_text())["rows"]
    assert [row["precision"] for row in rows] == ["fp32", "int8"]
    assert rows[1]["agreement"] > 0.8
    assert 'element_type="i8"' in (out / "int8.xml").read_text()


def test_benchmark(segshrink: Run, network: Path, data: Path, tmp_path: Path) -> None:
    options = ("--runtime", "torch", "--size", 32, "--batch", 1, "--threads", 1, "--runs", 5, "--data", data)
    result = segshrink("benchmark", f"keras:{network}", *options, "--json")
    assert result.status == 0, result.err
    (row,) = json.loads(result.out)["rows"]
    assert (row["model"], row["runtime"], row["errors"]) == ("net", "torch", [])
    assert row["parameters"] == count_parameters(load_model(network))
    assert row["file_bytes"] == network.stat().st_size
    assert row["measurements"][0]["latency_ms"]["median"] > 0
    assert 0 <= row["mean_iou"] <= 1


def test_prune(segshrink: Run, keras_file, tmp_path: Path) -> None:
    path = named(keras_file("unet", width=8)[0])
    result = segshrink("prune", f"keras:{path}", "--width", 0.5, "--size", 32, "--out", tmp_path / "half")
    assert result.status == 0, result.err
    assert count_parameters(load_model(tmp_path / "half")) < 0.3 * count_parameters(load_model(path))


def test_code_of_others_needs_trust(segshrink: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from segshrink.models.keras_file import import_keras

    module = f"layers_{tmp_path.name}"
    (tmp_path / f"{module}.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    keras, path = import_keras(), tmp_path / "net.keras"
    inputs = keras.Input((None, None, 3))
    keras.Model(inputs, keras.layers.Conv2D(3, 1)(__import__(module).Twice()(inputs))).save(path)
    named(path, module=module)
    refused = segshrink("inspect", path)
    assert refused.status == 1
    assert "--trust" in refused.sentence
    assert module in refused.sentence
    result = segshrink("inspect", path, "--trust", "--json")
    assert result.status == 0, result.err
    assert json.loads(result.out)["classes"] == list(COLORS)
    assert segshrink("export", path, "--trust", "--out", tmp_path / "net.onnx", "--no-card").status == 0
