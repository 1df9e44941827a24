"""Prediction of whole images: tiles, blended logits, classes and probabilities."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from segshrink.classes import ClassMap
from segshrink.errors import ConfigError, DataError, ModelError
from segshrink.prediction.backends import Backend, open_backend
from segshrink.prediction.logits import most_likely, softmax_in_place
from segshrink.tiling import Blend, cosine_weights, grid

if TYPE_CHECKING:
    from segshrink.models import SegmentationModel
    from segshrink.prediction.scenes import SceneFiles, SceneOptions

# What xarray, rioxarray and friends call the axis of bands.
_BAND_AXES = ("band", "bands", "channel", "channels", "wavelength")


@dataclass(frozen=True)
class Prediction:
    """A segmented image.

    Attributes:
        index: (H, W) uint8, the most probable class of each pixel; the first of equals.
        probabilities: (C, H, W) float32 in [0, 1], summing to 1 over the classes.
    """

    index: npt.NDArray[np.uint8]
    probabilities: npt.NDArray[np.float32]


class Predictor:
    """Segments images of any size with one model.

    The image is cut into overlapping tiles, the model runs on batches of them, and their logits are blended with
    cosine weights. An image that fits in one tile is run as it is.

    Args:
        source: What ``open_backend`` takes: a model file or folder, a model, or a backend.
        tile: Side of a tile in pixels.
        overlap: Pixels that neighbouring tiles share, less than ``tile``.
        batch: Tiles run at once.
        runtime: As in ``open_backend``.
        precision: As in ``open_backend``.
        threads: As in ``open_backend``.

    Raises:
        ConfigError: Tile, overlap or batch make no sense.
    """

    def __init__(
        self,
        source: str | Path | SegmentationModel | Backend,
        *,
        tile: int = 512,
        overlap: int = 64,
        batch: int = 4,
        runtime: str | None = None,
        precision: str = "auto",
        threads: int | None = None,
    ) -> None:
        if tile < 1 or not 0 <= overlap < tile or batch < 1:
            raise ConfigError(
                f"tile {tile}, overlap {overlap}, batch {batch}: tile and batch must be at least 1 "
                "and overlap must lie between 0 and tile - 1"
            )
        self._source, self._runtime, self._threads = source, runtime, threads
        self.backend: Backend = open_backend(source, runtime=runtime, precision=precision, threads=threads)
        self.tile = tile
        self.overlap = overlap
        self.batch = batch

    @property
    def classes(self) -> ClassMap:
        """The model's classes."""
        return self.backend.classes

    def predict_logits(self, image: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Run the model over an image.

        Args:
            image: (H, W, bands) raw pixel values, H and W at least 1.

        Returns:
            (C, H, W) float32 logits.

        Raises:
            DataError: The image has no pixels or not three axes.
            ModelError: The image's number of bands is not the model's.
        """
        self._check(image)
        height, width = image.shape[:2]
        windows = grid(height, width, tile=self.tile, overlap=self.overlap)
        if len(windows) == 1:
            logits: npt.NDArray[np.float32] = self.backend.run(image[np.newaxis])[0]
            return logits
        weights = cosine_weights(windows[0].height, windows[0].width, overlap=self.overlap)
        blend = Blend(self.backend.num_classes, height, width)
        for start in range(0, len(windows), self.batch):
            group = windows[start : start + self.batch]
            tiles = np.stack([image[window.slices] for window in group])
            for window, values in zip(group, self.backend.run(tiles), strict=True):
                blend.add(values, window, weights)
        return blend.result()

    def predict_array(self, image: Any) -> Prediction:
        """Segment an image.

        Args:
            image: (H, W, bands) raw pixel values; or an ``xarray.DataArray`` with an axis "band" anywhere, or with two
                axes for one band.

        Raises:
            DataError: The image has no pixels or not three axes.
            ModelError: The image's number of bands is not the model's.
        """
        logits = self.predict_logits(as_image(image))
        index = most_likely(logits)
        softmax_in_place(logits)
        return Prediction(index=index, probabilities=logits)

    def predict_scene(
        self,
        source: str | Path,
        out: str | Path,
        options: SceneOptions | None = None,
        *,
        progress: Callable[[int, int, str], None] | None = None,
    ) -> SceneFiles:
        """Segment a scene of any size from a file or URL into files.

        Args:
            source: Anything GDAL reads.
            out: Folder for the results, or a ``.tif`` or ``.png`` file.
            options: By default with this predictor's tile, overlap and batch.
            progress: Called with (pixels done, pixels in all, name of the scene).

        Returns:
            The files written; errors as in ``segshrink.prediction.scenes.predict_scenes``.
        """
        from segshrink.prediction.scenes import SceneOptions, predict_scene

        if options is None:
            options = SceneOptions(
                tile=self.tile,
                overlap=self.overlap,
                batch=self.batch,
                runtime=self._runtime,
                threads=self._threads,
            )
        in_memory = not isinstance(self._source, str | Path) or Path(self._source).is_dir()
        # A folder's model is loaded already; files are opened once for each core.
        return predict_scene(self.backend if in_memory else self._source, source, out, options, progress=progress)

    def _check(self, image: npt.NDArray[Any]) -> None:
        if image.ndim != 3 or 0 in image.shape:
            raise DataError(f"an image is (H, W, bands) with at least one pixel, got an array of shape {image.shape}")
        if image.shape[2] != self.backend.bands:
            raise ModelError(
                f"the image has {image.shape[2]} band(s), but model '{self.backend.name}' takes {self.backend.bands}; "
                "use an image with the bands the model was trained on"
            )


def as_image(image: Any) -> npt.NDArray[Any]:
    """Return (H, W, bands) pixel values of an array, or of a ``DataArray`` by the names of its axes.

    Raises:
        DataError: The names don't say which axis is which.
    """
    names = getattr(image, "dims", None)
    if names is None:
        return np.asarray(image)
    values = np.asarray(image.values)
    found = [axis for axis, name in enumerate(names) if str(name).lower() in _BAND_AXES]
    if not found and values.ndim == 2:
        return values[:, :, np.newaxis]
    if len(found) != 1 or values.ndim != 3:
        raise DataError(
            f"an image has the axes band, y and x, found {', '.join(map(str, names))}; select one time, and name the "
            "axis of bands 'band'"
        )
    return np.moveaxis(values, found[0], -1)
