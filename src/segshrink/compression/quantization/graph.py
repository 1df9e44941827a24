"""Looking into an ONNX graph: which nodes are the network proper, and what its tensors hold."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from segshrink.errors import ModelError
from segshrink.export.enlarging import PREFIX
from segshrink.files import scratch_folder

LOGITS = "logits"

# Layers with weights; they are what int8 makes quicker.
WEIGHTED = frozenset(("Conv", "ConvTranspose", "Gemm", "MatMul"))
# What may lie between them and computes, or passes on, 8-bit numbers in ONNX Runtime.
BETWEEN = frozenset(
    (
        "Add",
        "AveragePool",
        "Clip",
        "Concat",
        "Flatten",
        "GlobalAveragePool",
        "LeakyRelu",
        "MaxPool",
        "Mul",
        "Relu",
        "Reshape",
        "Resize",
        "Sigmoid",
        "Split",
        "Squeeze",
        "Transpose",
        "Unsqueeze",
    )
)


def optimized(model: bytes) -> onnx.ModelProto:
    """Fold constants and batch normalisation, and give every node the name of its first output.

    OpenVINO calls its nodes by the same names then.

    Args:
        model: A serialised model; its metadata is kept.

    Returns:
        The same computation, with the types and sizes of inner values where they can be inferred.

    Raises:
        ModelError: ONNX Runtime can't run the model.
    """
    with scratch_folder() as scratch:
        path = scratch / "optimized.onnx"
        options = _options()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(path)
        session(model, options)
        proto = onnx.load(path)
    original = onnx.load_from_string(model)
    del proto.metadata_props[:]
    proto.metadata_props.extend(original.metadata_props)
    for node in proto.graph.node:
        node.name = node.output[0]
    del proto.graph.value_info[:]
    return onnx.shape_inference.infer_shapes(proto)


def quantizable_nodes(model: onnx.ModelProto) -> list[str]:
    """Return the names of the nodes that may compute with 8 bits, in the order of the graph.

    These are the layers with weights, and what lies between a first and a last of them on feature maps. What comes
    before (padding, normalisation) and after (enlarging, cropping, the choice of a class) stays as it is.
    """
    graph = model.graph
    weighted = {node.name for node in graph.node if node.op_type in WEIGHTED and not node.name.startswith(PREFIX)}
    after = _reached(graph.node, weighted, downstream=True)
    before = _reached(reversed(graph.node), weighted, downstream=False)
    maps = _feature_maps(model)
    return [
        node.name
        for node in graph.node
        if node.name in weighted
        or (
            node.op_type in BETWEEN
            and node.name in after
            and node.name in before
            and all(output in maps for output in node.output)
        )
    ]


def float_tensors(model: onnx.ModelProto, nodes: Iterable[str]) -> list[str]:
    """Return what goes into and comes out of ``nodes`` as float32 and is computed, without repetition."""
    chosen = set(nodes)
    kinds = _types(model)
    constants = {tensor.name for tensor in model.graph.initializer}
    found: dict[str, None] = {}
    for node in model.graph.node:
        if node.name not in chosen:
            continue
        for name in (*node.input, *node.output):
            if name not in constants and kinds.get(name) == onnx.TensorProto.FLOAT:
                found[name] = None
    return list(found)


def session(model: bytes | onnx.ModelProto, options: Any = None) -> onnxruntime.InferenceSession:
    """Open a model in ONNX Runtime on one thread.

    Raises:
        ModelError: The runtime refuses the model.
    """
    content = model if isinstance(model, bytes) else model.SerializeToString()
    try:
        return onnxruntime.InferenceSession(content, options or _options(), providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's exceptions have no common public base
        first = str(error).strip().splitlines()[0]
        raise ModelError(f"ONNX Runtime can't run the model with 8-bit layers ({first})") from error


def logits_of(model: bytes | onnx.ModelProto, tiles: Sequence[NDArray[Any]]) -> list[NDArray[np.float32]]:
    """Run a model on tiles (bands, H, W); returns logits (C, H, W) each."""
    running = session(model)
    (given,) = running.get_inputs()
    return [running.run([LOGITS], {given.name: as_input(tile, given.type)})[0][0] for tile in tiles]


def as_input(tile: NDArray[Any], kind: str) -> NDArray[Any]:
    """Return a tile (bands, H, W) as the batch of one that a model with inputs of type ``kind`` takes."""
    return tile[np.newaxis].astype(np.uint8 if kind == "tensor(uint8)" else np.float32, copy=False)


def _options() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # its errors come as exceptions
    options.intra_op_num_threads = 1
    return options


def _reached(nodes: Iterable[Any], start: set[str], *, downstream: bool) -> set[str]:
    """Return the names of nodes that ``start`` leads to, or that lead to it; ``nodes`` come in that order."""
    values: set[str] = set()
    found = set()
    for node in nodes:
        near, far = (node.input, node.output) if downstream else (node.output, node.input)
        if node.name in start or values.intersection(near):
            found.add(node.name)
            values.update(name for name in far if name)
    return found


def _feature_maps(model: onnx.ModelProto) -> set[str]:
    """Return the float32 values with channels; computed sizes have one dimension or none."""
    return {
        value.name
        for value in _values(model)
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT and len(value.type.tensor_type.shape.dim) >= 2
    }


def _types(model: onnx.ModelProto) -> dict[str, int]:
    return {value.name: value.type.tensor_type.elem_type for value in _values(model)}


def _values(model: onnx.ModelProto) -> list[Any]:
    return [*model.graph.value_info, *model.graph.input, *model.graph.output]
