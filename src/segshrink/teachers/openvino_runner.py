"""A network that OpenVINO runs in another precision than its own runtime does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from segshrink.errors import ModelError
from segshrink.prediction.openvino_graphs import OpenVinoGraphs, openvino_reason, require_openvino
from segshrink.teachers.runners import Port, Runner


class OpenVinoRunner(Runner):
    """A file that another runner opened, or one that was written for this, run by OpenVINO on the CPU.

    Args:
        path: An ONNX or TFLite file.
        key: What stands for its content and for how it is computed.
        layout: Order of the axes.
        ports: Input and outputs as its own runtime calls them; None: as OpenVINO does.
        precision: "32", "bf16", or "int8", which needs ``inputs``.
        inputs: Batches as the network takes them, on which ranges of activations are observed.
        threads: Threads to run on.

    Raises:
        ModelError: OpenVINO can't read the file, its input isn't of the same type, NNCF can't quantise it, or the
            processor doesn't compute in bf16.
        MissingExtraError: OpenVINO, or NNCF for "int8", isn't installed.
    """

    def __init__(
        self,
        path: Path,
        *,
        key: str,
        layout: Literal["NCHW", "NHWC"] = "NCHW",
        ports: tuple[Port, tuple[Port, ...]] | None = None,
        precision: Literal["32", "bf16", "int8"],
        inputs: Sequence[NDArray[Any]] = (),
        threads: int,
    ) -> None:
        openvino = require_openvino()
        try:
            model = openvino.convert_model(path)
        except Exception as error:  # the front ends' exceptions have no common public base
            raise ModelError(f"OpenVINO can't read {path} ({openvino_reason(error)})") from error
        found = _port(model.inputs[0]), tuple(_port(port) for port in model.outputs)
        wanted = ports or found
        if len(model.inputs) != 1 or len(found[1]) != len(wanted[1]) or found[0].dtype != wanted[0].dtype:
            raise ModelError(f"OpenVINO reads {path} as a network with other inputs or outputs")
        if precision == "int8":
            from segshrink.export.int8_graph import int8_graph

            model = int8_graph(model, inputs)
        # What isn't in 8 bits is computed in bf16 where the processor can.
        how = "auto" if precision == "int8" else precision
        self._graphs = OpenVinoGraphs(model, name=str(path), precision=how, threads=threads)
        self.layout = layout
        super().__init__(path, key, wanted)

    def _run(self, images: NDArray[Any], output: int) -> NDArray[Any]:
        return self._graphs.run(images, output)


def _port(port: Any) -> Port:
    lengths = port.get_partial_shape()
    shape = tuple(length.get_length() if length.is_static else None for length in lengths)
    names = sorted(port.get_names())
    return Port(names[0] if names else "", shape, np.dtype(port.get_element_type().to_dtype()))
