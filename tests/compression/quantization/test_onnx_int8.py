from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper
from onnxruntime import InferenceSession

from segshrink.compression.quantization.minify_onnx import minify
from segshrink.compression.quantization.onnx_int8 import (
    WEIGHTED,
    OnnxQuantizer,
    logits_of,
    observe_ranges,
    optimized,
    quantizable_nodes,
)
from segshrink.export import export_onnx
from segshrink.models import SegmentationModel
from segshrink.prediction import OnnxBackend

Images = Sequence[NDArray[np.uint8]]


@pytest.fixture(scope="module")
def quantizer(onnx_file: Path, tiles: Images) -> OnnxQuantizer:
    return OnnxQuantizer(onnx_file.read_bytes(), tiles)


@pytest.fixture(scope="module")
def int8_file(quantizer: OnnxQuantizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("int8") / "int8.onnx"
    path.write_bytes(quantizer.serialized())
    return path


def test_int8_decides_as_float_does(onnx_file: Path, int8_file: Path, images: Images) -> None:
    float32, int8 = OnnxBackend(onnx_file), OnnxBackend(int8_file)
    for image in images:
        expected, found = float32.classify(image[None]), int8.classify(image[None])
        assert len(np.unique(expected)) == 3
        assert (expected == found).mean() > 0.95
    assert not np.array_equal(float32.run(images[0][None]), int8.run(images[0][None]))


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 33, 50), (3, 5, 7)])
def test_any_size_works(onnx_file: Path, int8_file: Path, shape: tuple[int, int, int]) -> None:
    batch = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    found, expected = OnnxBackend(int8_file).run(batch), OnnxBackend(onnx_file).run(batch)
    assert found.shape == expected.shape == (shape[0], 3, *shape[1:])
    assert np.abs(found - expected).mean() < 0.2 * np.abs(expected).mean()
    np.testing.assert_array_equal(OnnxBackend(int8_file).classify(batch), found.argmax(axis=1))


def test_the_file_is_small_describes_the_model_and_tells_nothing_else(onnx_file: Path, int8_file: Path) -> None:
    content = int8_file.read_bytes()
    assert len(content) < 0.45 * len(onnx_file.read_bytes())
    assert OnnxBackend(int8_file).description == OnnxBackend(onnx_file).description
    proto = onnx.load(int8_file)
    assert [port.name for port in proto.graph.input] == ["images"]
    assert [port.name for port in proto.graph.output] == ["logits", "classes"]
    ports = {port.name for port in (*proto.graph.input, *proto.graph.output)}
    names = {name for node in proto.graph.node for name in node.output} - ports
    assert max(len(name) for name in names) <= 2
    assert str(Path.home()).encode() not in content
    assert str(onnx_file.parent).encode() not in content
    assert not proto.graph.value_info
    onnx.checker.check_model(proto)


def test_weights_are_signed_and_symmetric_activations_unsigned(int8_file: Path) -> None:
    proto = onnx.load(int8_file)
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    givers = {name: node for node in proto.graph.node for name in node.output}
    layers = [node for node in proto.graph.node if node.op_type in WEIGHTED]
    assert layers
    for layer in layers:
        activation, weight = (givers[name] for name in layer.input[:2])
        assert activation.op_type == weight.op_type == "DequantizeLinear"
        assert constants[activation.input[2]].dtype == np.uint8
        values, scales = (constants[name] for name in weight.input)  # no zero point: it is 0
        assert values.dtype == np.int8
        assert scales.shape == (values.shape[1 if layer.op_type == "ConvTranspose" else 0],)
        assert np.abs(values.astype(int)).max() == 64  # two products with 255 fit in 16 bits


def test_what_lies_outside_the_layers_stays_float(onnx_file: Path) -> None:
    proto = optimized(onnx_file.read_bytes())
    operators = {node.name: node.op_type for node in proto.graph.node}
    chosen = [operators[name] for name in quantizable_nodes(proto)]
    assert "BatchNormalization" not in operators.values()
    assert chosen.count("Conv") == list(operators.values()).count("Conv")
    assert chosen.count("Concat") == 1  # the skip connection, not the sizes for padding
    assert not {"Pad", "Sub", "Div", "Cast", "Slice", "Max", "Where", "Greater"} & set(chosen)
    assert operators[quantizable_nodes(proto)[-1]] == "Conv"


def test_ranges_are_those_of_the_tensors(onnx_file: Path, tiles: Images) -> None:
    proto = optimized(onnx_file.read_bytes())
    (last,) = [node.name for node in proto.graph.node if "logits" in node.output]
    extremes, mean = (ranges["logits"] for ranges in observe_ranges(proto, [last], tiles))
    lows, highs = zip(*((logits.min(), logits.max()) for logits in logits_of(proto, tiles)), strict=True)
    assert len(set(highs)) > 1
    assert extremes == pytest.approx((min(lows), max(highs)), rel=1e-4)
    assert mean == pytest.approx((np.mean(lows), np.mean(highs)), rel=1e-4)


def test_no_layer_in_8_bits_is_no_error(quantizer: OnnxQuantizer) -> None:
    assert quantizer.error([]) == 0
    one, all_of_them = quantizer.error(quantizer.nodes[:1]), quantizer.error()
    assert 0 < one < all_of_them < 0.1


def test_minifying_changes_no_value(quantizer: OnnxQuantizer, tiles: Images) -> None:
    whole = quantizer.quantize()
    small = minify(whole)
    for one, other in zip(logits_of(whole, tiles), logits_of(small, tiles), strict=True):
        np.testing.assert_array_equal(one, other)
    assert len(small.graph.initializer) < len(whole.graph.initializer)
    assert len(small.SerializeToString()) < 0.8 * len(whole.SerializeToString())


def test_bringing_images_to_the_working_size_stays_exact(
    model: SegmentationModel, tiles: list[NDArray[np.uint8]], tmp_path: Path
) -> None:
    file = export_onnx(model.with_resize(0.5), tmp_path / "half.onnx")
    quantizer = OnnxQuantizer(file.read_bytes(), tiles)
    assert quantizer.nodes
    assert not [name for name in quantizer.nodes if name.startswith("resize/")]
    assert quantizer.expected[0].shape[1:] == tiles[0].shape[1:]
    assert quantizer.error() < 0.05


def test_what_only_a_branch_uses_stays() -> None:
    def branch(name: str) -> onnx.GraphProto:
        output = onnx.helper.make_tensor_value_info(f"{name} out", onnx.TensorProto.FLOAT, [1])
        return onnx.helper.make_graph([onnx.helper.make_node("Identity", [name], [f"{name} out"])], name, [], [output])

    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("If", ["which"], ["out"], then_branch=branch("one"), else_branch=branch("two"))],
        "branches",
        [onnx.helper.make_tensor_value_info("which", onnx.TensorProto.BOOL, [])],
        [onnx.helper.make_tensor_value_info("out", onnx.TensorProto.FLOAT, [1])],
        [numpy_helper.from_array(np.array([n], np.float32), name) for n, name in ((1, "one"), (2, "two"))],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    session = InferenceSession(minify(model).SerializeToString(), providers=["CPUExecutionProvider"])
    assert [session.run(None, {"which": np.array(which)})[0] for which in (True, False)] == [1, 2]
