"""Networks in ONNX files, run by ONNX Runtime."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segshrink.errors import FileError, ModelError, first_line
from segshrink.extras import needing
from segshrink.model_file import ELSEWHERE
from segshrink.prediction.exported import METADATA_KEY, OUTPUTS, ExportedModel
from segshrink.prediction.runtimes.network import Network, Port, check_inputs, read_file
from segshrink.prediction.runtimes.onnx_parts import output_names, part

# What ONNX Runtime calls the types that images and answers may have.
_DTYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
    "tensor(int8)": np.int8,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
}


class OnnxNetwork(Network):
    """An ONNX file, from anybody. Several threads may use it at once.

    Only the part of the graph that an answer needs is loaded and executed.

    Args:
        path: The file.
        threads: Threads of the session; by default all cores.
        spinning: Whether threads that wait for the next batch keep their cores busy, which is quicker.

    Raises:
        FileError: The file, or one that it keeps weights in, is missing or unreadable.
        ModelError: It isn't ONNX, can't be run, or doesn't take images and nothing else.
        MissingExtraError: It keeps weights in other files, and what reads those isn't installed.
    """

    runtime = "onnxruntime"

    def __init__(self, path: Path, *, threads: int | None = None, spinning: bool = True) -> None:
        self.path = path
        self._threads, self._spinning = threads, spinning
        content = read_whole(path)
        names = output_names(content)
        first = next((name for name in OUTPUTS if name in names), names[0] if names else "")
        session = self._opened(content, first)
        self._sessions = {first: session}
        self._unused = True
        self._lock = threading.Lock()
        try:
            check_inputs(path, [port.name for port in session.get_inputs()])
            metadata = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
        except UnicodeDecodeError as error:
            raise ModelError(f"{path}: its names or metadata are not UTF-8 text; export the model again") from error
        super().__init__(path, self._port(session.get_inputs()[0]), names, metadata)

    def output(self, number: int) -> Port:
        """Describe one output."""
        (port,) = (port for port in self._session(number).get_outputs() if port.name == self.outputs[number])
        return self._port(port)

    def _run(self, images: NDArray[Any], output: int) -> NDArray[Any]:
        answers: list[NDArray[Any]] = self._session(output).run([self.outputs[output]], {self.images.name: images})
        self._unused = False
        return answers[0]

    def _session(self, output: int) -> Any:
        name = self.outputs[output]
        with self._lock:
            if name not in self._sessions:
                if self._unused:
                    self._sessions.clear()  # weights needn't lie in memory twice
                self._sessions[name] = self._opened(read_whole(self.path), name)
            return self._sessions[name]

    def _opened(self, content: bytes, output: str) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # its errors come as exceptions
        if self._threads is not None:
            options.intra_op_num_threads = self._threads
        if not self._spinning:
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            # From bytes, so that a file can't make the runtime read other files than those beside it.
            return onnxruntime.InferenceSession(part(content, output), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the runtime's exceptions have no common public base
            raise ModelError(
                f"{self.path} can't be loaded by ONNX Runtime ({first_line(error)}); export the model again"
            ) from error

    def _port(self, port: Any) -> Port:
        if port.type not in _DTYPES:
            raise ModelError(f"{self.path}: '{port.name}' is of type {port.type}, which no image or class map has")
        shape = tuple(length if isinstance(length, int) and length > 0 else None for length in port.shape)
        return Port(port.name, shape, np.dtype(_DTYPES[port.type]))


def read_whole(path: Path) -> bytes:
    """Read an ONNX file with the weights that it keeps in other files of its folder.

    Raises:
        FileError: A file is missing or unreadable.
        ModelError: It isn't ONNX.
        MissingExtraError: It keeps weights in other files, and the package onnx isn't installed.
    """
    content = read_file(path)
    if ELSEWHERE not in content:
        return content
    with needing("an ONNX file with weights in other files", "train"):
        import onnx
        from onnx.external_data_helper import load_external_data_for_model
    try:
        model = onnx.load_from_string(content)
    except Exception as error:  # what protobuf raises isn't public
        raise ModelError(f"{path} is not an ONNX file ({first_line(error)}); export the model again") from error
    try:
        # It refuses files outside of the folder.
        load_external_data_for_model(model, str(path.parent))
        whole: bytes = model.SerializeToString()
    except Exception as error:  # what onnx raises depends on its version
        raise FileError(
            f"{path} keeps weights in other files, which can't be read ({first_line(error)}); put them beside it, or "
            "save the model as one file"
        ) from error
    return whole


class OnnxBackend(ExportedModel):
    """Runs one of segshrink's ``.onnx`` files on images of any size.

    Args:
        path: The file; its metadata describes classes and bands.
        threads: Threads of the session; by default all cores.

    Raises:
        FileError: The file is missing or unreadable.
        ModelError: The file isn't ONNX, wasn't written by segshrink, or its metadata is damaged.
    """

    def __init__(self, path: str | Path, *, threads: int | None = None) -> None:
        super().__init__(OnnxNetwork(Path(path), threads=threads))
