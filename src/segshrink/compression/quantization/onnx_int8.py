"""8-bit ONNX files: post-training static quantization by ONNX Runtime, with QuantizeLinear and DequantizeLinear."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from segshrink.compression.quantization.minify_onnx import minify
from segshrink.errors import ModelError, first_line
from segshrink.export.enlarging import PREFIX
from segshrink.extras import quiet_library
from segshrink.files import scratch_folder
from segshrink.prediction.isolated import check_isolated

# Layers with weights; they are what int8 makes faster.
WEIGHTED = frozenset(("Conv", "ConvTranspose", "Gemm", "MatMul"))
_RESHAPING = {"Flatten", "Reshape", "Resize", "Split", "Squeeze", "Transpose", "Unsqueeze"}
# These pass on the numbers they get: they are in 8 bits where what feeds them is.
PASSIVE = frozenset({"Clip", "LeakyRelu", "MaxPool", "Relu"} | _RESHAPING)
# What may lie between layers and computes, or passes on, 8-bit numbers in ONNX Runtime.
BETWEEN = PASSIVE | {"Add", "AveragePool", "Concat", "GlobalAveragePool", "Mul", "Sigmoid"}
# Tiles that different quantizations of one model are compared on.
COMPARED_TILES = 8
LOGITS = "logits"

# Tensor → its least and its largest value.
Ranges = dict[str, tuple[np.float32, np.float32]]


class OnnxQuantizer:
    """Turns one float ONNX model into 8-bit ones, with some of its layers or all of them.

    Weights become signed 8-bit integers, symmetric, with one scale for each output channel, of which they use 7 bits:
    processors without VNNI add pairs of products in 16 bits, which 8 overflow. Activations become unsigned ones with
    one scale for each tensor: signed activations are slower than float32 in ONNX Runtime. The ranges of activations are
    observed once; whether their extremes or the mean of the tiles' extremes serve better is tried out, after a process
    of its own has shown that the 8-bit model runs here.

    Args:
        model: A serialized ONNX model whose first output is called "logits".
        tiles: Calibration tiles (bands, H, W), raw pixel values.
        progress: Called after every calibration tile with (tiles done, tiles in all).

    Attributes:
        model: The float model with batch normalization folded.
        nodes: Names of the nodes that may be quantized, in the order of the graph.
        tiles: A few of the tiles, to compare quantizations on.
        expected: The float model's logits (C, H, W) for these.

    Raises:
        ModelError: The model has no layer that can be quantized.
    """

    def __init__(
        self, model: bytes, tiles: Sequence[NDArray[Any]], *, progress: Callable[[int, int], None] | None = None
    ) -> None:
        self.model = optimized(model)
        self.nodes = quantizable_nodes(self.model)
        if not self.nodes:
            raise ModelError("the network has no convolution or matrix product that could be quantized")
        self._ranges = observe_ranges(self.model, self.nodes, tiles, progress=progress)
        step = max(1, len(tiles) // COMPARED_TILES)
        self.tiles = tiles[::step][:COMPARED_TILES]
        self.expected = logits_of(self.model, self.tiles)

    def quantize(self, nodes: Sequence[str] | None = None, *, ranges: Ranges | None = None) -> onnx.ModelProto:
        """Return the model with some nodes in 8 bits and everything else in float32.

        Args:
            nodes: Names of these nodes; by default all that may be.
            ranges: Of activations; by default the better ones of those that were observed.

        Raises:
            ModelError: ONNX Runtime can't run the model in 8 bits on this machine.
        """
        from onnxruntime.quantization import CalibrationMethod, QuantType, TensorsData
        from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

        chosen = list(self.nodes if nodes is None else nodes)
        if not chosen:
            return self.model
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        tensors = TensorsData(CalibrationMethod.MinMax, dict(self._best_ranges if ranges is None else ranges))
        with quiet_library():
            quantizer = QDQQuantizer(
                model,
                per_channel=True,
                reduce_range=True,
                weight_qType=QuantType.QInt8,
                activation_qType=QuantType.QUInt8,
                tensors_range=tensors,
                nodes_to_quantize=chosen,
                nodes_to_exclude=[],
                op_types_to_quantize=sorted(WEIGHTED | BETWEEN),
                extra_options={},
            )
            quantized: onnx.ModelProto = quantizer.quantize_model()
        return quantized

    def error(self, nodes: Sequence[str] | None = None, *, ranges: Ranges | None = None) -> float:
        """Return ``quantization_error`` of the logits; arguments as in ``quantize``."""
        return quantization_error(logits_of(self.quantize(nodes, ranges=ranges), self.tiles), self.expected)

    def serialized(self, nodes: Sequence[str] | None = None, *, ranges: Ranges | None = None) -> bytes:
        """Return the 8-bit model as it goes into a file; arguments as in ``quantize``."""
        content: bytes = minify(self.quantize(nodes, ranges=ranges)).SerializeToString()
        return content

    @cached_property
    def _best_ranges(self) -> Ranges:
        with scratch_folder() as scratch:
            path = scratch / "int8.onnx"
            path.write_bytes(self.serialized(ranges=self._ranges[0]))
            check_isolated(path, runtime="onnxruntime", threads=1)
        return min(self._ranges, key=lambda ranges: self.error(ranges=ranges))


def quantization_error(logits: Sequence[NDArray[np.float32]], expected: Sequence[NDArray[np.float32]]) -> float:
    """Return the energy of the error, as a share of that of the expected logits' differences between classes.

    What all classes of a pixel have in common changes no decision and doesn't count.

    Args:
        logits: Logits (C, H, W) of each tile.
        expected: What they should be.
    """
    error = sum(_energy(actual - wanted) for actual, wanted in zip(logits, expected, strict=True))
    energy = sum(map(_energy, expected))
    return error / energy if energy else float(error > 0)


def _energy(logits: NDArray[np.float32]) -> float:
    return float(np.square(logits - logits.mean(axis=0)).sum())


def optimized(model: bytes) -> onnx.ModelProto:
    """Fold constants and batch normalization, and give every node the name of its first output.

    OpenVINO calls its nodes by the same names then.

    Args:
        model: A serialized model; its metadata is kept.

    Returns:
        The same computation, with the types and sizes of inner values where they can be inferred.

    Raises:
        ModelError: ONNX Runtime can't run the model.
    """
    with scratch_folder() as scratch:
        path = scratch / "optimized.onnx"
        open_session(model, optimized_path=path)
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
    before (padding, normalization) and after (enlarging, cropping, the choice of a class) stays as it is.
    """
    nodes = model.graph.node
    weighted = {node.name for node in nodes if node.op_type in WEIGHTED and not node.name.startswith(PREFIX)}
    after = _reached(nodes, weighted, downstream=True)
    before = _reached(reversed(nodes), weighted, downstream=False)
    maps = _feature_maps(model)
    between = {node.name for node in nodes if node.op_type in BETWEEN and maps.issuperset(node.output)}
    return [node.name for node in nodes if node.name in weighted | (between & after & before)]


def observe_ranges(
    model: onnx.ModelProto,
    nodes: Iterable[str],
    tiles: Sequence[NDArray[Any]],
    *,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Ranges, Ranges]:
    """Run a model on tiles and observe the ranges of what goes into and comes out of nodes.

    Args:
        model: A float ONNX model.
        nodes: Names of nodes.
        tiles: (bands, H, W) raw pixel values each.
        progress: Called after every tile with (tiles done, tiles in all).

    Returns:
        For each tensor its extremes over all tiles, and the mean of each tile's. The mean cuts off values that one tile
        in many holds, and divides the rest more finely.
    """
    chosen, maps = set(nodes), _feature_maps(model)
    touched = [name for node in model.graph.node if node.name in chosen for name in (*node.input, *node.output)]
    tensors = [name for name in dict.fromkeys(touched) if name in maps]
    observing = onnx.ModelProto()
    observing.CopyFrom(model)
    outputs = [f"{name}/{operator}" for name in tensors for operator in ("ReduceMin", "ReduceMax")]
    for output in outputs:
        name, _, operator = output.rpartition("/")
        observing.graph.node.append(onnx.helper.make_node(operator, [name], [output], keepdims=0))
        observing.graph.output.append(onnx.helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, []))
    extremes = np.empty((len(tiles), len(outputs)), np.float32)
    session = open_session(observing)
    for number, tile in enumerate(tiles):
        extremes[number] = session.run(outputs, as_input(session, tile))
        if progress is not None:
            progress(number + 1, len(tiles))
    lows, highs = extremes[:, ::2], extremes[:, 1::2]
    widest = zip(tensors, zip(lows.min(axis=0), highs.max(axis=0), strict=True), strict=True)
    mean = zip(tensors, zip(lows.mean(axis=0), highs.mean(axis=0), strict=True), strict=True)
    return dict(widest), dict(mean)


def logits_of(model: bytes | onnx.ModelProto, tiles: Sequence[NDArray[Any]]) -> list[NDArray[np.float32]]:
    """Run a model on tiles (bands, H, W); returns logits (C, H, W) each."""
    session = open_session(model)
    return [session.run([LOGITS], as_input(session, tile))[0][0] for tile in tiles]


def open_session(model: bytes | onnx.ModelProto, *, optimized_path: Path | None = None) -> Any:
    """Open a model in ONNX Runtime on one thread.

    Args:
        model: The model.
        optimized_path: File that gets the model with constants and batch normalization folded.

    Raises:
        ModelError: The runtime refuses the model.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # its errors come as exceptions
    options.intra_op_num_threads = 1
    if optimized_path is not None:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(optimized_path)
    content = model if isinstance(model, bytes) else model.SerializeToString()
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's exceptions have no common public base
        raise ModelError(f"ONNX Runtime can't run the model with 8-bit layers ({first_line(error)})") from error


def as_input(session: Any, tile: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Return a tile (bands, H, W) as the batch of one that a session takes."""
    (images,) = session.get_inputs()
    dtype = np.uint8 if images.type == "tensor(uint8)" else np.float32
    return {images.name: tile[np.newaxis].astype(dtype, copy=False)}


def _reached(nodes: Iterable[Any], start: set[str], *, downstream: bool) -> set[str]:
    """Return the names of nodes that ``start`` leads to, or that lead to it; ``nodes`` come in that order."""
    values: set[str] = set()
    reached = set()
    for node in nodes:
        near, far = (node.input, node.output) if downstream else (node.output, node.input)
        if node.name in start or values.intersection(near):
            reached.add(node.name)
            values.update(name for name in far if name)
    return reached


def _feature_maps(model: onnx.ModelProto) -> set[str]:
    """Return the float32 values with channels that are computed; computed sizes have one dimension or none."""
    return {
        value.name
        for value in (*model.graph.value_info, *model.graph.input, *model.graph.output)
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT and len(value.type.tensor_type.shape.dim) >= 2
    }
