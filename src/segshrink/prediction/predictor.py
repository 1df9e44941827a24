"""Prediction of whole images: logits, classes and probabilities."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from segshrink.classes import ClassMap
from segshrink.errors import DataError, ModelError
from segshrink.imagery.image_features import ImageSample
from segshrink.model_file import runs_in_torch
from segshrink.prediction.backends import Backend, open_backend
from segshrink.prediction.logits import most_likely, softmax_in_place
from segshrink.prediction.misuse import Misuse, find_misuse
from segshrink.prediction.tiled import Blending, choose_tiling, predict_tiles

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

    An image is cut into the overlapping tiles that scenes are cut into (``segshrink.prediction.scenes``), and each
    pixel's answer is that of the tile whose middle is nearest. An image that fits in one tile is run as it is.

    Args:
        source: What ``open_backend`` takes: a model file or folder, a model, or a backend.
        tile: Side of a tile in pixels; by default 512 at the model's working size, rounded up to the network's stride.
        overlap: Pixels that neighboring tiles share, less than ``tile``; by default four strides, at least 64.
        batch: Tiles run at once; by default 4 in torch, else 1.
        runtime: As in ``open_backend``.
        precision: As in ``open_backend``.
        threads: As in ``open_backend``.
        blend: "center", or "cosine": the average of overlapping tiles under weights that fall to their borders.
        classes: As in ``open_backend``.

    Attributes:
        backend: What runs the model.
        tiling: How images are cut.

    Raises:
        ConfigError: Tile, overlap or batch make no sense.
    """

    def __init__(
        self,
        source: str | Path | SegmentationModel | Backend,
        *,
        tile: int | None = None,
        overlap: int | None = None,
        batch: int | None = None,
        runtime: str | None = None,
        precision: str = "auto",
        threads: int | None = None,
        blend: Blending = "center",
        classes: ClassMap | None = None,
    ) -> None:
        self._source, self._runtime, self._threads, self._blend = source, runtime, threads, blend
        self._cut: dict[str, Any] = {"tile": tile, "overlap": overlap, "batch": batch}
        self._precision, self._classes = precision, classes
        self.backend: Backend = open_backend(
            source, runtime=runtime, precision=precision, threads=threads, classes=classes
        )
        self.tiling = choose_tiling(
            self.backend.description,
            runtime=self.backend.runtime,
            tile=self.backend.own_tile if tile is None else tile,
            overlap=overlap,
            batch=batch,
        )

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
        return self._tiled(image, self.backend.run)

    def predict_classes(self, image: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
        """Return the most likely class of each pixel (H, W), the first of equals, and hold no more than that.

        Args:
            image: As in ``predict_logits``, which raises the same errors.
        """
        if self._blend == "cosine":
            return most_likely(self.predict_logits(image))
        return np.asarray(self._tiled(image, lambda tiles: self.backend.classify(tiles)[:, np.newaxis])[0])

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

    def find_misuse(self, image: Any) -> Misuse | None:
        """Tell what makes an image unlike those that the model learned from, such as exchanged bands.

        Args:
            image: As in ``predict_array``.

        Returns:
            The most likely cause; None where the image is like them, or where the model doesn't know them.
        """
        return find_misuse(self.backend.description, ImageSample.of(as_image(image)))

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
            options: By default with this predictor's tile, overlap, batch and blending. Runtime and threads are this
                predictor's, too, where they say none.
            progress: Called with (pixels done, pixels in all, name of the scene).

        Returns:
            The files written; errors as in ``segshrink.prediction.scenes.predict_scenes``.
        """
        from segshrink.prediction.scenes import SceneOptions
        from segshrink.prediction.scenes.predict import Archive, expanded

        options = options or SceneOptions(**self._cut, blend=self._blend)
        options = replace(options, runtime=options.runtime or self._runtime, threads=options.threads or self._threads)
        in_memory = not isinstance(self._source, str | Path) or runs_in_torch(self._source)
        archive = Archive(
            self._source,
            expanded([source], Path(out)),
            Path(out),
            options,
            named=[source],
            precision=self._precision,
            classes=self._classes,
            opened=self.backend if in_memory else None,  # files are opened once for each core
        )
        with archive:
            return archive.predict(progress)[0].files

    def _tiled(
        self, image: npt.NDArray[Any], answer: Callable[[npt.NDArray[Any]], npt.NDArray[Any]]
    ) -> npt.NDArray[Any]:
        self._check(image)
        cut = self.tiling
        return predict_tiles(
            image,
            answer,
            tile=cut.tile,
            overlap=cut.overlap,
            align=cut.stride,
            batch=cut.batch,
            blend=self._blend,
        )

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
    band_axes = [axis for axis, name in enumerate(names) if str(name).lower() in _BAND_AXES]
    if not band_axes and values.ndim == 2:
        return values[:, :, np.newaxis]
    if len(band_axes) != 1 or values.ndim != 3:
        raise DataError(
            f"an image has the axes band, y and x, found {', '.join(map(str, names))}; select one time, and name the "
            "axis of bands 'band'"
        )
    return np.moveaxis(values, band_axes[0], -1)
