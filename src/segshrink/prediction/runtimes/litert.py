"""Networks in TFLite files, run by LiteRT."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segshrink.errors import ModelError, first_line
from segshrink.extras import needing
from segshrink.prediction.exported import METADATA_KEY, ExportedModel
from segshrink.prediction.runtimes.network import Network, Port, check_inputs, read_file
from segshrink.prediction.tiled import predict_tiles

# The description stands in a zip archive after the network, as TFLite's associated files do.
METADATA_FILE = f"{METADATA_KEY}.json"
_LARGEST_DESCRIPTION = 4_000_000  # bytes


class LiteRtNetwork(Network):
    """A TFLite file, from anybody.

    Args:
        path: The file.
        threads: Threads of the interpreter; by default all cores.

    Raises:
        FileError: The file is missing or unreadable.
        ModelError: It isn't TFLite, can't be run, or doesn't take images and nothing else.
        MissingExtraError: LiteRT isn't installed.
    """

    runtime, layout = "litert", "NHWC"

    def __init__(self, path: Path, *, threads: int | None = None) -> None:
        self._interpreter = _open(path, threads=threads)
        takes, gives = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        check_inputs(path, [detail["name"] for detail in takes])
        self._input, self._gives = takes[0]["index"], gives
        self._shape = tuple(int(length) for length in takes[0]["shape"])
        super().__init__(path, _port(takes[0], path), [detail["name"] for detail in gives], _description(path))

    def output(self, number: int) -> Port:
        """Describe one output."""
        return _port(self._gives[number], self.path)

    def _run(self, images: NDArray[Any], output: int) -> NDArray[Any]:
        if images.shape != self._shape:
            self._interpreter.resize_tensor_input(self._input, images.shape)
            self._interpreter.allocate_tensors()
            self._shape = images.shape
        self._interpreter.set_tensor(self._input, images)
        self._interpreter.invoke()
        answer: NDArray[Any] = self._interpreter.get_tensor(self._gives[output]["index"])
        return answer


class LiteRtBackend(ExportedModel):
    """Runs one of segshrink's ``.tflite`` files, which hold a network for tiles of one size.

    Smaller images are filled up by repeating their right and bottom edge; larger ones are cut into tiles, whose logits
    are blended where they overlap by an eighth.

    Args:
        source: The file, or what was opened of it; the archive at its end describes classes and bands.
        threads: Threads of the interpreter; by default all cores.

    Raises:
        FileError: The file is missing or unreadable.
        ModelError: The file isn't TFLite, wasn't written by segshrink, or its description is damaged.
        MissingExtraError: LiteRT isn't installed.
    """

    def __init__(self, source: str | Path | Network, *, threads: int | None = None) -> None:
        network = source if isinstance(source, Network) else LiteRtNetwork(Path(source), threads=threads)
        super().__init__(network, outputs=["logits"])
        self.tile = network.images.shape[1] or 0
        self._quantization = network.output(0).quantization
        if network.images.shape != (1, self.tile, self.tile, self.bands) or not self.tile:
            raise ModelError(
                f"{self.path} takes images of shape {network.images.shape}, not tiles; export the model again"
            )

    def _fetch(self, images: NDArray[Any], output: str) -> NDArray[Any]:
        overlap = self.tile // 8
        return np.stack(
            [predict_tiles(image, self._run_tile, tile=self.tile, overlap=overlap, blend="cosine") for image in images]
        )

    def _run_tile(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Return the logits (1, C, h, w) of an image (1, h, w, bands) that fits into a tile."""
        height, width = images.shape[1:3]
        missing = ((0, 0), (0, self.tile - height), (0, self.tile - width), (0, 0))
        pixels = np.pad(images.astype(self._dtype, copy=False), missing, mode="edge")
        logits = self.network.run(pixels, 0)[:, :height, :width]
        if self._quantization is not None:
            scale, zero = self._quantization
            logits = (logits.astype(np.float32) - zero) * np.float32(scale)
        return np.ascontiguousarray(logits.transpose(0, 3, 1, 2))


def _open(path: Path, *, threads: int | None) -> Any:
    with needing("running a .tflite file", "tflite"):
        from ai_edge_litert.interpreter import Interpreter
    content = read_file(path)

    def opened(**options: Any) -> Any:
        interpreter = Interpreter(model_content=content, num_threads=threads, **options)
        interpreter.allocate_tensors()
        return interpreter

    try:
        try:
            return opened()
        except RuntimeError:  # XNNPACK refuses some quantized networks that LiteRT's own kernels run
            from ai_edge_litert.interpreter import OpResolverType

            return opened(experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES)
    except (RuntimeError, ValueError) as error:
        raise ModelError(f"{path} can't be loaded by LiteRT ({first_line(error)}); export the model again") from error


def _port(detail: dict[str, Any], path: Path) -> Port:
    # The signature has -1 for lengths that the shape, once allocated, gives as 1.
    signature = detail.get("shape_signature", ())
    lengths = signature if len(signature) else detail["shape"]
    quantization = detail["quantization_parameters"]
    scales, zeros = quantization["scales"], quantization["zero_points"]
    if len(scales) > 1:
        raise ModelError(f"{path}: '{detail['name']}' has a scale for each channel; one for all is needed")
    return Port(
        detail["name"],
        tuple(int(length) if length > 0 else None for length in lengths),
        np.dtype(detail["dtype"]),
        (float(scales[0]), int(zeros[0])) if len(scales) else None,
    )


def _description(path: Path) -> str | None:
    """Read what segshrink wrote behind the network; None where there is nothing of it.

    Raises:
        ModelError: It is damaged, or no description.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if METADATA_FILE not in archive.namelist():
                return None
            size = archive.getinfo(METADATA_FILE).file_size
            if size > _LARGEST_DESCRIPTION:
                raise ModelError(
                    f"{path}: its {METADATA_FILE} of {size:,} bytes is no description of a model, of at most "
                    f"{_LARGEST_DESCRIPTION:,} bytes; export the model again"
                )
            try:
                return archive.read(METADATA_FILE).decode("utf-8")  # no more than the size it claims
            except (zipfile.BadZipFile, zlib.error, UnicodeDecodeError, NotImplementedError, RuntimeError) as error:
                reason = first_line(error)
                raise ModelError(
                    f"{path}: its {METADATA_FILE} is damaged ({reason}); export the model again"
                ) from error
    except zipfile.BadZipFile:
        return None
