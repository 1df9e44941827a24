"""TFLite files in integers from end to end."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from segshrink.classes import ClassMap
from segshrink.compression.quantization.litert_int8 import with_unsigned_ends, write_litert_int8
from segshrink.errors import MissingExtraError
from segshrink.models import build_model
from segshrink.prediction import open_backend

schema = pytest.importorskip("ai_edge_litert.schema_py_generated", reason="LiteRT isn't installed")


def halving() -> bytes:
    """A file that takes int8 pixels (scale 1, zero point -128) and gives int8 numbers of twice their scale."""
    import flatbuffers

    model, graph = schema.ModelT(), schema.SubGraphT()
    code, operator = schema.OperatorCodeT(), schema.OperatorT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.QUANTIZE
    code.version = 2
    graph.tensors = []
    for name, scale in ((b"images", 1.0), (b"logits", 2.0)):
        tensor, scales = schema.TensorT(), schema.QuantizationParametersT()
        scales.scale, scales.zeroPoint = [scale], [-128]
        tensor.name, tensor.type, tensor.shape, tensor.quantization = name, schema.TensorType.INT8, [1, 2, 4, 1], scales
        graph.tensors.append(tensor)
    operator.inputs, operator.outputs = [0], [1]
    graph.inputs, graph.outputs, graph.operators = [0], [1], [operator]
    model.version, model.operatorCodes, model.subgraphs, model.buffers = 3, [code], [graph], [schema.BufferT()]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def run(content: bytes, pixels: NDArray[np.generic]) -> NDArray[np.generic]:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    (takes,), (gives,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert (takes["name"], gives["name"]) == ("images", "logits")
    interpreter.set_tensor(takes["index"], pixels)
    interpreter.invoke()
    answer: NDArray[np.generic] = interpreter.get_tensor(gives["index"])
    return answer


def test_bytes_go_in_and_come_out() -> None:
    pixels = np.array([0, 2, 100, 128, 130, 200, 254, 255], np.uint8).reshape(1, 2, 4, 1)
    signed = (pixels.astype(int) - 128).astype(np.int8)
    answer = run(with_unsigned_ends(halving()), pixels)
    assert answer.dtype == np.uint8
    assert answer.ravel()[:-1].tolist() == [0, 1, 50, 64, 65, 100, 127]
    np.testing.assert_array_equal(answer.astype(int) - 128, run(halving(), signed))


def test_a_model_becomes_a_file_of_integers(tmp_path: Path) -> None:
    pytest.importorskip("litert_torch", reason="litert-torch isn't installed")
    pytest.importorskip("ai_edge_quantizer", reason="ai-edge-quantizer isn't installed")
    from ai_edge_litert.interpreter import Interpreter

    from segshrink.export import export_tflite

    model = build_model("unet", ClassMap.build(["a", "b", "c"]), options={"width": 4, "depth": 2}).eval()
    source = export_tflite(model, tmp_path / "fp32.tflite", tile=32, float_pixels=True)
    tiles = [np.random.default_rng(number).integers(0, 200, (3, 40, 24), dtype=np.uint8) for number in range(4)]
    write_litert_int8(source, tmp_path / "int8.tflite", tiles)
    interpreter = Interpreter(str(tmp_path / "int8.tflite"))
    (takes,), (gives,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert (takes["dtype"], gives["dtype"], takes["quantization"]) == (np.uint8, np.uint8, (1.0, 0))
    kinds = {np.dtype(entry["dtype"]).kind for entry in interpreter.get_tensor_details()}
    assert kinds <= {"i", "u"}
    floats, integers = open_backend(source, threads=1), open_backend(tmp_path / "int8.tflite", threads=1)
    images = np.stack([tile[:, :24].transpose(1, 2, 0) for tile in tiles])
    expected, actual = floats.run(images), integers.run(images)
    assert np.abs(actual - expected).mean() < 0.1 * expected.std()
    assert integers.description == floats.description


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ai_edge_quantizer", None)
    with pytest.raises(MissingExtraError, match=r"\[litert\]"):
        write_litert_int8(tmp_path / "fp32.tflite", tmp_path / "int8.tflite", [])
