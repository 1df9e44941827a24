"""A file of ONNX written by hand: its parameters and what it computes are known, and no export is waited for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from segshrink.classes import ClassMap
from segshrink.model_description import ModelDescription, Normalization

NAMES = ("Ground", "Roof", "Water")
# A 3 x 3 convolution from 3 bands to 16 channels with biases, and one of 1 x 1 to 3 classes without.
PARAMETERS = 3 * 16 * 9 + 16 + 16 * 3


def write_onnx(path: Path, *, seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    weights = {
        "first": rng.normal(size=(16, 3, 3, 3)).astype(np.float32),
        "bias": np.ones(16, np.float32),
        "second": rng.normal(size=(3, 16, 1, 1)).astype(np.float32),
        "unused": np.array([1, 2], np.int64),
    }
    nodes = [
        helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Conv", ["pixels", "first", "bias"], ["features"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["features"], ["active"]),
        helper.make_node("Conv", ["active", "second"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["n", 3, "h", "w"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 3, "h", "w"])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    classes = ClassMap.build([(name, None, None) for name in NAMES])
    description = ModelDescription("tiny", classes, 3, Normalization.named("half"), 1)
    helper.set_model_props(model, {"segshrink": json.dumps(description.to_dict())})
    onnx.save(model, str(path))
    return path


@pytest.fixture(scope="session")
def onnx_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_onnx(tmp_path_factory.mktemp("onnx") / "tiny.onnx")
