"""Prediction with OpenVINO, from the files that segshrink.export writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segshrink.errors import FileError, MissingExtraError, ModelError
from segshrink.prediction.exported import METADATA_KEY, ExportedModel, first_line

DEVICE = "CPU"


class OpenVinoBackend(ExportedModel):
    """Runs one of segshrink's ``.xml`` (with ``.bin``) or ``.onnx`` files.

    Images may have any size: the files pad to the network's stride and crop back inside their graph. For each answer
    asked for, the graph that gives it alone is compiled when it is first needed.

    Args:
        path: The file; its metadata describes classes and bands.
        precision: ``"32"``, ``"bf16"``, or ``"auto"``: bf16 where the processor computes in it.
        threads: Threads to run on; by default all cores.

    Raises:
        FileError: The file, or the ``.bin`` of an ``.xml``, is missing or unreadable.
        ModelError: OpenVINO can't read the file, it wasn't written by segshrink, its metadata is damaged, or the
            processor doesn't compute in bf16.
        MissingExtraError: OpenVINO isn't installed.
    """

    def __init__(self, path: str | Path, *, precision: str = "auto", threads: int | None = None) -> None:
        path = Path(path)
        self._openvino = require_openvino()
        self._core = self._openvino.Core()
        self._properties = self._settings(precision, threads)
        self._model = self._read(path)
        self._requests: dict[str, Any] = {}
        super().__init__(
            path,
            _metadata(self._model),
            outputs=[name for port in self._model.outputs for name in port.get_names()],
            takes_bytes=self._model.input(0).get_element_type() == self._openvino.Type.u8,
            runtime="openvino",
        )

    def _settings(self, precision: str, threads: int | None) -> dict[str, Any]:
        if precision == "bf16" and "BF16" not in self._core.get_property(DEVICE, "OPTIMIZATION_CAPABILITIES"):
            raise ModelError("this processor doesn't compute in bf16; use precision 32 or auto")
        # Threads bound to cores wait for whatever else runs there, and those of several processes for each other.
        settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1, "ENABLE_CPU_PINNING": False}
        if precision != "auto":
            settings["INFERENCE_PRECISION_HINT"] = {"32": "f32", "bf16": "bf16"}[precision]
        if threads is not None:
            settings["INFERENCE_NUM_THREADS"] = threads
        return settings

    def _read(self, path: Path) -> Any:
        if not path.is_file():
            raise FileError(f"{path} does not exist; give an .xml or .onnx file written by segshrink export")
        weights = path.with_suffix(".bin")
        if path.suffix.lower() == ".xml" and not weights.is_file():
            raise FileError(f"{weights} is missing, which holds the weights of {path.name}; copy both files")
        try:
            return self._core.read_model(path)
        except RuntimeError as error:
            raise ModelError(
                f"{path} can't be loaded by OpenVINO ({_reason(error)}); export the model again"
            ) from error

    def _fetch(self, images: npt.NDArray[Any], output: str) -> npt.NDArray[Any]:
        if output not in self._requests:
            self._requests[output] = self._compiled(output)
        pixels = np.ascontiguousarray(images, dtype=self._dtype)
        try:
            answer = self._requests[output].infer([pixels], share_inputs=True)
        except RuntimeError as error:
            raise self._failed(images, error) from error
        values: npt.NDArray[Any] = answer[0]
        return values

    def _compiled(self, output: str) -> Any:
        """Return a request that runs what leads to one output alone, from pixels (N, H, W, bands)."""
        port = next(port for port in self._model.outputs if output in port.get_names())
        whole = self._openvino.Model([port.get_node()], self._model.get_parameters(), "part")
        steps = self._openvino.preprocess.PrePostProcessor(whole.clone())
        steps.input().tensor().set_layout(self._openvino.Layout("NHWC"))
        steps.input().model().set_layout(self._openvino.Layout("NCHW"))
        try:
            return self._core.compile_model(steps.build(), DEVICE, self._properties).create_infer_request()
        except RuntimeError as error:
            raise ModelError(
                f"OpenVINO can't compile {self.path} ({_reason(error)}); export the model again"
            ) from error


def require_openvino() -> Any:
    """Return the module openvino, or raise ``MissingExtraError``."""
    try:
        import openvino
    except ImportError as error:
        raise MissingExtraError("running a model with OpenVINO", "openvino") from error
    return openvino


def _metadata(model: Any) -> str | None:
    """Return the description from an OpenVINO file's own metadata, or from those of the ONNX file it was read from."""
    for place in ([METADATA_KEY], ["framework", METADATA_KEY]):
        if model.has_rt_info(place):
            return str(model.get_rt_info(place).astype(str))
    return None


def _reason(error: RuntimeError) -> str:
    """Return what OpenVINO says of an error, without where in its own source it came from."""
    lines = [line.strip() for line in str(error).splitlines()]
    telling = [line for line in lines if line and not line.startswith(("Exception from ", "Check "))]
    return telling[0].rstrip(".") if telling else first_line(error)
