"""Networks in OpenVINO's and ONNX files, run by OpenVINO on the processor."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segshrink.errors import FileError, ModelError, first_line
from segshrink.extras import needing
from segshrink.model_file import ModelFile
from segshrink.prediction.exported import METADATA_KEY, OUTPUTS, ExportedModel
from segshrink.prediction.runtimes.network import Network, Port, check_inputs

DEVICE = "CPU"
PRECISION = "INFERENCE_PRECISION_HINT"
KEPT = 4  # compiled graphs: of the last shapes and answers


class OpenVinoNetwork(Network):
    """An ``.xml`` file with its weights, or an ``.onnx`` file, from anybody. Several threads may use it at once.

    Only the part of the graph that an answer needs is compiled and executed: for the first shape and for shapes that
    come again alone, for all others together (8-bit graphs: for each alone).

    Args:
        path: The file.
        model: An ``openvino.Model`` to run instead of reading the file; its weights are shared, not copied.
        precision: ``"32"``, ``"bf16"``, or ``"auto"``: bf16 where the processor computes in it; what an 8-bit graph
            doesn't compute in 8 bits is computed in fp32 then.
        threads: Threads to run on; by default all cores.
        streams: Images that are computed at once, when as many threads ask for them; they share the threads.

    Raises:
        FileError: A file is missing or unreadable.
        ModelError: OpenVINO can't read it, it doesn't take images and nothing else, or the processor doesn't compute
            in bf16.
        MissingExtraError: OpenVINO isn't installed.
    """

    runtime = "openvino"

    def __init__(
        self,
        path: Path,
        *,
        model: Any = None,
        precision: str = "auto",
        threads: int | None = None,
        streams: int = 1,
    ) -> None:
        self._openvino = require_openvino()
        self._core = self._openvino.Core()
        self._model = _read(path) if model is None else model
        check_inputs(path, [_name(port) for port in self._model.inputs])
        # On processors with AMX, OpenVINO 2026.4 can't compile some 8-bit graphs in bf16, and others that are compiled
        # for any shape end the process at the second one (openvino#37577). Elsewhere it rounds float pixels otherwise
        # than the graph says when any shape may come (tests/export/test_int8_graph.py).
        eight_bits = any(operation.get_type_name() == "FakeQuantize" for operation in self._model.get_ops())
        self._any_shape = not eight_bits
        self._properties = self._settings("32" if eight_bits and precision == "auto" else precision, threads, streams)
        # The least recently used first; None stands for any shape. With each graph the threads' own requests.
        self._parts: dict[tuple[int, tuple[int, ...] | None], tuple[Any, threading.local]] = {}
        self._seen: set[tuple[int, tuple[int, ...] | None]] = set()
        self._lock = threading.Lock()
        names = [_name(port) for port in self._model.outputs]
        super().__init__(path, _port(self._model.input(0), path), names, _metadata(self._model, path))

    def output(self, number: int) -> Port:
        """Describe one output."""
        return _port(self._model.output(number), self.path)

    def _run(self, images: NDArray[Any], output: int) -> NDArray[Any]:
        with self._lock:
            compiled, requests = self._part(output, images.shape)
        if not hasattr(requests, "request"):
            requests.request = compiled.create_infer_request()
        answer: NDArray[Any] = requests.request.infer([images], share_inputs=True)[0]
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

    def _part(self, output: int, shape: tuple[int, ...]) -> tuple[Any, threading.local]:
        """Return the compiled part of the graph that leads to an output, for any shape or for this one alone.

        OpenVINO is up to twice as fast when it knows the shape. Compiling takes longer than running, so that is done
        for the first shape, which often stays the only one, and for another one when it comes for the second time.
        """
        key: tuple[int, tuple[int, ...] | None] = (output, shape)
        first = all(number != output for number, _ in self._seen)
        alone = first or key in self._seen or not self._any_shape
        self._seen.add(key)
        if not alone:
            key = (output, None)
        if key not in self._parts:
            if alone:
                self._parts.pop((output, None), None)  # its weights would lie in memory twice
            while len(self._parts) >= KEPT:
                del self._parts[next(iter(self._parts))]
            self._parts[key] = (self._compiled(*key), threading.local())
        self._parts[key] = self._parts.pop(key)
        return self._parts[key]

    def _compiled(self, output: int, shape: tuple[int, ...] | None) -> Any:
        part = self._openvino.Model([self._model.output(output).get_node()], self._model.get_parameters(), str(output))
        if shape is not None:
            part = part.clone()  # or the shape would be that of the whole from now on
            part.reshape(list(shape))
        try:
            return self._core.compile_model(part, DEVICE, self._properties)
        except RuntimeError as error:
            if PRECISION not in self._properties:  # OpenVINO chose one that it can't do here
                self._properties[PRECISION] = "f32"
                return self._compiled(output, shape)
            raise ModelError(
                f"OpenVINO can't compile {self.path} in {self._properties[PRECISION]} on this processor "
                f"({openvino_reason(error)}); use another runtime, such as onnxruntime with an .onnx file"
            ) from error


class OpenVinoBackend(ExportedModel):
    """Runs one of segshrink's ``.xml`` or ``.onnx`` files on images of any size; several threads may use it at once.

    Args:
        path: The file; its metadata describes classes and bands.
        precision: As in ``OpenVinoNetwork``.
        threads: As in ``OpenVinoNetwork``.
        streams: As in ``OpenVinoNetwork``.

    Raises:
        FileError: The file, or what holds the weights of an ``.xml``, is missing or unreadable.
        ModelError: As ``OpenVinoNetwork``, or segshrink didn't write the file, or its metadata is damaged.
        MissingExtraError: OpenVINO isn't installed.
    """

    def __init__(
        self, path: str | Path, *, precision: str = "auto", threads: int | None = None, streams: int = 1
    ) -> None:
        super().__init__(OpenVinoNetwork(Path(path), precision=precision, threads=threads, streams=streams))


def require_openvino() -> Any:
    """Return the module openvino, or raise ``MissingExtraError``."""
    with needing("running a model with OpenVINO", "openvino"):
        import openvino
    return openvino


def openvino_reason(error: Exception) -> str:
    """Return what OpenVINO says of an error, without where in its own source it came from."""
    lines = [line.strip() for line in str(error).splitlines()]
    telling = [line for line in lines if line and not line.startswith(("Exception from ", "Check "))]
    return telling[0].rstrip(".") if telling else first_line(error)


def _read(path: Path) -> Any:
    for part in ModelFile(path).parts:
        if not part.is_file():
            raise FileError(f"{part} is missing, which belongs to {path.name}; copy all files of the model")
    try:
        return require_openvino().Core().read_model(path)
    except RuntimeError as error:
        raise ModelError(
            f"{path} can't be loaded by OpenVINO ({openvino_reason(error)}); export the model again"
        ) from error


def _name(port: Any) -> str:
    """Return the name of an input or output, which may have several or none: ours, if it has one of ours."""
    names = sorted(port.get_names())
    return next((name for name in OUTPUTS if name in names), names[0] if names else "")


def _port(port: Any, path: Path) -> Port:
    try:
        dtype = np.dtype(port.get_element_type().to_dtype())
    except RuntimeError as error:
        raise ModelError(f"{path}: '{_name(port)}' is of type {port.get_element_type()}, which no image has") from error
    shape = port.get_partial_shape()
    lengths = [None if length.is_dynamic else length.get_length() for length in shape] if shape.rank.is_static else []
    return Port(_name(port), tuple(lengths), dtype)


def _metadata(model: Any, path: Path) -> str | None:
    """Return the description from an OpenVINO file's own metadata, or from those of the ONNX file it was read from."""
    for place in ([METADATA_KEY], ["framework", METADATA_KEY]):
        if model.has_rt_info(place):
            try:
                return str(model.get_rt_info(place).astype(str))
            except (RuntimeError, UnicodeDecodeError) as error:
                raise ModelError(f"{path}: its metadata are not UTF-8 text; export the model again") from error
    return None
