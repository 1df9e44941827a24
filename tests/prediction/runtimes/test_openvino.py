from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import openvino
import openvino.opset13 as opset
import pytest
from onnx import TensorProto, helper

from segshrink.classes import ClassMap
from segshrink.errors import MissingExtraError, ModelError
from segshrink.model_description import ModelDescription, Normalization
from segshrink.prediction import OpenVinoBackend, Predictor, open_backend
from segshrink.prediction.runtimes.openvino import KEPT, OpenVinoNetwork


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
    assert len(backend.network._parts) <= KEPT


@pytest.fixture
def compiled(monkeypatch):
    """Shapes that were compiled, None for any."""
    shapes = []
    real = OpenVinoNetwork._compiled

    def noted(network, output, shape):
        shapes.append(shape)
        return real(network, output, shape)

    monkeypatch.setattr(OpenVinoNetwork, "_compiled", noted)
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
    with pytest.raises(MissingExtraError, match=r"\[openvino\]"):
        OpenVinoBackend(path)


def rounded(*, pixels=openvino.Type.u8):
    """A graph with one rounding to 8 bits."""
    images = opset.parameter([-1, 3, -1, -1], pixels, "images")
    floats = opset.convert(images, np.float32)
    ends = [opset.constant(np.float32(end)) for end in (0, 255)]
    return openvino.Model([opset.result(opset.fake_quantize(floats, *ends, *ends, 256))], [images], "rounded")


@pytest.fixture
def asked(monkeypatch):
    """What OpenVINO was asked to compile: (shape, precision or None)."""
    real, seen = openvino.Core.compile_model, []

    def noted(core, model, device, properties):
        shape = model.input(0).get_partial_shape()
        seen.append((str(shape), properties.get("INFERENCE_PRECISION_HINT")))
        return real(core, model, device, properties)

    monkeypatch.setattr(openvino.Core, "compile_model", noted)
    return seen


@pytest.mark.parametrize("pixels", [openvino.Type.u8, openvino.Type.f32])
def test_8_bit_graphs_are_compiled_for_each_shape_alone_in_fp32(asked, pixels):
    network = OpenVinoNetwork(Path("rounded.xml"), model=rounded(pixels=pixels), threads=1)
    for height in (5, 4, 3, 4, 5):
        batch = np.arange(2 * 3 * height * 7).reshape(2, 3, height, 7).astype(pixels.to_dtype())
        np.testing.assert_array_equal(network.run(batch, 0), batch)
    assert asked == [(f"[2,3,{height},7]", "f32") for height in (5, 4, 3)]


def test_8_bit_onnx_files_are_known_as_such(tmp_path, images, asked):
    write(tmp_path / "cast.onnx")
    model = onnx.load(tmp_path / "cast.onnx")
    constants = (("one", TensorProto.FLOAT, 1.0), ("zero", TensorProto.UINT8, 0))
    model.graph.initializer.extend(helper.make_tensor(name, kind, [], [value]) for name, kind, value in constants)
    model.graph.node[0].output[0] = "pixels"
    model.graph.node.append(helper.make_node("QuantizeLinear", ["pixels", "one", "zero"], ["bytes"]))
    model.graph.node.append(helper.make_node("DequantizeLinear", ["bytes", "one", "zero"], ["logits"]))
    onnx.save(model, tmp_path / "int8.onnx")
    backend = OpenVinoBackend(tmp_path / "int8.onnx", threads=1)
    for height in (5, 4, 3):
        np.testing.assert_array_equal(backend.run(images[:, :height]), images[:, :height].transpose(0, 3, 1, 2))
    assert asked == [(f"[2,3,{height},7]", "f32") for height in (5, 4, 3)]


def test_a_float_graph_keeps_the_precision_that_openvino_chooses(tmp_path, images, asked):
    OpenVinoBackend(write(tmp_path / "cast.onnx"), threads=1).run(images)
    assert asked == [("[2,3,5,7]", None)]


@pytest.mark.parametrize("able", [True, False])
def test_fp32_is_tried_once_before_giving_up(tmp_path, images, monkeypatch, able):
    real, seen = openvino.Core.compile_model, []

    def failing(core, model, device, properties):
        seen.append(properties.get("INFERENCE_PRECISION_HINT"))
        if able and seen[-1] == "f32":
            return real(core, model, device, properties)
        raise RuntimeError("Exception from src/x.cpp:1:\nNo suitable implementations")

    monkeypatch.setattr(openvino.Core, "compile_model", failing)
    backend = OpenVinoBackend(write(tmp_path / "cast.onnx"), threads=1)
    if able:
        np.testing.assert_array_equal(backend.run(images), images.transpose(0, 3, 1, 2))
    else:
        with pytest.raises(ModelError, match=r"OpenVINO .*cast\.onnx in f32 .*No suitable implementations"):
            backend.run(images)
    assert seen == [None, "f32"]


def test_inputs_and_metadata_of_strangers_say_so(tmp_path):
    first, second = (opset.parameter([1, 3, 4, 4], np.float32, name) for name in "ab")
    model = openvino.Model([opset.result(opset.add(first, second))], [first, second], "sum")
    openvino.save_model(model, tmp_path / "sum.xml")
    with pytest.raises(ModelError, match=r"sum\.xml"):
        OpenVinoBackend(tmp_path / "sum.xml")
