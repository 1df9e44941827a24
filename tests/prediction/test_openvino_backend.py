from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from segshrink.classes import ClassMap
from segshrink.errors import MissingExtraError, ModelError
from segshrink.models.description import ModelDescription
from segshrink.models.normalization import Normalization
from segshrink.prediction import OpenVinoBackend, Predictor, open_backend
from segshrink.prediction.openvino_graphs import KEPT, OpenVinoGraphs


def write(path, *, described=True, pixels=TensorProto.UINT8):
    """A file whose logits are the bands as floats."""
    graph = helper.make_graph(
        [helper.make_node("Cast", ["images"], ["logits"], to=TensorProto.FLOAT)],
        "cast",
        [helper.make_tensor_value_info("images", pixels, ["n", 3, "h", "w"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 3, "h", "w"])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    classes = ClassMap.build([(name, None, None) for name in "abc"])
    description = ModelDescription("cast", classes, 3, Normalization((0.0,) * 3, (1.0,) * 3), 1)
    helper.set_model_props(model, {"segshrink": json.dumps(description.to_dict())} if described else {})
    onnx.save(model, path)
    return path


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (2, 5, 7, 3), dtype=np.uint8)


def test_onnx_files_of_ours_run_in_openvino(tmp_path, images):
    backend = open_backend(write(tmp_path / "cast.onnx"), runtime="openvino", precision="32", threads=1)
    assert (backend.runtime, backend.name, backend.bands, backend.classes.names) == (
        "openvino",
        "cast",
        3,
        tuple("abc"),
    )
    assert backend.description.id == "cast"
    np.testing.assert_array_equal(backend.run(images), images.transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(backend.classify(images), images.argmax(axis=3))


def test_answers_stay_when_others_come_and_shapes_change(tmp_path, images):
    backend = OpenVinoBackend(write(tmp_path / "cast.onnx"), threads=1)
    first = backend.run(images)
    kept = first.copy()
    for count in (1, 2, 1, 2, 2):
        for height in (5, 4, 3):
            batch = images[:count, :height]
            np.testing.assert_array_equal(backend.run(batch), batch.transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(first, kept)
    assert len(backend._graphs._parts) <= KEPT


@pytest.fixture
def compiled(monkeypatch):
    """Shapes that were compiled, None for any."""
    shapes = []
    real = OpenVinoGraphs._compiled

    def noted(graphs, output, shape):
        shapes.append(shape)
        return real(graphs, output, shape)

    monkeypatch.setattr(OpenVinoGraphs, "_compiled", noted)
    return shapes


def test_the_first_shape_and_those_that_come_again_are_compiled_for(tmp_path, images, compiled):
    backend = OpenVinoBackend(write(tmp_path / "cast.onnx"), threads=1)
    whole, half, third = (images.transpose(0, 3, 1, 2)[:, :, :height].shape for height in (5, 4, 3))
    for height in (5, 5, 4, 3, 4, 3, 4, 5):
        backend.run(images[:, :height])
    assert compiled == [whole, None, half, third]


def test_threads_share_one_compiled_graph(tmp_path, images, compiled):
    backend = open_backend(write(tmp_path / "cast.onnx"), runtime="openvino", threads=2, streams=2)
    several = [np.roll(images, turn, axis=2) for turn in range(12)]
    with ThreadPoolExecutor(3) as threads:
        found = list(threads.map(backend.run, several))
    for answer, asked in zip(found, several, strict=True):
        np.testing.assert_array_equal(answer, asked.transpose(0, 3, 1, 2))
    assert compiled == [images.transpose(0, 3, 1, 2).shape]


def test_predictor_takes_runtime_and_threads(tmp_path, images):
    predictor = Predictor(
        write(tmp_path / "cast.onnx"), runtime="openvino", precision="32", threads=1, tile=4, overlap=1
    )
    np.testing.assert_array_equal(predictor.predict_array(images[0]).index, images[0].argmax(axis=2))


def test_wrong_pixels_say_so(tmp_path, images):
    backend = OpenVinoBackend(write(tmp_path / "cast.onnx"), threads=1)
    with pytest.raises(ModelError, match="8-bit pixels"):
        backend.run(images.astype(np.uint16))
    with pytest.raises(ModelError, match=r"\(N, H, W, 3\)"):
        backend.classify(images[..., :2])


def test_foreign_and_damaged_files_say_so(tmp_path):
    with pytest.raises(ModelError, match="not written by segshrink"):
        OpenVinoBackend(write(tmp_path / "foreign.onnx", described=False))
    (tmp_path / "text.xml").write_text("nothing of the kind")
    (tmp_path / "text.bin").write_bytes(b"")
    with pytest.raises(ModelError, match=r"text\.xml can't be loaded by OpenVINO") as caught:
        OpenVinoBackend(tmp_path / "text.xml")
    assert "\n" not in str(caught.value)


def test_a_processor_without_bf16_says_so(tmp_path, monkeypatch):
    path = write(tmp_path / "cast.onnx")

    monkeypatch.setattr("openvino.Core.get_property", lambda core, device, name: ["FP32", "INT8"])
    with pytest.raises(ModelError, match="doesn't compute in bf16"):
        OpenVinoBackend(path, precision="bf16")


def test_a_missing_openvino_names_the_extra(tmp_path, monkeypatch):
    path = write(tmp_path / "cast.onnx")
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)
    with pytest.raises(MissingExtraError, match=r"segshrink\[openvino\]"):
        OpenVinoBackend(path)
