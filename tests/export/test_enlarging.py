"""Logits enlarged by a convolution are those that a resize gives."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from segshrink.compression.quantization.onnx_int8 import optimized, quantizable_nodes
from segshrink.export.enlarging import PHASES, enlarge_by_convolution, factor_of
from segshrink.export.onnx import to_onnx
from segshrink.models import SegmentationModel


def resizing(classes: int, factor: int, mode: str = "linear") -> onnx.ModelProto:
    shape = ["batch", classes, "height", "width"]
    scales = numpy_helper.from_array(np.array([1, 1, factor, factor], np.float32), "scales")
    graph = helper.make_graph(
        [helper.make_node("Resize", ["images", "", "scales"], ["logits"], mode=mode)],
        "resizing",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", classes, None, None])],
        [scales],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def run(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"images": images})[0]


@pytest.mark.parametrize(("factor", "classes"), [(2, 1), (2, 6), (3, 3), (4, 21), (8, 2)])
@pytest.mark.parametrize("size", [(5, 7), (1, 1)])
def test_it_gives_what_the_resize_gave(factor: int, classes: int, size: tuple[int, int]) -> None:
    images = np.random.default_rng(0).normal(size=(2, classes, *size)).astype(np.float32)
    model = resizing(classes, factor)
    expected = run(model, images)
    assert enlarge_by_convolution(model, factor=factor, classes=classes)
    onnx.checker.check_model(model)
    assert "Resize" not in {node.op_type for node in model.graph.node}
    assert factor_of(model) == factor
    np.testing.assert_allclose(run(model, images), expected, atol=1e-6)


@pytest.mark.parametrize(("factor", "classes", "mode"), [(2, 21, "linear"), (1, 2, "linear"), (4, 2, "nearest")])
def test_what_gains_nothing_and_other_resizes_are_left_alone(factor: int, classes: int, mode: str) -> None:
    model = resizing(classes, factor, mode)
    before = model.SerializeToString()
    assert not enlarge_by_convolution(model, factor=factor, classes=classes)
    assert model.SerializeToString() == before
    assert factor_of(model) is None


@pytest.mark.parametrize("factor", [2, 4])
def test_int8_leaves_it_alone(small: SegmentationModel, factor: int) -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, stride=factor), nn.ReLU(), nn.Conv2d(8, 4, 1))
    model = to_onnx(SegmentationModel(network, replace(small.description, stride=factor)).eval())
    assert factor_of(model) == factor
    assert any(PHASES in node.output[0] for node in model.graph.node if node.op_type == "Conv")
    nodes = quantizable_nodes(optimized(model.SerializeToString()))
    assert nodes
    assert not [name for name in nodes if name.startswith("enlarging/")]
