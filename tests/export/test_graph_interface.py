"""Classes and probabilities inside the graph, on a graph whose logits are its input."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from segshrink.classes import ClassMap
from segshrink.errors import ModelError, UsageError
from segshrink.export.graph_interface import check_outputs, give
from segshrink.model_description import ModelDescription, Normalization
from segshrink.prediction import OnnxBackend, OpenVinoBackend


def write(path, *, classes, outputs):
    """A file that gives its input as logits."""
    shape = ["batch", classes, "height", "width"]
    graph = helper.make_graph(
        [helper.make_node("Identity", ["images"], ["logits"])],
        "same",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, shape)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    give(model, outputs, classes=classes)
    names = ClassMap.build([(f"class {number}", None, None) for number in range(classes)])
    normalization = Normalization((0.0,) * classes, (1.0,) * classes)
    description = ModelDescription("same", names, classes, normalization, 1, dtype="float32")
    helper.set_model_props(model, {"segshrink": json.dumps(description.to_dict())})
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def logits_with_ties(classes):
    values = np.random.default_rng(classes).normal(0, 3, (2, 9, 11, classes)).astype(np.float32)
    values[0, 3] = 1.5  # all are equal: the first one wins
    values[1, 4, :, classes // 2 :] = values[1, 4].max()  # the first of the later half wins
    return values


@pytest.mark.parametrize("classes", [1, 2, 6, 40])
@pytest.mark.parametrize("kind", [OnnxBackend, OpenVinoBackend])
def test_most_likely_class_is_the_first_of_equals(tmp_path, classes, kind):
    backend = kind(write(tmp_path / "same.onnx", classes=classes, outputs=("logits", "classes")), threads=1)
    images = logits_with_ties(classes)
    for _ in range(2):  # the second time OpenVINO runs what it compiled for this shape
        found = backend.classify(images)
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, images.argmax(axis=3))
        np.testing.assert_array_equal(backend.run(images), images.transpose(0, 3, 1, 2))


@pytest.mark.parametrize("kind", [OnnxBackend, OpenVinoBackend])
def test_probabilities_alone_still_give_logits_and_classes(tmp_path, kind):
    backend = kind(write(tmp_path / "same.onnx", classes=4, outputs=("probabilities",)), threads=1)
    images = logits_with_ties(4)
    expected = np.exp(images.astype(np.float64))
    expected /= expected.sum(axis=3, keepdims=True)
    found = np.exp(backend.run(images).astype(np.float64)).transpose(0, 2, 3, 1)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_array_equal(backend.classify(images), images.argmax(axis=3))


def test_classes_alone_give_no_logits(tmp_path):
    backend = OnnxBackend(write(tmp_path / "same.onnx", classes=3, outputs=("classes",)), threads=1)
    assert backend.classify(logits_with_ties(3)).shape == (2, 9, 11)
    with pytest.raises(ModelError, match="gives classes alone"):
        backend.run(logits_with_ties(3))


def test_only_what_is_asked_for_is_executed(tmp_path):
    """The way to the classes is broken here, and nobody notices who asks for logits."""
    model = onnx.load(write(tmp_path / "same.onnx", classes=3, outputs=("logits", "classes")))
    model.graph.node[-1].output[0] = "whole"
    seven = onnx.numpy_helper.from_array(np.array([7, 1, 1], np.int64), "seven")
    model.graph.initializer.append(seven)
    model.graph.node.append(helper.make_node("Reshape", ["whole", "seven"], ["classes"]))
    onnx.save(model, tmp_path / "broken.onnx")
    backend = OnnxBackend(tmp_path / "broken.onnx", threads=1)
    images = logits_with_ties(3)
    np.testing.assert_array_equal(backend.run(images), images.transpose(0, 3, 1, 2))
    with pytest.raises(ModelError, match=r"broken\.onnx failed in onnxruntime on images of shape \(2, 3, 9, 11\)"):
        backend.classify(images)


def test_outputs_are_checked():
    assert check_outputs(["classes", "logits", "classes"]) == ("logits", "classes")
    with pytest.raises(UsageError, match="did you mean 'logits'"):
        check_outputs(["logit"])
    with pytest.raises(UsageError, match="must give something"):
        check_outputs([])
