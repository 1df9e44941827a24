"""A network that OpenVINO runs in another precision than its own runtime does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from segshrink.errors import ModelError
from segshrink.files import scratch_folder
from segshrink.prediction.isolated import check_isolated
from segshrink.prediction.openvino_graphs import OpenVinoGraphs, openvino_reason, require_openvino
from segshrink.teachers.runtimes import Runner

_SHAPES = 3  # of observed batches, on which an int8 graph is tried


class OpenVinoRunner(Runner):
    """A file that another runner opened, run by OpenVINO on the CPU.

    Args:
        opened: The runner of the ONNX or TFLite file; inputs and outputs keep the names that it gives them.
        key: What stands for the file's content and for how it is computed.
        precision: "bf16", or "int8", which needs ``inputs``.
        inputs: Batches as the network takes them, on which ranges of activations are observed.
        threads: Threads to run on.

    Raises:
        ModelError: OpenVINO can't read the file or reads it otherwise, NNCF can't quantise it, its int8 graph can't be
            run on this machine, which a process of its own finds out, or the processor doesn't compute in bf16.
        MissingExtraError: OpenVINO, or NNCF for "int8", isn't installed.
    """

    def __init__(
        self,
        opened: Runner,
        *,
        key: str,
        precision: Literal["bf16", "int8"],
        inputs: Sequence[NDArray[Any]] = (),
        threads: int,
    ) -> None:
        openvino = require_openvino()
        try:
            model = openvino.convert_model(opened.path)
        except Exception as error:  # the front ends' exceptions have no common public base
            raise ModelError(f"OpenVINO can't read {opened.path} ({openvino_reason(error)})") from error
        dtypes = [np.dtype(port.get_element_type().to_dtype()) for port in model.inputs]
        if dtypes != [opened.input.dtype] or len(model.outputs) != len(opened.outputs):
            raise ModelError(f"OpenVINO reads {opened.path} as a network with other inputs or outputs")
        if precision == "int8":
            from segshrink.export.int8_graph import int8_graph

            model = int8_graph(model, inputs)
            shapes = list(dict.fromkeys(batch.shape for batch in inputs))
            with scratch_folder() as scratch:
                file = scratch / f"{opened.path.stem}-int8.xml"
                openvino.save_model(model, file, compress_to_fp16=False)
                check_isolated(file, runtime="openvino", threads=threads, shapes=shapes[:_SHAPES])
        how = "auto" if precision == "int8" else precision
        self._graphs = OpenVinoGraphs(model, name=str(opened.path), precision=how, threads=threads)
        self.layout = opened.layout
        super().__init__(opened.path, key, (opened.input, opened.outputs))

    def _run(self, images: NDArray[Any], output: int) -> NDArray[Any]:
        return self._graphs.run(images, output)
