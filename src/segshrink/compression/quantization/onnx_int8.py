"""8-bit integers in ONNX Runtime: post-training static quantisation with QuantizeLinear and DequantizeLinear."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import onnx
from numpy.typing import NDArray

from segshrink.compression.quantization.graph import (
    BETWEEN,
    WEIGHTED,
    float_tensors,
    logits_of,
    optimized,
    quantizable_nodes,
)
from segshrink.compression.quantization.minify_onnx import compact
from segshrink.compression.quantization.quantization_error import noise_share
from segshrink.compression.quantization.ranges import ESTIMATES, Estimate, observe_ranges
from segshrink.errors import ModelError
from segshrink.files import scratch_folder
from segshrink.prediction.isolated import check_isolated

# Tiles that different quantisations of one model are compared on.
COMPARED_TILES = 8


class OnnxQuantizer:
    """Turns one float ONNX model into 8-bit ones, with some of its layers or all of them.

    Weights become signed 8-bit integers, symmetric, with one scale for each output channel, of which they use 7 bits:
    processors without VNNI add pairs of products in 16 bits, which 8 overflow. Activations become unsigned ones with
    one scale for each tensor: signed activations are slower than float32 in ONNX Runtime. The ranges of activations are
    observed once; whether their extremes or the mean of the tiles' extremes serve better is tried out, after a process
    of its own has shown that the 8-bit model runs here.

    Args:
        model: A serialised ONNX model whose first output is called "logits".
        tiles: Calibration tiles (bands, H, W), raw pixel values.
        progress: Called after every calibration tile with (tiles done, tiles in all).

    Attributes:
        model: The float model with batch normalisation folded.
        nodes: Names of the nodes that may be quantised, in the order of the graph.
        tiles: A few of the tiles, to compare quantisations on.
        expected: The float model's logits (C, H, W) for these.

    Raises:
        ModelError: The model has no layer that can be quantised.
    """

    def __init__(
        self,
        model: bytes,
        tiles: Sequence[NDArray[Any]],
        *,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self.model = optimized(model)
        self.nodes = quantizable_nodes(self.model)
        if not self.nodes:
            raise ModelError("the network has no convolution or matrix product that could be quantised")
        self._ranges = observe_ranges(self.model, float_tensors(self.model, self.nodes), tiles, progress=progress)
        step = max(1, len(tiles) // COMPARED_TILES)
        self.tiles = tiles[::step][:COMPARED_TILES]
        self.expected = logits_of(self.model, self.tiles)

    def quantize(self, nodes: Sequence[str] | None = None) -> onnx.ModelProto:
        """Return the model with ``nodes`` (by default all that may be) in 8 bits and everything else in float32.

        Raises:
            ModelError: ONNX Runtime can't run the model in 8 bits on this machine.
        """
        chosen = list(self.nodes if nodes is None else nodes)
        if not chosen:
            return self.model
        return self._quantized(chosen, self._estimate)

    def noise(self, nodes: Sequence[str] | None = None) -> float:
        """Return how much of the logits' energy is error when ``nodes`` are in 8 bits, at least 0."""
        return noise_share(logits_of(self.quantize(nodes), self.tiles), self.expected)

    def compacted(self, nodes: Sequence[str] | None = None) -> bytes:
        """Return the serialised 8-bit model as it goes into a file."""
        content: bytes = compact(self.quantize(nodes)).SerializeToString()
        return content

    @cached_property
    def _estimate(self) -> Estimate:
        with scratch_folder() as scratch:
            path = scratch / "int8.onnx"
            path.write_bytes(compact(self._quantized(self.nodes, ESTIMATES[0])).SerializeToString())
            check_isolated(path, runtime="onnxruntime", threads=1)
        return min(ESTIMATES, key=self._noise_with)

    def _noise_with(self, estimate: Estimate) -> float:
        return noise_share(logits_of(self._quantized(self.nodes, estimate), self.tiles), self.expected)

    def _quantized(self, nodes: list[str], estimate: Estimate) -> onnx.ModelProto:
        from onnxruntime.quantization import CalibrationMethod, QuantType, TensorsData
        from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        ranges = TensorsData(CalibrationMethod.MinMax, dict(self._ranges.estimate(estimate)))
        with _quiet_logging():
            quantizer = QDQQuantizer(
                model,
                per_channel=True,
                reduce_range=True,
                weight_qType=QuantType.QInt8,
                activation_qType=QuantType.QUInt8,
                tensors_range=ranges,
                nodes_to_quantize=nodes,
                nodes_to_exclude=[],
                op_types_to_quantize=sorted(WEIGHTED | BETWEEN),
                extra_options={},
            )
            quantizer.quantize_model()
        quantized: onnx.ModelProto = quantizer.model.model
        return quantized


@contextmanager
def _quiet_logging() -> Iterator[None]:
    """Keep what ONNX Runtime's tools tell the root logger to themselves, and from setting it up."""
    root = logging.getLogger()
    silent = logging.NullHandler()
    before = logging.root.manager.disable
    root.addHandler(silent)
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)
        root.removeHandler(silent)
