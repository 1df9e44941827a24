"""Prediction with LiteRT, from the ``.tflite`` files that segshrink.export writes."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segshrink.errors import FileError, MissingExtraError, ModelError
from segshrink.prediction.exported import METADATA_KEY, ExportedModel, first_line
from segshrink.tiling import Blend, cosine_weights, grid

# The description stands in a zip archive after the network, as TFLite's associated files do.
METADATA_FILE = f"{METADATA_KEY}.json"
_LARGEST_DESCRIPTION = 4_000_000  # bytes


class LiteRtBackend(ExportedModel):
    """Runs one of segshrink's ``.tflite`` files.

    These hold a network for tiles of one size. Smaller images are filled up by repeating their right and bottom edge;
    larger ones are cut into tiles, whose logits are blended where they overlap by an eighth.

    Args:
        path: The file; the archive at its end describes classes and bands.
        threads: Threads of the interpreter; by default all cores.

    Raises:
        FileError: The file is missing or unreadable.
        ModelError: The file isn't TFLite, wasn't written by segshrink, or its description is damaged.
        MissingExtraError: LiteRT isn't installed.
    """

    def __init__(self, path: str | Path, *, threads: int | None = None) -> None:
        path = Path(path)
        self._interpreter = _open(path, threads=threads)
        self._takes = self._interpreter.get_input_details()[0]
        self._gives = self._interpreter.get_output_details()[0]
        self.tile = int(self._takes["shape"][1])
        super().__init__(
            path,
            _description(path),
            outputs=["logits"],
            takes_bytes=self._takes["dtype"] is np.uint8,
            runtime="litert",
        )

    def _fetch(self, images: npt.NDArray[Any], output: str) -> npt.NDArray[Any]:
        height, width = images.shape[1:3]
        overlap = self.tile // 8
        windows = grid(height, width, tile=self.tile, overlap=overlap)
        if len(windows) == 1:
            return np.stack([self._tile(image) for image in images])
        weights = cosine_weights(windows[0].height, windows[0].width, overlap=overlap)
        answers = []
        for image in images:
            blend = Blend(self.num_classes, height, width)
            for window in windows:
                blend.add(self._tile(image[window.slices]), window, weights)
            answers.append(blend.result())
        return np.stack(answers)

    def _tile(self, image: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Return the logits (C, h, w) of an image (h, w, bands) that fits into a tile."""
        height, width = image.shape[:2]
        missing = ((0, self.tile - height), (0, self.tile - width), (0, 0))
        pixels = np.pad(image.astype(self._dtype, copy=False), missing, mode="edge")
        try:
            self._interpreter.set_tensor(self._takes["index"], pixels[np.newaxis])
            self._interpreter.invoke()
        except (RuntimeError, ValueError) as error:
            raise self._failed(image[np.newaxis], error) from error
        logits: npt.NDArray[np.float32] = self._interpreter.get_tensor(self._gives["index"])[0, :height, :width]
        return np.ascontiguousarray(logits.transpose(2, 0, 1))


def _open(path: Path, *, threads: int | None) -> Any:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise MissingExtraError("running a .tflite file", "tflite") from error
    try:
        content = path.read_bytes()
    except OSError as error:
        raise FileError(f"can't read {path}: {error.strerror or error}; check the path") from error
    try:
        interpreter = Interpreter(model_content=content, num_threads=threads)
        interpreter.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        raise ModelError(f"{path} can't be loaded by LiteRT ({first_line(error)}); export the model again") from error
    return interpreter


def _description(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            size = archive.getinfo(METADATA_FILE).file_size
            if size > _LARGEST_DESCRIPTION:
                raise ModelError(
                    f"{path}: its {METADATA_FILE} of {size:,} bytes is no description of a model, of at most "
                    f"{_LARGEST_DESCRIPTION:,} bytes; export the model again"
                )
            return archive.read(METADATA_FILE).decode("utf-8")  # no more than the size it claims
    except (zipfile.BadZipFile, zlib.error, KeyError, UnicodeDecodeError, NotImplementedError, RuntimeError):
        return None
