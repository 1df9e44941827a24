"""Prediction with OpenVINO, from the files that segshrink.export writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy.typing as npt

from segshrink.errors import FileError, ModelError
from segshrink.prediction.exported import METADATA_KEY, ExportedModel, planes
from segshrink.prediction.openvino_graphs import OpenVinoGraphs, openvino_reason, require_openvino


class OpenVinoBackend(ExportedModel):
    """Runs one of segshrink's ``.xml`` (with ``.bin``) or ``.onnx`` files.

    Images may have any size: the files pad to the network's stride and crop back inside their graph. Several threads
    may use it at once.

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
        model = _read(path)
        if len(model.inputs) != 1:
            raise ModelError(
                f"{path} takes {len(model.inputs)} inputs, not images and nothing else; use segshrink export"
            )
        self._graphs = OpenVinoGraphs(model, name=str(path), precision=precision, threads=threads, streams=streams)
        # Position of each output; one may have several names, or none.
        self._numbers = {name: number for number, port in enumerate(model.outputs) for name in port.get_names()}
        super().__init__(
            path,
            _metadata(model, path),
            outputs=list(self._numbers),
            takes_bytes=model.input(0).get_element_type() == require_openvino().Type.u8,
            runtime="openvino",
        )

    def _fetch(self, images: npt.NDArray[Any], output: str) -> npt.NDArray[Any]:
        try:
            return self._graphs.run(planes(images, self._dtype), self._numbers[output])
        except RuntimeError as error:
            raise self._failed(images, error) from error


def _read(path: Path) -> Any:
    openvino = require_openvino()
    if not path.is_file():
        raise FileError(f"{path} does not exist; give an .xml or .onnx file written by segshrink export")
    weights = path.with_suffix(".bin")
    if path.suffix.lower() == ".xml" and not weights.is_file():
        raise FileError(f"{weights} is missing, which holds the weights of {path.name}; copy both files")
    try:
        return openvino.Core().read_model(path)
    except RuntimeError as error:
        raise ModelError(
            f"{path} can't be loaded by OpenVINO ({openvino_reason(error)}); export the model again"
        ) from error


def _metadata(model: Any, path: Path) -> str | None:
    """Return the description from an OpenVINO file's own metadata, or from those of the ONNX file it was read from."""
    for place in ([METADATA_KEY], ["framework", METADATA_KEY]):
        if model.has_rt_info(place):
            try:
                return str(model.get_rt_info(place).astype(str))
            except (RuntimeError, UnicodeDecodeError) as error:
                raise ModelError(f"{path}: its metadata are not UTF-8 text; export the model again") from error
    return None
