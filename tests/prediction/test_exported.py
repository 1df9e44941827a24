"""What files of strangers say of themselves is checked before and after they run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from segshrink.classes import ClassMap
from segshrink.errors import ModelError
from segshrink.model_description import ModelDescription, Normalization
from segshrink.prediction import open_backend


def description(names: str = "abc", **changes: Any) -> dict[str, Any]:
    classes = ClassMap.build([(name, None, None) for name in names])
    return {**ModelDescription("net", classes, 3, Normalization((0.0,) * 3, (1.0,) * 3), 1).to_dict(), **changes}


def write(path: Path, metadata: str | bytes, *, output: str = "logits") -> Path:
    """A file whose logits, probabilities or classes are its bands: three of them, or numbers up to 255."""
    kind, shape = TensorProto.FLOAT, ["n", 3, "h", "w"]
    nodes = [helper.make_node("Cast", ["images"], [output], to=TensorProto.FLOAT)]
    constants = []
    if output == "classes":
        kind, shape = TensorProto.UINT8, ["n", "h", "w"]
        nodes = [helper.make_node("Gather", ["images", "first"], ["classes"], axis=1)]
        constants = [helper.make_tensor("first", TensorProto.INT64, [], [0])]
    takes = helper.make_tensor_value_info("images", TensorProto.UINT8, ["n", 3, "h", "w"])
    graph = helper.make_graph(nodes, "bands", [takes], [helper.make_tensor_value_info(output, kind, shape)], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    entry = "#" * len(metadata) if isinstance(metadata, bytes) else metadata
    helper.set_model_props(model, {"segshrink": entry})
    content = model.SerializeToString()
    path.write_bytes(content.replace(entry.encode(), metadata) if isinstance(metadata, bytes) else content)
    return path


@pytest.fixture
def images() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 3, (2, 4, 5, 3), dtype=np.uint8)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("output", ["logits", "probabilities", "classes"])
def test_more_classes_than_are_described_are_refused(
    tmp_path: Path, images: NDArray[np.uint8], runtime: str, output: str
) -> None:
    path = write(tmp_path / "net.onnx", json.dumps(description("ab")), output=output)
    with pytest.raises(ModelError, match=r"net\.onnx gives .*2 classes"):
        open_backend(path, runtime=runtime, threads=1).classify(images)
    if output != "classes":
        with pytest.raises(ModelError, match=r"net\.onnx gives .*2 classes"):
            open_backend(path, runtime=runtime, threads=1).run(images)
    sound = write(tmp_path / "sound.onnx", json.dumps(description("abc")), output=output)
    expected = images[..., 0] if output == "classes" else images.argmax(axis=3)
    np.testing.assert_array_equal(open_backend(sound, runtime=runtime, threads=1).classify(images), expected)


@pytest.mark.parametrize(
    "metadata",
    [
        "[" * 100_000,
        '{"bands": ' + "9" * 10_000 + "}",
        "[]",
        "null",
        b'{"id": "\xff\xfe"}',
        *(
            json.dumps(description(**change))
            for change in (
                {"stride": 0},
                {"stride": -8},
                {"stride": 10**9},
                {"stride": float("inf")},
                {"bands": 10**9},
                {"bands": float("inf")},
                {"bands": float("nan")},
                {"resolution": 10**400},
                {"resolution": float("inf")},
                {"normalization": {"mean": [10**400] * 3, "std": [1, 1, 1]}},
                {"normalization": {"mean": [0, 0, 0], "std": [float("inf")] * 3}},
                {"classes": {}},
                {"classes": 7},
                {"id": "x", "options": "y" * 5000},
            )
        ),
    ],
    ids=lambda text: str(text[:40]) + str(len(text)),
)
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_odd_metadata_are_one_short_sentence(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], runtime: str, metadata: str | bytes
) -> None:
    path = write(tmp_path / "net.onnx", metadata)
    with pytest.raises(ModelError, match=r"net\.onnx") as caught:
        open_backend(path, runtime=runtime, threads=1)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700 + len(str(path))
    assert capfd.readouterr() == ("", "")


def test_onnx_runtime_adds_nothing_to_the_sentence(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "net.onnx", json.dumps(description()))
    model = onnx.load(path)
    model.graph.node[0].op_type = "Nonesuch"
    onnx.save(model, path)
    with pytest.raises(ModelError, match=r"net\.onnx can't be loaded by ONNX Runtime"):
        open_backend(path, threads=1)
    model.graph.node[0].op_type = "Cast"
    model.graph.node[0].output[0] = "floats"
    axes = helper.make_tensor("axis", TensorProto.INT64, [1], [7])
    model.graph.initializer.append(axes)
    model.graph.node.append(helper.make_node("Gather", ["floats", "axis"], ["logits"], axis=1))  # only 3 bands
    onnx.save(model, path)
    with pytest.raises(ModelError, match=r"net\.onnx failed in onnxruntime on images of shape \(1, 3, 2, 2\)"):
        open_backend(path, threads=1).run(np.zeros((1, 2, 2, 3), np.uint8))
    assert capfd.readouterr() == ("", "")
