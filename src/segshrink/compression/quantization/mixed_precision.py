"""int8 files from one float32 file: all layers first, then with more and more of the sensitive ones in float."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from segshrink.compression.quantization.onnx_int8 import PASSIVE, OnnxQuantizer
from segshrink.compression.quantization.openvino_int8 import write_openvino_int8
from segshrink.compression.quantization.result import QuantizationRow
from segshrink.errors import ModelError

INT8_FILES: dict[str, str] = {"onnxruntime": "int8.onnx", "openvino": "int8.xml"}

Progress = Callable[[int, int, str], None]
# Scores a file in a runtime: (file, runtime, layers in float) to a row without a latency.
Score = Callable[[Path, str, tuple[str, ...]], QuantizationRow]


@dataclass
class MixedPrecision:
    """Quantizes one float32 ONNX file for any runtime, as many of its layers as accuracy allows.

    Attributes:
        source: The file.
        tiles: Calibration tiles (bands, H, W), raw pixel values.
        folder: Where files go.
        score: Scores them.
        max_drop: Points of mIoU that they may lose.
        progress: Called with (steps done, steps in all, what is being done).
    """

    source: Path
    tiles: Sequence[NDArray[Any]]
    folder: Path
    score: Score
    max_drop: float
    progress: Progress

    def best(self, runtime: str) -> QuantizationRow:
        """Return the first file that loses no more than it may, or else the one that loses least.

        The layers that stay in float are those with the largest error when they alone are in 8 bits.

        Raises:
            ModelError: The model can't be quantized for the runtime, or the runtime can't be used with it here.
        """
        best = self._attempt(runtime, ())
        if best.drop <= self.max_drop:
            return best
        with suppress(ModelError):  # the files before are better than nothing
            # 1, 2, 4, ... up to half of them: more in float leave little of int8.
            for power in range((len(self._ranking) // 2).bit_length()):
                best = min(best, self._attempt(runtime, tuple(self._ranking[: 2**power])), key=lambda row: row.drop)
                if best.drop <= self.max_drop:
                    break
        return best

    @cached_property
    def _quantizer(self) -> OnnxQuantizer:
        return OnnxQuantizer(
            self.source.read_bytes(),
            self.tiles,
            progress=lambda done, total: self.progress(done, total, "calibration tiles"),
        )

    @cached_property
    def _ranking(self) -> list[str]:
        return rank_by_error(self._quantizer, progress=self.progress)

    def _attempt(self, runtime: str, float_layers: tuple[str, ...]) -> QuantizationRow:
        folder = self.folder / f"{runtime}-{len(float_layers)}"
        folder.mkdir(parents=True)
        path = folder / INT8_FILES[runtime]
        nodes = [name for name in self._quantizer.nodes if name not in float_layers]
        if runtime == "onnxruntime":
            path.write_bytes(self._quantizer.serialized(nodes))
        else:
            self.progress(0, 1, "calibrating for OpenVINO")
            write_openvino_int8(self._quantizer.model, path, self.tiles, nodes=nodes)
            self.progress(1, 1, "calibrating for OpenVINO")
        return self.score(path, runtime, float_layers)


def rank_by_error(quantizer: OnnxQuantizer, *, progress: Progress | None = None) -> list[str]:
    """Return the names of the nodes by the error of the logits when each alone is in 8 bits, the largest first.

    A tensor whose range is bad gives both the layer that computes it and the layer that takes it a large error, so they
    stand beside each other in the ranking.

    Args:
        quantizer: Knows the model and the calibration tiles.
        progress: Called after every node with (nodes done, nodes in all, what is being done).
    """
    operators = {node.name: node.op_type for node in quantizer.model.graph.node}
    active = [name for name in quantizer.nodes if operators[name] not in PASSIVE]
    errors = {}
    for number, name in enumerate(active, start=1):
        errors[name] = quantizer.error([name])
        if progress is not None:
            progress(number, len(active), "layers compared")
    return sorted(active, key=errors.__getitem__, reverse=True)
