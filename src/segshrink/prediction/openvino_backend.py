"""Prediction with OpenVINO, from the files that segshrink.export writes."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy.typing as npt

from segshrink.errors import FileError, MissingExtraError, ModelError
from segshrink.prediction.exported import METADATA_KEY, ExportedModel, first_line, planes

DEVICE = "CPU"
KEPT = 4  # compiled graphs: of the last shapes and answers


class _Part:
    """A compiled part of a graph, which several threads may run at once: each has a request of its own."""

    def __init__(self, compiled: Any) -> None:
        self._compiled = compiled
        self._own = threading.local()

    def request(self) -> Any:
        """Return the calling thread's request."""
        if not hasattr(self._own, "request"):
            self._own.request = self._compiled.create_infer_request()
        return self._own.request


class OpenVinoBackend(ExportedModel):
    """Runs one of segshrink's ``.xml`` (with ``.bin``) or ``.onnx`` files.

    Images may have any size: the files pad to the network's stride and crop back inside their graph. Only the
    part of the graph that an answer needs is compiled and executed: for the first shape and for shapes that come again
    alone, for all others together. Several threads may use it at once.

    Args:
        path: The file; its metadata describes classes and bands.
        precision: ``"32"``, ``"bf16"``, or ``"auto"``: bf16 where the processor computes in it.
        threads: Threads to run on; by default all cores.
        streams: Images that are computed at once, when as many threads ask for them; they share the threads.

    Raises:
        FileError: The file, or the ``.bin`` of an ``.xml``, is missing or unreadable.
        ModelError: OpenVINO can't read the file, it wasn't written by segshrink, its metadata is damaged, or the
            processor doesn't compute in bf16.
        MissingExtraError: OpenVINO isn't installed.
    """

    def __init__(
        self, path: str | Path, *, precision: str = "auto", threads: int | None = None, streams: int = 1
    ) -> None:
        path = Path(path)
        self._openvino = require_openvino()
        self._core = self._openvino.Core()
        self._properties = self._settings(precision, threads, streams)
        self._model = self._read(path)
        # The least recently used first; None stands for any shape.
        self._parts: dict[tuple[str, tuple[int, ...] | None], _Part] = {}
        self._seen: set[tuple[str, tuple[int, ...]]] = set()
        self._lock = threading.Lock()
        super().__init__(
            path,
            _metadata(self._model),
            outputs=[name for port in self._model.outputs for name in port.get_names()],
            takes_bytes=self._model.input(0).get_element_type() == self._openvino.Type.u8,
            runtime="openvino",
        )

    def _settings(self, precision: str, threads: int | None, streams: int) -> dict[str, Any]:
        if precision == "bf16" and "BF16" not in self._core.get_property(DEVICE, "OPTIMIZATION_CAPABILITIES"):
            raise ModelError("this processor doesn't compute in bf16; use precision 32 or auto")
        # Threads bound to cores wait for whatever else runs there, and those of several processes for each other.
        settings: dict[str, Any] = {"NUM_STREAMS": streams, "ENABLE_CPU_PINNING": False}
        settings["PERFORMANCE_HINT"] = "LATENCY" if streams == 1 else "THROUGHPUT"
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
        batch = planes(images, self._dtype)
        with self._lock:
            part = self._part(output, batch.shape)
        request = part.request()
        try:
            answer: npt.NDArray[Any] = request.infer([batch], share_inputs=True)[0]
        except RuntimeError as error:
            raise self._failed(images, error) from error
        return answer

    def _part(self, output: str, shape: tuple[int, ...]) -> _Part:
        """Return the compiled part of the graph that leads to ``output``, for any shape or for this one alone.

        OpenVINO is up to twice as fast when it knows the shape. Compiling takes longer than running, so that is done
        for the first shape, which often stays the only one, and for another one when it comes for the second time.
        """
        first = not any(name == output for name, _ in self._seen)
        fixed = self._parts.pop((output, shape), None)
        if fixed is None and (first or (output, shape) in self._seen):
            self._parts.pop((output, None), None)  # its weights would lie in memory twice
            fixed = self._compiled(output, shape)
        self._seen.add((output, shape))
        if fixed is not None:
            while len(self._parts) >= KEPT:
                del self._parts[next(iter(self._parts))]
            self._parts[output, shape] = fixed
            return fixed
        if (output, None) not in self._parts:
            self._parts[output, None] = self._compiled(output, None)
        return self._parts[output, None]

    def _compiled(self, output: str, shape: tuple[int, ...] | None) -> _Part:
        port = next(port for port in self._model.outputs if output in port.get_names())
        part = self._openvino.Model([port.get_node()], self._model.get_parameters(), output)
        if shape is not None:
            part = part.clone()  # or the shape would be that of the whole from now on
            part.reshape(list(shape))
        try:
            return _Part(self._core.compile_model(part, DEVICE, self._properties))
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
