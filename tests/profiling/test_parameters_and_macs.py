"""Parameters and bytes of files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from segshrink.model_file import ModelFile
from segshrink.profiling.parameters_and_macs import count_file_parameters

from .conftest import PARAMETERS


def test_parameters_of_an_onnx_file_are_its_numbers(onnx_model: Path) -> None:
    assert count_file_parameters(onnx_model) == PARAMETERS, "shapes are none"


def test_scales_of_a_quantized_file_are_no_parameters(tmp_path: Path) -> None:
    values = {
        "weight": np.ones((8, 3, 1, 1), np.int8),
        "scale": np.ones(8, np.float32),
        "zero": np.zeros(8, np.int8),
    }
    graph = helper.make_graph(
        [
            helper.make_node("DequantizeLinear", ["weight", "scale", "zero"], ["w"], axis=0),
            helper.make_node("Conv", ["x", "w"], ["y"]),
        ],
        "int8",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 8, 4, 4])],
        [numpy_helper.from_array(value, name) for name, value in values.items()],
    )
    onnx.save(helper.make_model(graph), str(tmp_path / "int8.onnx"))
    assert count_file_parameters(tmp_path / "int8.onnx") == 24


def test_openvino_has_two_files(onnx_model: Path, tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino")
    file = tmp_path / "tiny.xml"
    openvino.save_model(openvino.convert_model(str(onnx_model)), str(file), compress_to_fp16=False)
    assert count_file_parameters(file) == PARAMETERS
    assert ModelFile(file).size_bytes == file.stat().st_size + file.with_suffix(".bin").stat().st_size
    assert ModelFile(file).size_bytes > 4 * PARAMETERS


def test_a_file_that_nobody_can_read_tells_nothing(tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(b"no graph")
    assert count_file_parameters(damaged) is None
    assert count_file_parameters(tmp_path / "model.tflite") is None
