"""What ranges of values the tensors of a network take on calibration tiles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray

from segshrink.compression.quantization.graph import as_input, session

Estimate = Literal["extremes", "mean"]
ESTIMATES: tuple[Estimate, ...] = ("extremes", "mean")


@dataclass(frozen=True)
class Ranges:
    """The least and the largest value of each tensor on each tile.

    Attributes:
        names: K tensors.
        lows: (tiles, K) float32.
        highs: (tiles, K) float32.
    """

    names: tuple[str, ...]
    lows: NDArray[np.float32]
    highs: NDArray[np.float32]

    def estimate(self, how: Estimate) -> dict[str, tuple[np.float32, np.float32]]:
        """Return a range for each tensor: its extremes over all tiles, or the mean of each tile's.

        The mean cuts off values that one tile in many holds, and divides the rest more finely.
        """
        lows = self.lows.min(axis=0) if how == "extremes" else self.lows.mean(axis=0)
        highs = self.highs.max(axis=0) if how == "extremes" else self.highs.mean(axis=0)
        return {
            name: (np.float32(low), np.float32(high)) for name, low, high in zip(self.names, lows, highs, strict=True)
        }


def observe_ranges(
    model: onnx.ModelProto,
    tensors: Sequence[str],
    tiles: Sequence[NDArray[Any]],
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Ranges:
    """Run a model on tiles and keep each tensor's least and largest value.

    Args:
        model: An ONNX model.
        tensors: Names of float32 values inside it.
        tiles: (bands, H, W) raw pixel values each.
        progress: Called after every tile with (tiles done, tiles in all).
    """
    observing = onnx.ModelProto()
    observing.CopyFrom(model)
    wanted = []
    for name in tensors:
        for operator in ("ReduceMin", "ReduceMax"):
            result = f"{name}/{operator}"
            observing.graph.node.append(onnx.helper.make_node(operator, [name], [result], keepdims=0))
            observing.graph.output.append(onnx.helper.make_tensor_value_info(result, onnx.TensorProto.FLOAT, []))
            wanted.append(result)
    running = session(observing)
    (given,) = running.get_inputs()
    seen = []
    for number, tile in enumerate(tiles, start=1):
        seen.append(running.run(wanted, {given.name: as_input(tile, given.type)}))
        if progress is not None:
            progress(number, len(tiles))
    extremes = np.array(seen, np.float32).reshape(len(tiles), len(tensors), 2)
    return Ranges(tuple(tensors), extremes[..., 0], extremes[..., 1])
