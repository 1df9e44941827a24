"""ONNX files of anybody through the command line, and any ONNX file scored where torch is not installed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from .conftest import COLORS, Run

# Scores are minus the squared distances from the classes' colors, but for what all share: |c|² - 2 c·x, negated.
CENTERS = np.array(list(COLORS.values()), np.float32)


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A network that knows the data set's colors, as PyTorch's users export it: NCHW, any size, pixels from 0 to 1."""
    weights, bias = 2 * CENTERS * 255 / 1000, -(CENTERS**2).sum(axis=1) / 1000
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["input", "w", "b"], ["scores"]),
            helper.make_node("Relu", ["scores"], ["unused"]),
            helper.make_node("Softmax", ["scores"], ["output"], axis=1),
        ],
        "net",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", 3, "h", "w"])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["n", 3, "h", "w"])],
        [numpy_helper.from_array(weights[:, :, None, None], "w"), numpy_helper.from_array(bias, "b")],
    )
    path = tmp_path / "foreign.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    (tmp_path / "foreign.onnx.yaml").write_text("std: 255\n")
    return path


def test_it_is_inspected_scored_timed_and_predicted_with(segshrink: Run, foreign: Path, data: Path) -> None:
    shown = segshrink("inspect", foreign)
    assert shown.status == 0, shown.err
    assert "not written by segshrink" in shown.out
    assert "/ 255" in shown.out
    assert json.loads(segshrink("inspect", foreign, "--json").out)["parameters"] == 12
    scored = segshrink("evaluate", foreign, "--data", data, "--json")
    assert scored.status == 0, scored.err
    scores = json.loads(scored.out)
    assert scores["scores"]["mean_iou"] > 0.9
    assert [entry["name"] for entry in scores["classes"]] == list(COLORS)
    timed = segshrink(
        "benchmark", foreign, "--data", data, "--size", 64, "--batch", 1, "--threads", 1, "--runs", 5, "--json"
    )
    assert timed.status == 0, timed.err
    rows = json.loads(timed.out)["rows"]
    assert [row["runtime"] for row in rows] == ["onnxruntime", "openvino"]
    assert all(row["mean_iou"] == pytest.approx(scores["scores"]["mean_iou"], abs=0.01) for row in rows)
    out = foreign.parent / "maps"
    assert segshrink("predict", foreign, data.parent / "val" / "images", "--out", out).status == 0
    assert (out / "v0.png").is_file()


def test_it_is_quantized(segshrink: Run, foreign: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "int8"
    made = segshrink("quantize", foreign, "--data", data, "--out", out, "--runtime", "onnxruntime", "--max-drop", 100)
    assert made.status == 0, made.err
    rows = json.loads((out / "quantization.json").read_text())["rows"]
    assert [row["precision"] for row in rows] == ["fp32", "int8"]
    assert rows[0]["mean_iou"] > 0.9
    assert rows[1]["agreement"] > 0.9
    refused = segshrink("quantize", foreign, "--data", data, "--out", tmp_path / "other", "--qad")
    assert "can't be trained" in refused.sentence


def test_it_teaches_with_the_file_beside_it(segshrink: Run, foreign: Path, recipe: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    result = segshrink(
        "distill", recipe, "--teacher", foreign, "--out", run, "--no-doctor", "student.training.epochs=1"
    )
    assert result.status == 0, result.err
    assert json.loads((run / "teacher" / "evaluation.json").read_text())["scores"]["mean_iou"] > 0.9


def test_other_classes_are_one_sentence(segshrink: Run, foreign: Path, data: Path) -> None:
    foreign.with_name("foreign.onnx.yaml").write_text("std: 255\nclasses: [Roof, Ground, Water]\n")
    refused = segshrink("evaluate", foreign, "--data", data)
    assert refused.status == 1
    assert "Roof, Ground, Water" in refused.sentence
    foreign.with_name("foreign.onnx.yaml").write_text("std: 255\nclasses: [Roof, Ground]\n")
    assert "3 channel(s), but 2 class names are given" in segshrink("evaluate", foreign, "--data", data).sentence


def test_files_of_weights_alone_say_what_they_need(segshrink: Run, tmp_path: Path) -> None:
    import torch

    torch.save({"state_dict": {"head.weight": torch.zeros(2, 3)}}, tmp_path / "net.pth")
    assert "MODULE:FUNCTION" in segshrink("inspect", tmp_path / "net.pth").sentence


@pytest.mark.parametrize("whose", ["ours", "anybody's"])
def test_an_onnx_file_is_scored_without_torch(onnx_file: Path, foreign: Path, data: Path, whose: str) -> None:
    program = (
        "import sys\n"
        "for name in ('torch', 'torchvision', 'lightning', 'onnx', 'scipy'): sys.modules[name] = None\n"
        "from segshrink.cli import main\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    path = onnx_file if whose == "ours" else foreign
    command = [
        sys.executable,
        "-c",
        program,
        "evaluate",
        str(path),
        "--data",
        str(data),
        "--out",
        str(path.parent / "o"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    record = json.loads((path.parent / "o" / "evaluation.json").read_text())
    assert record["images"] == 2
    assert len(record["curves"]) == 3
