"""``segshrink benchmark`` on a small real file, through the real command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from segshrink.cli import main

from ..profiling.conftest import write_onnx
from .conftest import Run


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of the data set's classes; written by hand, as an export would take longer than all else here."""
    return write_onnx(tmp_path_factory.mktemp("benchmark") / "model.onnx")


def test_one_file_is_measured_and_scored(segshrink: Run, small: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "measured"
    options = ("--runtime", "onnxruntime", "--size", 32, "--batch", 2, "--threads", 1, "--runs", 5, "--data", data)
    result = segshrink("benchmark", small, *options, "--out", out)
    assert result.status == 0, result.err
    found = json.loads((out / "benchmark.json").read_text())
    (row,) = found["rows"]
    assert (row["model"], row["runtime"], row["errors"]) == ("model", "onnxruntime", [])
    assert 0 <= row["mean_iou"] <= 1
    assert (found["data"], found["split"], found["runs"]) == ("rectangles", "val", 5)
    (measured,) = row["measurements"]
    assert (measured["batch"], measured["threads"], measured["latency_ms"]["runs"]) == (2, 1, 5)
    assert measured["peak_memory_mb"] > measured["baseline_memory_mb"]
    assert "ONNX Runtime" in result.out
    assert f"{row['mean_iou']:.3f}" in result.out
    for name in ("benchmark.json", "benchmark.md", "benchmark.png"):
        assert str(out / name) in result.out
        assert (out / name).stat().st_size > 500


def test_wrong_usage_says_what_is_right(segshrink: Run, small: Path, tmp_path: Path) -> None:
    unknown = segshrink("benchmark", small, "--runtime", "onnxruntme")
    assert unknown.status == 2
    assert unknown.sentence == "error: runtime 'onnxruntme' is unknown; did you mean 'onnxruntime'?"
    absent = segshrink("benchmark", tmp_path / "absent.onnx")
    assert absent.status == 1
    assert "does not exist" in absent.sentence
    for option, text in (("--batch", "1,none"), ("--batch", "all"), ("--threads", "0,all"), ("--threads", ",")):
        wrong = segshrink("benchmark", small, option, text)
        assert wrong.status == 2
        assert f"'{text}' is no list of numbers" in " ".join(wrong.err.split())
    assert main(["benchmark"]) == 2


def test_a_runtime_for_another_file(segshrink: Run, small: Path) -> None:
    result = segshrink("benchmark", small, "--runtime", "torch")
    assert result.status == 1
    assert "can't run in PyTorch, but in ONNX Runtime and OpenVINO" in result.sentence
