"""A runtime that fails on this machine is named and left out; the files of the others are delivered."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from segshrink.compression.quantization import pipeline, qat, quantize
from segshrink.compression.quantization.result import QuantizationRow
from segshrink.config import Recipe
from segshrink.errors import ModelError
from segshrink.machine import describe_machine
from segshrink.models import SegmentationModel, build_model, load_model
from segshrink.prediction import open_backend

pytest.importorskip("nncf", reason="NNCF is not installed")
pytestmark = pytest.mark.usefixtures("quick_runs")

StandIn = Callable[[str, str], None]


@pytest.mark.parametrize(
    ("runtime", "deed", "reason", "delivered", "refused"),
    [
        ("onnxruntime", "raises", "no kernel for this", ("openvino", "int8.xml"), ["int8"]),
        ("onnxruntime", "aborts", "SIGABRT", ("openvino", "int8.xml"), ["int8"]),
        ("openvino", "aborts", "SIGABRT", ("onnxruntime", "int8.onnx"), ["fp32"]),
    ],
)
def test_the_other_runtimes_file_is_delivered(
    model: SegmentationModel,
    recipe: Recipe,
    tmp_path: Path,
    stand_in: StandIn,
    runtime: str,
    deed: str,
    reason: str,
    delivered: tuple[str, str],
    refused: list[str],
) -> None:
    stand_in(runtime, deed)
    steps: list[tuple[int, str]] = []
    result = quantize(
        model,
        recipe.data,
        out=tmp_path / "int8",
        images=2,
        max_drop=100,
        progress=lambda done, total, text: steps.append((done, text)),
    )
    assert steps.count((1, "calibration tiles")) == 1, "both runtimes share a calibration"
    record = json.loads((tmp_path / "int8" / "quantization.json").read_text())
    assert [(one["runtime"], one["precision"]) for one in record["refused"]] == [(runtime, one) for one in refused]
    assert reason in record["refused"][0]["reason"]
    assert reason in result.verdict
    assert record["machine"]["cpu"] == describe_machine()["cpu"]
    rows = {(row["runtime"], row["precision"]): row["file"] for row in record["rows"]}
    assert rows[delivered[0], "int8"] == delivered[1]
    assert (runtime, "int8") not in rows
    assert result.runtime == delivered[0] or result.chosen.name == "fp32.onnx"
    assert open_backend(tmp_path / "int8" / delivered[1]).description == model.description
    others = {path.name for path in (tmp_path / "int8").glob("int8.*")}
    assert others == ({"int8.onnx"} if delivered[1] == "int8.onnx" else {"int8.xml", "int8.bin"})


def test_when_no_runtime_is_left_all_are_named(
    model: SegmentationModel, recipe: Recipe, tmp_path: Path, stand_in: StandIn
) -> None:
    stand_in("openvino", "raises")
    with pytest.raises(ModelError, match=r"openvino.*no kernel for this"):
        quantize(model, recipe.data, out=tmp_path / "int8", images=2, runtimes=("openvino",))
    assert not (tmp_path / "int8").exists()


@pytest.mark.parametrize(("runtime", "file"), [("onnxruntime", "int8.onnx"), ("litert", "int8.tflite")])
def test_what_was_trained_for_8_bits_is_quantized_and_delivered(
    model: SegmentationModel,
    recipe: Recipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    runtime: str,
    file: str,
) -> None:
    if runtime == "litert":
        pytest.importorskip("ai_edge_quantizer", reason="LiteRT isn't installed")
    # Training makes the trained model of one with random weights.
    monkeypatch.setattr(qat, "quantization_aware_distillation", lambda *_, **__: model)
    untrained = build_model("unet", model.description.classes, options=model.description.options).eval()
    out = tmp_path / "int8"
    result = quantize(
        untrained, recipe.data, out=out, runtimes=(runtime,), images=2, quantization_aware_distillation=True
    )
    float32, int8 = result.rows
    assert (int8.runtime, int8.distilled, int8.file) == (runtime, True, out / file)
    assert int8.mean_iou > float32.mean_iou + 0.1
    kept = load_model(out / "model").state_dict()
    assert all(torch.equal(value, kept[name]) for name, value in model.state_dict().items())


def test_the_trained_model_is_quantized_for_litert_alone(
    model: SegmentationModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without LiteRT: its files are stand-ins, which are scored by their folder."""
    folder, scratch = tmp_path / "folder", tmp_path / "scratch"
    folder.mkdir()
    scratch.mkdir()
    monkeypatch.setattr(qat, "quantization_aware_distillation", lambda *_, **__: model)
    monkeypatch.setattr(pipeline, "export_tflite", lambda model, path, **_: path)
    monkeypatch.setattr(pipeline, "write_litert_int8", lambda source, path, tiles: path.touch())
    work = pipeline._Quantization(folder, folder, scratch, None, [], 1.0, lambda *_: None)  # type: ignore[arg-type]
    before = QuantizationRow("litert", "int8", scratch / "calibrated" / "int8.tflite", 0.5, 5.0, 0.9, 1)
    monkeypatch.setattr(work, "_score", lambda file, runtime: replace(before, file=file, drop=0.5))
    row = work.distilled(model, None, ["litert"], {"litert": before})["litert"]
    assert (row.distilled, row.drop) == (True, 0.5)
    assert row.file.is_file()
    assert row.file != before.file
    assert (folder / "model" / "config.json").is_file()
