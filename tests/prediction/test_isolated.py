"""A file is tried in a process of its own, whatever its runtime does there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import openvino
import pytest
from onnx import TensorProto, helper

from segshrink.classes import ClassMap
from segshrink.errors import ModelError
from segshrink.model_description import ModelDescription, Normalization
from segshrink.prediction import isolated
from segshrink.prediction.isolated import check_isolated

GRAPHS = Path(__file__).parent / "graphs"
StandIn = Callable[[str, str], None]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file whose logits are the bands, by way of 8 bits."""
    shape = ["n", 3, "h", "w"]
    nodes = [
        helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("QuantizeLinear", ["pixels", "one", "zero"], ["bytes"]),
        helper.make_node("DequantizeLinear", ["bytes", "one", "zero"], ["logits"]),
    ]
    constants = [
        helper.make_tensor("one", TensorProto.FLOAT, [], [1.0]),
        helper.make_tensor("zero", TensorProto.UINT8, [], [0]),
    ]
    takes = helper.make_tensor_value_info("images", TensorProto.UINT8, shape)
    gives = helper.make_tensor_value_info("logits", TensorProto.FLOAT, shape)
    graph = helper.make_graph(nodes, "bytes", [takes], [gives], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    classes = ClassMap.build([(name, None, None) for name in "abc"])
    description = ModelDescription("bytes", classes, 3, Normalization((0.0,) * 3, (1.0,) * 3), 1)
    helper.set_model_props(model, {"segshrink": json.dumps(description.to_dict())})
    onnx.save(model, tmp_path / "int8.onnx")
    return tmp_path / "int8.onnx"


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_sound_file_passes(path: Path, runtime: str) -> None:
    check_isolated(path, runtime=runtime, threads=1)


@pytest.mark.parametrize(
    ("runtime", "deed", "reason"),
    [
        ("onnxruntime", "raises", "no kernel for this"),
        ("onnxruntime", "aborts", "SIGABRT"),
        ("onnxruntime", "hangs", r"within 3 s"),
        ("openvino", "raises", "no kernel for this"),
        ("openvino", "aborts", "SIGABRT"),
    ],
)
def test_what_a_runtime_does_is_named(
    path: Path, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch, runtime: str, deed: str, reason: str
) -> None:
    stand_in(runtime, deed)
    if deed == "hangs":
        monkeypatch.setattr(isolated, "PATIENCE", 3.0)
    with pytest.raises(ModelError, match=rf"int8\.onnx .*{runtime}.*{reason}") as caught:
        check_isolated(path, runtime=runtime, threads=1)
    assert "\n" not in str(caught.value)


def test_a_damaged_file_is_refused_with_the_reason(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ModelError, match=r"int8\.onnx .*onnxruntime"):
        check_isolated(path, runtime="onnxruntime", threads=1)


# On processors with AMX, OpenVINO 2026.4 can't compile the first in bf16, and dies in the second where any shape may
# come.
@pytest.mark.parametrize("name", ["int8-zero-points", "int8-channel-ranges"])
def test_graphs_that_openvino_fails_with_on_some_processors_run(name: str) -> None:
    shape = openvino.Core().read_model(GRAPHS / f"{name}.xml").input(0).get_partial_shape()
    fixed = shape.is_static
    sizes = [(16, 16)] if fixed else [(8, 8), (17, 17), (19, 19), (38, 3), (64, 64)]
    shapes = [(1, shape[1].get_length(), *size) for size in sizes]
    check_isolated(GRAPHS / f"{name}.xml", runtime="openvino", threads=1, shapes=shapes)


def test_sizes_differ_and_one_is_odd() -> None:
    assert len(set(isolated.SIZES)) >= 3
    assert any(height % 2 and width % 2 for _, height, width in isolated.SIZES)
    assert np.ptp([count for count, _, _ in isolated.SIZES]) > 0
