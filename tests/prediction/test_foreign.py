"""Files of anybody as backends: scaled, turned and read as the file beside them and the data set say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from segshrink.classes import ClassMap
from segshrink.errors import ConfigError, ModelError
from segshrink.export.foreign_onnx import as_our_onnx
from segshrink.model_file import ModelFile
from segshrink.prediction import Predictor, open_backend
from segshrink.prediction.inspection import inspect_file
from segshrink.prediction.tiled import WHOLE

CLASSES = ClassMap.build([("Land", "#804000", None), ("Water", "#0000FF", None), ("Road", "#808080", None)])
# Scores are 1, 2 and 3 times what the network gets in the three bands.
MIXING = np.diag([1.0, 2.0, 3.0]).astype(np.float32)
# Its pixels lie around 0.
SCALING = {"mean": [100.0, 120.0, 140.0], "std": 50.0}


def write(
    path: Path,
    *after: tuple[str, dict[str, Any]],
    nhwc: bool = False,
    weights: NDArray[np.float32] = MIXING,
    size: tuple[Any, Any] = ("height", "width"),
    batch: Any = "batch",
    kind: int = TensorProto.FLOAT,
    shape: tuple[Any, ...] | None = None,
    sidecar: dict[str, Any] | None = None,
) -> Path:
    """Write a 1 × 1 convolution, and what comes after it, as an ONNX file with what stands beside it."""
    bands = weights.shape[1]
    takes = [batch, *size, bands] if nhwc else [batch, bands, *size]
    nodes, value = [], "images"
    steps: list[tuple[str, dict[str, Any]]] = [("Transpose", {"perm": [0, 3, 1, 2]})] if nhwc else []
    steps += [("Conv", {}), *after]
    if nhwc and shape is None:
        steps.append(("Transpose", {"perm": [0, 2, 3, 1]}))
    for number, (operator, attributes) in enumerate(steps):
        output = "answer" if number + 1 == len(steps) else f"step{number}"
        inputs = [value, "weights"] if operator == "Conv" else [value]
        nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        value = output
    gives = shape or ((batch, *size, len(weights)) if nhwc else (batch, len(weights), *size))
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, takes)],
        [helper.make_tensor_value_info("answer", kind, gives)],
        [numpy_helper.from_array(weights[:, :, None, None], "weights")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    if sidecar is not None:
        ModelFile(path).adapter.write_text(yaml.safe_dump(sidecar))
    return path


@pytest.fixture
def images() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (2, 37, 51, 3), dtype=np.uint8)


def scores(images: NDArray[np.uint8], *, turned: bool = False) -> NDArray[np.float64]:
    """What the network gives (N, C, H, W), by hand."""
    pixels = images[..., ::-1] if turned else images
    scaled = (pixels.astype(float) - SCALING["mean"]) / SCALING["std"]
    return (scaled * [1, 2, 3]).transpose(0, 3, 1, 2)


def softmax(logits: NDArray[Any], axis: int = 1) -> NDArray[Any]:
    exponents = np.exp(logits - logits.max(axis=axis, keepdims=True))
    return exponents / exponents.sum(axis=axis, keepdims=True)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("nhwc", [False, True])
@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_images_of_any_size_are_scaled_and_turned(
    tmp_path: Path, images: NDArray[np.uint8], runtime: str, nhwc: bool, order: str
) -> None:
    path = write(tmp_path / "net.onnx", nhwc=nhwc, sidecar={**SCALING, "order": order})
    backend = open_backend(path, runtime=runtime, precision="32", threads=1, classes=CLASSES)
    assert (backend.classes, backend.bands, backend.runtime) == (CLASSES, 3, runtime)
    expected = scores(images, turned=order == "bgr")
    np.testing.assert_allclose(backend.run(images), expected, atol=1e-4)
    np.testing.assert_array_equal(backend.classify(images), expected.argmax(axis=1))


def test_probabilities_of_all_classes_and_of_one(tmp_path: Path, images: NDArray[np.uint8]) -> None:
    path = write(tmp_path / "soft.onnx", ("Softmax", {"axis": 1}), sidecar=SCALING)
    backend = open_backend(path, threads=1, classes=CLASSES)
    np.testing.assert_allclose(softmax(backend.run(images)), softmax(scores(images)), atol=1e-5)
    one = np.array([[1.0, 0, 0]], np.float32)
    path = write(tmp_path / "one.onnx", ("Sigmoid", {}), weights=one, sidecar={**SCALING, "classes": ["no", "yes"]})
    backend = open_backend(path, threads=1)
    chance = 1 / (1 + np.exp(-scores(images)[:, 0]))
    assert backend.classes.names == ("no", "yes")
    np.testing.assert_allclose(softmax(backend.run(images))[:, 1], chance, atol=1e-5)


def test_class_numbers_alone(tmp_path: Path, images: NDArray[np.uint8]) -> None:
    after = ("ArgMax", {"axis": 1, "keepdims": 0})
    path = write(tmp_path / "net.onnx", after, kind=TensorProto.INT64, shape=("n", "h", "w"), sidecar=SCALING)
    with pytest.raises(ModelError, match=r"net\.onnx\.yaml beside it: classes"):
        open_backend(path, threads=1)
    backend = open_backend(path, threads=1, classes=CLASSES)
    np.testing.assert_array_equal(backend.classify(images), scores(images).argmax(axis=1))
    np.testing.assert_allclose(softmax(backend.run(images)).max(axis=1), 0.9, atol=1e-6)
    with pytest.raises(ModelError, match="answers with class numbers; export it with its scores"):
        as_our_onnx(backend, tmp_path / "ours.onnx")


@pytest.mark.parametrize("fit", ["tile", "stretch"])
def test_a_network_of_one_size_sees_images_of_all(tmp_path: Path, fit: str) -> None:
    path = write(tmp_path / "net.onnx", size=(32, 32), batch=1, sidecar={**SCALING, "fit": fit})
    backend = open_backend(path, threads=1, classes=CLASSES)
    flat = np.full((2, 50, 70, 3), 77, np.uint8)
    np.testing.assert_allclose(backend.run(flat), scores(flat), atol=1e-4)
    assert Predictor(backend).tiling.tile == (32 if fit == "tile" else WHOLE)
    noise = np.random.default_rng(0).integers(0, 256, (1, 40, 33, 3), dtype=np.uint8)
    found = backend.run(noise)
    # Tiles of a network that looks at single pixels have no seams.
    assert np.allclose(found, scores(noise), atol=1e-4) is (fit == "tile")
    with pytest.raises(ModelError, match="32 x 32 pixels alone"):
        as_our_onnx(backend, tmp_path / "ours.onnx")


def test_classes_are_numbered_where_nobody_names_them(tmp_path: Path) -> None:
    path = write(tmp_path / "net.onnx", sidecar=SCALING)
    assert open_backend(path, threads=1).classes.names == ("class 0", "class 1", "class 2")
    two = ClassMap.build(["a", "b"])
    with pytest.raises(ModelError, match=r"3 channel\(s\), but the data set has 2 classes; .*'classes'"):
        open_backend(path, threads=1, classes=two)


def test_the_file_beside_it_counts(tmp_path: Path, images: NDArray[np.uint8]) -> None:
    path = write(tmp_path / "net.onnx", sidecar={"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]})
    for dtype in (np.uint8, np.uint16, np.int16, np.float32):
        with pytest.raises(ConfigError, match="for pixels from 0 to 1"):
            open_backend(path, threads=1, classes=CLASSES).run(images.astype(dtype))
    before = ModelFile(path).sha256()
    ModelFile(path).adapter.write_text(yaml.safe_dump({**SCALING, "classes": ["A", "B", "C"]}))
    assert ModelFile(path).sha256() != before
    assert ModelFile(path).size_bytes == path.stat().st_size
    assert open_backend(path, threads=1).classes.names == ("A", "B", "C")
    ModelFile(path).adapter.write_text("meen: 3")
    with pytest.raises(ConfigError, match=r"net\.onnx\.yaml.*meen.*mean"):
        open_backend(path, threads=1)


@pytest.mark.parametrize("head", ["logits", "softmax", "sigmoid"])
@pytest.mark.parametrize("nhwc", [False, True])
def test_it_becomes_a_file_of_ours(tmp_path: Path, images: NDArray[np.uint8], head: str, nhwc: bool) -> None:
    weights = MIXING[:1] if head == "sigmoid" else MIXING
    after = {"logits": [], "softmax": [("Softmax", {"axis": 1})], "sigmoid": [("Sigmoid", {})]}[head]
    path = write(tmp_path / "net.onnx", *after, weights=weights, nhwc=nhwc, sidecar={**SCALING, "order": "bgr"})
    classes = ClassMap.build(["no", "yes"]) if head == "sigmoid" else CLASSES
    theirs = open_backend(path, threads=1, classes=classes)
    ours = open_backend(as_our_onnx(theirs, tmp_path / "ours.onnx"), threads=1)
    assert ours.classes.names == classes.names
    np.testing.assert_allclose(ours.run(images), theirs.run(images), atol=1e-3)
    np.testing.assert_array_equal(ours.classify(images), theirs.classify(images))
    again = as_our_onnx(ours, tmp_path / "again.onnx")
    assert again.read_bytes() == (tmp_path / "ours.onnx").read_bytes()


def test_what_is_inside_is_told(tmp_path: Path) -> None:
    path = write(tmp_path / "net.onnx", ("Softmax", {"axis": 1}), sidecar={"order": "bgr"})
    finding = inspect_file(path)
    assert (finding.runtime, finding.described, finding.bands) == ("onnxruntime", False, 3)
    assert finding.takes == {"name": "images", "shape": [None, 3, None, None], "dtype": "float32"}
    assert finding.gives == ({"name": "answer", "shape": [None, 3, None, None], "dtype": "float32"},)
    size, scaling, answer = finding.reading
    assert "blue first" in size
    assert "net.onnx.yaml" in scaling
    assert "probabilities" in answer
    shape = ("n", "h", "w")
    path = write(tmp_path / "labels.onnx", ("ArgMax", {"axis": 1, "keepdims": 0}), kind=TensorProto.INT64, shape=shape)
    assert "name them in order" in (inspect_file(path).problem or "")
