"""Prediction with ONNX Runtime, from the files that segshrink.export writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy.typing as npt

from segshrink.errors import FileError, ModelError
from segshrink.prediction.exported import METADATA_KEY, OUTPUTS, ExportedModel, first_line, planes
from segshrink.prediction.runtimes.onnx_parts import output_names, part


class OnnxBackend(ExportedModel):
    """Runs one of segshrink's ``.onnx`` files.

    Images may have any size: the files pad to the network's stride and crop back inside their graph. Only the part of
    the graph that an answer needs is loaded and executed.

    Args:
        path: The file; its metadata describes classes and bands.
        threads: Threads of the session; by default all cores.

    Raises:
        FileError: The file is missing or unreadable.
        ModelError: The file isn't ONNX, wasn't written by segshrink, or its metadata is damaged.
    """

    def __init__(self, path: str | Path, *, threads: int | None = None) -> None:
        path = Path(path)
        self._threads = threads
        content = _read(path)
        names = output_names(content)
        first = next((name for name in OUTPUTS if name in names), "")
        session = _open_session(part(content, first), path, threads=threads)
        self._sessions = {first: session}
        self._unused = True
        self._input = _input(session, path)
        super().__init__(
            path,
            onnx_metadata(session, path),
            outputs=names,
            takes_bytes=self._input.type == "tensor(uint8)",
            runtime="onnxruntime",
        )

    def _fetch(self, images: npt.NDArray[Any], output: str) -> npt.NDArray[Any]:
        batch = planes(images, self._dtype)
        session = self._session(output)
        try:
            answer: npt.NDArray[Any] = session.run([output], {self._input.name: batch})[0]
        except Exception as error:  # the runtime's exceptions have no common public base
            raise self._failed(images, error) from error
        return answer

    def _session(self, output: str) -> Any:
        if output not in self._sessions:
            if self._unused:
                self._sessions.clear()  # weights needn't lie in memory twice
            self._sessions[output] = _open_session(part(_read(self.path), output), self.path, threads=self._threads)
        self._unused = False
        return self._sessions[output]


def onnx_metadata(session: Any, path: Path) -> str | None:
    """Return the description that the file of a session carries; None where it has none.

    Raises:
        ModelError: Its metadata aren't text.
    """
    try:
        text: str | None = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
    except UnicodeDecodeError as error:
        raise ModelError(f"{path}: its metadata are not UTF-8 text ({error.reason}); export the model again") from error
    return text


def _input(session: Any, path: Path) -> Any:
    try:
        (given,) = session.get_inputs()
    except ValueError as error:  # none, several, or one whose name isn't UTF-8 text
        raise ModelError(f"{path} doesn't take images and nothing else; use segshrink export") from error
    return given


def _read(path: Path) -> bytes:
    if not path.is_file():
        raise FileError(f"{path} does not exist; give an .onnx file written by segshrink export")
    try:
        return path.read_bytes()
    except OSError as error:
        raise FileError(f"can't read {path}: {error.strerror or error}") from error


def _open_session(content: bytes, path: Path, *, threads: int | None) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # its errors come as exceptions
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        # From bytes, so that a file can't make the runtime read other files beside it.
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's exceptions have no common public base
        raise ModelError(f"{path} can't be loaded by ONNX Runtime ({first_line(error)}); export the model again") from (
            error
        )
