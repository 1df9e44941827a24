"""8-bit OpenVINO files from an ONNX model."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from segshrink.export.int8_graph import int8_graph
from segshrink.export.openvino import save_openvino, to_openvino
from segshrink.prediction.exported import METADATA_KEY

# Operations that hold no arithmetic.
_NO_ARITHMETIC = ("Parameter", "Constant", "Result")


def write_openvino_int8(
    model: onnx.ModelProto, path: Path, tiles: Sequence[NDArray[Any]], *, nodes: Collection[str]
) -> None:
    """Write an ONNX model as an 8-bit OpenVINO file.

    Args:
        model: The optimized float model of an ``OnnxQuantizer``, whose nodes are called like their first outputs.
        path: The ``.xml`` to write; its ``.bin`` goes beside it.
        tiles: Calibration tiles (bands, H, W), raw pixel values.
        nodes: Names of the nodes that are quantized; all others stay in higher precision.

    Raises:
        ModelError: OpenVINO or NNCF can't take the model.
        MissingExtraError: OpenVINO or NNCF isn't installed.
    """
    graph = to_openvino(model, name="the model")
    float_nodes = [
        operation.get_friendly_name()
        for operation in graph.get_ordered_ops()
        if operation.get_type_name() not in _NO_ARITHMETIC
        and operation.get_friendly_name().partition("/")[0] not in nodes
    ]
    dtype = graph.input(0).get_element_type().to_dtype()
    inputs = [tile[np.newaxis].astype(dtype, copy=False) for tile in tiles]
    description = next(entry.value for entry in model.metadata_props if entry.key == METADATA_KEY)
    save_openvino(int8_graph(graph, inputs, float_nodes=float_nodes), path, description=description)
