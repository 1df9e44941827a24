"""int8 files from one float32 file: all layers first, then with more and more of them in higher precision."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from segshrink.compression.quantization.onnx_int8 import OnnxQuantizer
from segshrink.compression.quantization.openvino_int8 import OpenVinoQuantizer
from segshrink.compression.quantization.scoring import Judge, Score
from segshrink.compression.quantization.sensitivity import counts_to_try, rank_by_noise
from segshrink.errors import ModelError
from segshrink.prediction import open_backend
from segshrink.prediction.isolated import check_isolated

INT8_FILES = {"onnxruntime": "int8.onnx", "openvino": "int8.xml"}

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Int8File:
    """An int8 file and how good it is.

    Attributes:
        path: The file.
        score: On the validation split.
        drop: Points of mIoU below float32.
        float_layers: Layers in higher precision.
        distilled: Whether its weights learned to be rounded.
    """

    path: Path
    score: Score
    drop: float
    float_layers: tuple[str, ...] = ()
    distilled: bool = False

    @property
    def files(self) -> tuple[Path, ...]:
        """The file and the weights that belong to it."""
        return (self.path, self.path.with_suffix(".bin")) if self.path.suffix == ".xml" else (self.path,)


class Attempts:
    """Quantises one float32 ONNX file for any runtime.

    Args:
        source: The file.
        tiles: Calibration tiles (bands, H, W), raw pixel values.
        folder: Where files go.
        judge: Scores them.
        reference: mIoU of float32, in [0, 1].
        max_drop: Points of mIoU that they may lose.
        distilled: Whether the file's weights learned to be rounded.
        progress: Called with (steps done, steps in all, what is being done).
    """

    def __init__(
        self,
        source: Path,
        tiles: Sequence[NDArray[Any]],
        folder: Path,
        judge: Judge,
        *,
        reference: float,
        max_drop: float,
        distilled: bool = False,
        progress: Progress,
    ) -> None:
        self._tiles = tiles
        self._folder = folder
        self._judge = judge
        self._reference = reference
        self._max_drop = max_drop
        self._distilled = distilled
        self._progress = progress
        self._onnx = OnnxQuantizer(
            source.read_bytes(),
            tiles,
            progress=lambda done, total: progress(done, total, "calibration tiles"),
        )

    def best(self, runtime: str) -> Int8File:
        """Return the first file that loses no more than it may, or else the one that loses least.

        The layers that stay in higher precision are those that are noisiest in 8 bits when all others are in float32.

        Raises:
            ModelError: The model can't be quantized for the runtime, or the runtime can't be used with it here.
        """
        best = self._attempt(runtime, ())
        if best.drop <= self._max_drop:
            return best
        with suppress(ModelError):  # what was found is better than nothing
            for count in counts_to_try(len(self._ranking)):
                attempt = self._attempt(runtime, tuple(self._ranking[:count]))
                best = min(best, attempt, key=lambda file: file.drop)
                if best.drop <= self._max_drop:
                    break
        return best

    @cached_property
    def _ranking(self) -> list[str]:
        return rank_by_noise(self._onnx, progress=lambda done, total: self._progress(done, total, "layers compared"))

    @cached_property
    def _openvino(self) -> OpenVinoQuantizer:
        return OpenVinoQuantizer(self._onnx.model, self._onnx.nodes, self._tiles)

    def _attempt(self, runtime: str, float_layers: tuple[str, ...]) -> Int8File:
        folder = self._folder / f"{runtime}-{len(float_layers)}"
        folder.mkdir(parents=True)
        path = folder / INT8_FILES[runtime]
        if runtime == "onnxruntime":
            path.write_bytes(self._onnx.compacted([name for name in self._onnx.nodes if name not in float_layers]))
        else:
            self._progress(0, 1, "calibrating for OpenVINO")
            self._openvino.write(path, float_nodes=float_layers)
            self._progress(1, 1, "calibrating for OpenVINO")
        check_isolated(path, runtime=runtime)
        score = self._judge.score(open_backend(path, runtime=runtime))
        return Int8File(path, score, 100 * (self._reference - score.mean_iou), float_layers, self._distilled)
