"""An ONNX file of anybody as one of ours: raw pixels of any size in, logits and classes out, all in the graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from segshrink.errors import ModelError, first_line
from segshrink.export.graph_builder import GraphBuilder
from segshrink.export.graph_interface import give, pad_inside
from segshrink.export.metadata import describe_onnx
from segshrink.export.tracing import INPUT, LOGITS, require_onnx
from segshrink.files import replacing
from segshrink.model_file import ModelFile
from segshrink.prediction.backends import Backend
from segshrink.prediction.foreign import ForeignBackend
from segshrink.prediction.formats import InputFormat, OutputFormat
from segshrink.prediction.runtimes.onnx import OnnxBackend, read_whole

# What the file's own values are called inside the graph.
_INNER = "network/"
# Of what stands around it.
_OPSET, _IR_VERSION = 18, 8
_LEAST = 1e-7
# Largest difference of logits, as a share of the largest, between the file and what was made of it.
_TOLERANCE = 1e-3


def as_our_onnx(backend: Backend, path: Path) -> Path:
    """Write the network of an ONNX file as ``export_onnx`` writes one of torch, with logits and classes.

    Args:
        backend: The file, opened; one of segshrink's own is copied.
        path: Where to.

    Raises:
        ModelError: It gives no scores, takes images of one size only, or its graph can't be put into another.
        MissingExtraError: The package onnx isn't installed.
    """
    source = Path(getattr(backend, "path", ""))
    if ModelFile(source).kind != ".onnx":
        raise ModelError(f"{source} is no ONNX file; give the .onnx file or the model that it was made from")
    require_onnx()
    if not isinstance(backend, ForeignBackend):
        if LOGITS not in getattr(backend, "outputs", ()):
            raise ModelError(f"{source} gives no logits to compare int8's with; export the model with its logits")
        path.write_bytes(read_whole(source))
        return path
    file = backend.file
    if file.resizing.size is not None:
        height, width = file.resizing.size
        raise ModelError(
            f"{source} takes images of {height} x {width} pixels alone; export it for images of any size (dynamic "
            "axes) to quantize it"
        )
    if file.gives.kind == "labels":
        raise ModelError(f"{source} answers with class numbers; export it with its scores to quantize it")
    if file.takes.dtype.kind in "iu":
        raise ModelError(
            f"{source} takes {file.takes.dtype.name} numbers; export it with float32 images to quantize it"
        )
    try:
        graph = _graph(backend)
    except Exception as error:  # what the package onnx raises isn't public
        raise ModelError(
            f"{source} can't be put into a graph of ours ({first_line(error)}); export it again"
        ) from error
    with replacing(path, overwrite=False) as temporary:
        temporary.write_bytes(graph.SerializeToString())
        _check(backend, OnnxBackend(temporary), source)
    return path


def _graph(backend: ForeignBackend) -> Any:
    import onnx
    from onnx import TensorProto, compose, helper, version_converter

    description, gives = backend.description, backend.file.gives
    assert description is not None  # noqa: S101  # a foreign file's is made where it is opened
    theirs = onnx.load_from_string(read_whole(backend.path))
    opset = next(entry.version for entry in theirs.opset_import if entry.domain in ("", "ai.onnx"))
    if opset < _OPSET:
        theirs = version_converter.convert_version(theirs, _OPSET)
    inner = compose.add_prefix(theirs, _INNER).graph
    kind = TensorProto.UINT8 if description.dtype == "uint8" else TensorProto.FLOAT
    images = helper.make_tensor_value_info(INPUT, kind, ["batch", description.bands, "height", "width"])
    logits = helper.make_tensor_value_info(LOGITS, TensorProto.FLOAT, ["batch", gives.classes, "height", "width"])
    tensors = {"initializer": inner.initializer, "sparse_initializer": inner.sparse_initializer}
    graph = helper.make_graph([], "network", [images], [logits], **tensors)
    build = GraphBuilder(graph, "around/")
    _take_pixels(build, backend.file.takes, f"{_INNER}{backend.file.network.images.name}")
    graph.node.extend(inner.node)
    _give_logits(build, gives, f"{_INNER}{gives.port.name}")
    imports = [entry for entry in theirs.opset_import if entry.domain not in ("", "ai.onnx")]
    imports.append(helper.make_opsetid("", max(opset, _OPSET)))
    version = max(theirs.ir_version, _IR_VERSION)
    model = helper.make_model(graph, opset_imports=imports, ir_version=version, functions=theirs.functions)
    pad_inside(model, stride=description.stride)
    give(model, (LOGITS, "classes"), classes=gives.classes)
    helper.set_model_props(model, describe_onnx(description, takes_bytes=kind == TensorProto.UINT8))
    onnx.checker.check_model(model)
    return model


def _take_pixels(build: GraphBuilder, takes: InputFormat, output: str) -> None:
    """Turn raw pixels into what the network takes, as ``InputFormat.array`` does."""
    from onnx import TensorProto, helper

    value = build.node("Cast", INPUT, to=TensorProto.FLOAT)
    if takes.bgr:
        value = build.node("Gather", value, build.constant([2, 1, 0, *range(3, takes.scaling.bands)]), axis=1)
    for operator, numbers in (("Sub", takes.scaling.mean), ("Div", takes.scaling.std)):
        value = build.node(operator, value, build.constant(np.reshape(numbers, (1, -1, 1, 1)), np.float32))
    if takes.layout == "NHWC":
        value = build.node("Transpose", value, perm=[0, 2, 3, 1])
    build.node("Cast", value, output=output, to=helper.np_dtype_to_tensor_dtype(takes.dtype))


def _give_logits(build: GraphBuilder, gives: OutputFormat, answer: str) -> None:
    """Turn the network's answer into logits of the images' size, as ``OutputFormat.logits`` does."""
    from onnx import TensorProto

    value = build.node("Cast", answer, to=TensorProto.FLOAT)
    if gives.axis == 3:
        value = build.node("Transpose", value, perm=[0, 3, 1, 2])
    single = gives.classes == 2 and gives.port.shape[gives.axis or 1] == 1
    if gives.kind == "probabilities":
        least, most, one = (build.constant(number, np.float32) for number in (_LEAST, 1 - _LEAST, 1))
        chance = build.node("Clip", value, least, most if single else one)
        value = build.node("Log", chance)
        if single:
            value = build.node("Sub", value, build.node("Log", build.node("Sub", one, chance)))
    if single:
        zero = build.node("Mul", value, build.constant(0, np.float32))
        value = build.node("Concat", zero, value, axis=1)
    size = build.node("Shape", INPUT, start=2, end=4)
    size = build.node("Concat", build.node("Shape", value, start=0, end=2), size, axis=0)
    build.node("Resize", value, "", "", size, output=LOGITS, mode="linear")


def _check(theirs: Backend, ours: Backend, source: Path) -> None:
    """Compare what was made of a file with the file."""
    for height, width in ((64, 96), (75, 61)):
        image = np.random.default_rng(0).integers(0, 256, (1, height, width, theirs.bands), dtype=np.uint8)
        expected, actual = theirs.run(image), ours.run(image)
        difference = float(np.abs(expected - actual).max()) if expected.shape == actual.shape else np.inf
        if not difference <= _TOLERANCE * max(1.0, float(np.abs(expected).max())):
            raise ModelError(f"{source} can't be put into a graph of ours: its logits differ by {difference:.3g} there")
