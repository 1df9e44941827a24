"""Prediction with ONNX Runtime, from the files that segshrink.export writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segshrink.errors import FileError, ModelError
from segshrink.models.description import ModelDescription
from segshrink.prediction.backends import check_images

METADATA_KEY = "segshrink"


class OnnxBackend:
    """Runs one of segshrink's ``.onnx`` files.

    Images may have any size: the files pad to the network's stride and crop back inside their graph.

    Args:
        path: The file; its metadata describes classes and bands.
        threads: Threads of the session; by default all cores.

    Raises:
        FileError: The file is missing or unreadable.
        ModelError: The file isn't ONNX, wasn't written by segshrink, or its metadata is damaged.
    """

    def __init__(self, path: str | Path, *, threads: int | None = None) -> None:
        self.path = Path(path)
        self._session = _open_session(self.path, threads=threads)
        description = _description(self._session, self.path)
        self.name: str = self.path.stem
        self.classes = description.classes
        self.num_classes: int = len(self.classes.names)
        self.bands: int = description.bands
        self._input = self._session.get_inputs()[0]
        self._dtype = np.uint8 if self._input.type == "tensor(uint8)" else np.float32

    def run(self, images: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Turn raw pixel values (N, H, W, bands) into logits (N, num_classes, H, W).

        Raises:
            ModelError: The number of bands differs, or 16-bit pixels meet a file that takes 8-bit ones.
        """
        check_images(images, bands=self.bands, name=self.name)
        if self._dtype is np.uint8 and images.dtype != np.uint8:
            raise ModelError(
                f"{self.path} takes 8-bit pixels (uint8), got {images.dtype}; use the images it was made for"
            )
        batch = np.ascontiguousarray(images.transpose(0, 3, 1, 2), dtype=self._dtype)
        try:
            logits: npt.NDArray[np.float32] = self._session.run(None, {self._input.name: batch})[0]
        except Exception as error:  # the runtime's exceptions have no common public base
            first = str(error).strip().splitlines()[0]
            raise ModelError(f"{self.path} failed on images of shape {images.shape}: {first}") from error
        return logits


def _open_session(path: Path, *, threads: int | None) -> Any:
    import onnxruntime

    if not path.is_file():
        raise FileError(f"{path} does not exist; give an .onnx file written by segshrink export")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        content = path.read_bytes()
    except OSError as error:
        raise FileError(f"can't read {path}: {error.strerror or error}") from error
    try:
        # From bytes, so that a file can't make the runtime read other files beside it.
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's exceptions have no common public base
        first = str(error).strip().splitlines()[0]
        raise ModelError(f"{path} can't be loaded by ONNX Runtime ({first}); export the model again") from error


def _description(session: Any, path: Path) -> ModelDescription:
    text = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
    if text is None:
        raise ModelError(f"{path} was not written by segshrink (no '{METADATA_KEY}' metadata); use segshrink export")
    try:
        return ModelDescription.from_dict(json.loads(text))
    except (json.JSONDecodeError, ModelError) as error:
        raise ModelError(f"{path}: damaged '{METADATA_KEY}' metadata ({error}); export the model again") from error
