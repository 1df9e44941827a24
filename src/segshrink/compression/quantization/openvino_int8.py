"""8-bit OpenVINO files from an ONNX model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray

from segshrink.compression.quantization.graph import as_input
from segshrink.export.int8_graph import int8_graph, require_nncf
from segshrink.files import scratch_folder
from segshrink.prediction.exported import METADATA_KEY

# What holds no arithmetic.
_HOLDERS = ("Parameter", "Constant", "Result")


class OpenVinoQuantizer:
    """Turns a float ONNX model into 8-bit OpenVINO files.

    Args:
        model: The optimised float ONNX model, whose nodes are called like their first outputs.
        nodes: Names of the nodes that may be quantised.
        tiles: Calibration tiles (bands, H, W), raw pixel values.

    Raises:
        MissingExtraError: OpenVINO or NNCF isn't installed.
    """

    def __init__(self, model: onnx.ModelProto, nodes: Sequence[str], tiles: Sequence[NDArray[Any]]) -> None:
        require_nncf()
        self._model = model
        self._nodes = frozenset(nodes)
        self._tiles = tiles

    def write(self, path: Path, *, float_nodes: Sequence[str] = ()) -> None:
        """Write ``path`` (.xml) and its .bin.

        Args:
            path: File to write.
            float_nodes: Nodes that stay in higher precision, besides all that may not be quantised.

        Raises:
            ModelError: NNCF can't quantise the model.
        """
        import openvino

        model = self._read()
        stays = self._names(model, self._nodes - frozenset(float_nodes))
        kind = "tensor(uint8)" if model.input(0).get_element_type() == openvino.Type.u8 else "tensor(float)"
        quantized = int8_graph(model, [as_input(tile, kind) for tile in self._tiles], float_nodes=stays)
        description = next(entry.value for entry in self._model.metadata_props if entry.key == METADATA_KEY)
        _save(quantized, path, description=description)

    def _read(self) -> Any:
        import openvino

        with scratch_folder() as scratch:
            file = scratch / "float.onnx"
            onnx.save(self._model, file)
            return openvino.convert_model(file)  # folds what read_model leaves in hundreds of small operations

    def _names(self, model: Any, quantized: frozenset[str]) -> list[str]:
        """Return the names of all operations that belong to no node of ``quantized``."""
        return [
            operation.get_friendly_name()
            for operation in model.get_ordered_ops()
            if operation.get_type_name() not in _HOLDERS
            and operation.get_friendly_name().partition("/")[0] not in quantized
        ]


def _save(model: Any, path: Path, *, description: str) -> None:
    import openvino

    for entry in list(model.get_rt_info()):
        del model.rt_info[entry]
    model.set_rt_info(description, METADATA_KEY)
    openvino.save_model(model, path, compress_to_fp16=False)
