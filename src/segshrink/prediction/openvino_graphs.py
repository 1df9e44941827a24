"""A graph of OpenVINO, compiled for the images that come."""

from __future__ import annotations

import threading
from typing import Any

from numpy.typing import NDArray

from segshrink.errors import MissingExtraError, ModelError
from segshrink.prediction.exported import first_line

DEVICE = "CPU"
PRECISION = "INFERENCE_PRECISION_HINT"
KEPT = 4  # compiled graphs: of the last shapes and answers


class OpenVinoGraphs:
    """Runs a model, whatever its images' size.

    Only the part of the graph that an answer needs is compiled and executed: for the first shape and for shapes that
    come again alone, for all others together (8-bit graphs: for each alone). Several threads may use it at once.

    Args:
        model: An ``openvino.Model``; its weights are shared, not copied.
        name: How errors call it.
        precision: ``"32"``, ``"bf16"``, or ``"auto"``: bf16 where the processor computes in it; what an 8-bit graph
            doesn't compute in 8 bits is computed in fp32 then.
        threads: Threads to run on; by default all cores.
        streams: Images that are computed at once, when as many threads ask for them; they share the threads.

    Raises:
        ModelError: The processor doesn't compute in bf16.
        MissingExtraError: OpenVINO isn't installed.
    """

    def __init__(
        self, model: Any, *, name: str, precision: str = "auto", threads: int | None = None, streams: int = 1
    ) -> None:
        self._openvino = require_openvino()
        self._core = self._openvino.Core()
        # On processors with AMX, OpenVINO 2026.4 can't compile some 8-bit graphs in bf16, and others that are compiled
        # for any shape end the process at the second one (openvino#37577). Elsewhere it rounds float pixels otherwise
        # than the graph says when any shape may come (tests/export/test_int8_graph.py).
        eight_bits = any(operation.get_type_name() == "FakeQuantize" for operation in model.get_ops())
        self._any_shape = not eight_bits
        self._properties = self._settings("32" if eight_bits and precision == "auto" else precision, threads, streams)
        self._model = model
        self._name = name
        # The least recently used first; None stands for any shape.
        self._parts: dict[tuple[int, tuple[int, ...] | None], _Part] = {}
        self._seen: set[tuple[int, tuple[int, ...]]] = set()
        self._lock = threading.Lock()

    def run(self, images: NDArray[Any], output: int) -> NDArray[Any]:
        """Return one output, by its number, for a batch as the model takes it.

        Raises:
            ModelError: OpenVINO can't compile the part of the graph.
            RuntimeError: It fails on the batch.
        """
        with self._lock:
            part = self._part(output, images.shape)
        answer: NDArray[Any] = part.request().infer([images], share_inputs=True)[0]
        return answer

    def _settings(self, precision: str, threads: int | None, streams: int) -> dict[str, Any]:
        if precision == "bf16" and "BF16" not in self._core.get_property(DEVICE, "OPTIMIZATION_CAPABILITIES"):
            raise ModelError("this processor doesn't compute in bf16; use precision 32 or auto")
        # Threads bound to cores wait for whatever else runs there, and those of several processes for each other.
        settings: dict[str, Any] = {"NUM_STREAMS": streams, "ENABLE_CPU_PINNING": False}
        settings["PERFORMANCE_HINT"] = "LATENCY" if streams == 1 else "THROUGHPUT"
        if precision != "auto":
            settings[PRECISION] = {"32": "f32", "bf16": "bf16"}[precision]
        if threads is not None:
            settings["INFERENCE_NUM_THREADS"] = threads
        return settings

    def _part(self, output: int, shape: tuple[int, ...]) -> _Part:
        """Return the compiled part of the graph that leads to an output, for any shape or for this one alone.

        OpenVINO is up to twice as fast when it knows the shape. Compiling takes longer than running, so that is done
        for the first shape, which often stays the only one, and for another one when it comes for the second time.
        """
        first = not any(number == output for number, _ in self._seen)
        fixed = self._parts.pop((output, shape), None)
        if fixed is None and (first or (output, shape) in self._seen or not self._any_shape):
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

    def _compiled(self, output: int, shape: tuple[int, ...] | None) -> _Part:
        part = self._openvino.Model([self._model.output(output).get_node()], self._model.get_parameters(), str(output))
        if shape is not None:
            part = part.clone()  # or the shape would be that of the whole from now on
            part.reshape(list(shape))
        try:
            return _Part(self._core.compile_model(part, DEVICE, self._properties))
        except RuntimeError as error:
            if PRECISION not in self._properties:  # OpenVINO chose one that it can't do here
                self._properties[PRECISION] = "f32"
                return self._compiled(output, shape)
            raise ModelError(
                f"OpenVINO can't compile {self._name} in {self._properties[PRECISION]} on this processor "
                f"({openvino_reason(error)}); use another runtime, such as onnxruntime with an .onnx file"
            ) from error


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


def require_openvino() -> Any:
    """Return the module openvino, or raise ``MissingExtraError``."""
    try:
        import openvino
    except ImportError as error:
        raise MissingExtraError("running a model with OpenVINO", "openvino") from error
    return openvino


def openvino_reason(error: Exception) -> str:
    """Return what OpenVINO says of an error, without where in its own source it came from."""
    lines = [line.strip() for line in str(error).splitlines()]
    telling = [line for line in lines if line and not line.startswith(("Exception from ", "Check "))]
    return telling[0].rstrip(".") if telling else first_line(error)
