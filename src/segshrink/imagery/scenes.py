"""Scenes: images of any size, read window by window with what is valid in them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from PIL import Image
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.io import MemoryFile
from rasterio.windows import Window as RasterWindow

from segshrink.errors import ConfigError, DataError, FileError, UsageError
from segshrink.imagery.bands import Bands, choose_bands
from segshrink.imagery.georeference import Georeference
from segshrink.imagery.opening import gdal_settings, is_remote, open_source, scene_header
from segshrink.imagery.pictures import Picture, refuse_orientation, refuse_turned
from segshrink.imagery.reading import BandReader
from segshrink.imagery.scaling import PixelMap, Scaling, ScalingChange, rescaling, scaling_of
from segshrink.imagery.scene_sources import scene_name
from segshrink.imagery.validity import fill_nodata
from segshrink.tiling import Window

# Resolutions that differ by less than this aren't resampled: the map then has the scene's own grid.
_SAME_RESOLUTION = 0.05
# Times as many pixels as the scene has that are read from it at most: ten pixels for one each way.
_MOST_ENLARGED = 100


class Scene:
    """An open scene; a context manager. Made by ``open_scene``.

    It holds one GDAL dataset, which must not be used by two threads at once: open one Scene per thread or process.

    Attributes:
        name: File name without suffix.
        source: What was opened.
        height: Rows of pixels, at the resolution that is read.
        width: Columns of pixels, at the resolution that is read.
        bands: Bands of what ``read`` gives.
        dtype: Its numbers: "uint8", "uint16", "int16" or "float32".
        georeference: The grid that is read, and where it lies.
        band_names: What the bands are called, "1", "2", ... where nothing says.
    """

    def __init__(
        self,
        source: str | Path,
        dataset: Any,
        bands: Bands,
        *,
        georeference: Georeference,
        change: PixelMap,
        dtype: str,
        nodata: float | None = None,
    ) -> None:
        self.source = source
        self.name = scene_name(source)
        self.georeference = georeference
        self.height, self.width = georeference.height, georeference.width
        self.bands, self.band_names, self.dtype = len(bands), bands.names, dtype
        self._dataset, self._change = dataset, change
        self._reader = BandReader(dataset, bands, name=str(source), nodata=nodata)
        self._resampling = Resampling.nearest
        if (self.height, self.width) != (dataset.height, dataset.width) and bands.palette is None:
            self._resampling = Resampling.average if self.height < dataset.height else Resampling.bilinear

    def __enter__(self) -> Scene:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; nothing can be read afterwards."""
        self._dataset.close()

    @property
    def files(self) -> list[str]:
        """All files that the scene is read from: itself, a VRT's sources, masks, world files."""
        return list(self._dataset.files)

    def read(self, window: Window) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        """Read a window.

        Pixels without a value (transparent, masked, no-data, NaN, infinite) are filled as ``fill_nodata`` says, from
        the window's valid ones; where there are none, with zeros. So they don't stand out for their neighbours.

        Returns:
            Pixels (h, w, bands) of ``dtype``, and which of them are valid, (h, w); None when all are.

        Raises:
            ValueError: The window reaches outside the scene.
            FileError: The file is truncated or damaged there.
        """
        if min(window.row, window.col) < 0 or min(window.height, window.width) < 1:
            raise ValueError(f"{window} is no window of a scene")
        if window.row + window.height > self.height or window.col + window.width > self.width:
            raise ValueError(f"{window} reaches outside the scene of {self.height} × {self.width} pixels")
        down, right = (
            file / read if file != read else 1
            for file, read in zip(self._dataset.shape, (self.height, self.width), strict=True)
        )
        place = RasterWindow(window.col * right, window.row * down, window.width * right, window.height * down)
        try:
            with gdal_settings():
                pixels, valid = self._reader.read(
                    place, shape=(window.height, window.width), resampling=self._resampling
                )
        except (RasterioError, OSError) as error:
            raise FileError(
                f"can't read {self.source} at row {window.row}, column {window.col} "
                f"({window.height} × {window.width} pixels): {error.__cause__ or error}; the file is truncated or "
                "damaged there, copy or download it again"
            ) from error
        if valid is not None:
            fill_nodata(pixels, valid)
        return self._change(pixels), valid


def open_scene(
    source: str | Path,
    *,
    bands: Sequence[int | str] | None = None,
    scale: tuple[float, float] | None = None,
    resolution: float | None = None,
    dtype: str | None = None,
    count: int | None = None,
    names: Sequence[str] | None = None,
    scaling: Scaling | None = None,
    nodata: float | None = None,
) -> Scene:
    """Open a scene for reading in windows: anything GDAL reads, local or over http, https, s3, gs or az.

    Pictures that Pillow decodes for training are decoded by it here too, as long as they aren't too large for it.

    Args:
        source: Path or URL. Nothing is ever written beside it.
        bands: Bands by number (from 1) or by name: the band's description or its colour ("red", "nir"), in any case.
            None is all but transparency; all with it where ``count`` says so.
        scale: (low, high) raw values that become 0 and the largest value of ``dtype`` (1 for float32), linearly; what
            is beyond is clipped, except to float32.
        resolution: Metres a pixel to read at, where that differs from the scene's own by more than 5 %. Shrinking
            averages, starting from overviews where there are some; enlarging is bilinear.
        dtype: The numbers a model takes; None takes the file's.
        count: How many bands a model takes; None takes any number.
        names: What a model's bands are called; without ``bands`` the scene's are taken in that order.
        scaling: Scale and offset tags of the numbers that a model takes; without ``scale`` the scene's are turned into
            such ones.
        nodata: A raw value that means no data, beside what the file says; see ``holds_nodata``.

    Raises:
        FileError: The file is missing, no image, damaged or unreachable.
        DataError: A band doesn't exist, the bands aren't ``count``, the numbers aren't ``dtype`` and no ``scale``
            says how they become so; their names or tags contradict the model's; the scene's resolution isn't known.
        ConfigError: ``scale`` or ``resolution`` is none, or ``resolution`` is absurdly fine.
    """
    with gdal_settings():
        dataset = _open(source)
    try:
        chosen = choose_bands(dataset, bands, count=count, name=str(source), model=names)
        file_dtype = BandReader(dataset, chosen, name=str(source)).dtype
        if dtype not in (None, file_dtype) and scale is None:
            raise DataError(
                f"{source} holds {file_dtype} numbers but the model takes {dtype}; say which of its values are dark "
                "and bright with --scale LOW,HIGH"
            )
        change: PixelMap
        if scale is None:
            change = ScalingChange(scaling_of(dataset, chosen), scaling, dtype=file_dtype, name=str(source))
        else:
            change = rescaling(file_dtype, dtype or file_dtype, scale)
        georeference = file_grid = Georeference.of(dataset)
        if resolution is not None:
            georeference = resampled(georeference, resolution, name=str(source))
        if nodata is not None and georeference != file_grid:
            dataset = _declaring(dataset, nodata)
        return Scene(
            source, dataset, chosen, georeference=georeference, change=change, dtype=dtype or file_dtype, nodata=nodata
        )
    except BaseException:
        dataset.close()
        raise


def _open(source: str | Path) -> Any:
    """Open a picture with Pillow, as training does, where it isn't too large for it; all else with GDAL."""
    with ExitStack() as stack:
        dataset = stack.enter_context(open_source(source))
        if not is_remote(source):
            path = Path(source)
            header = scene_header(path)
            if not header.by_pillow:
                refuse_turned(path, header)
            elif dataset.height * dataset.width <= 2 * (Image.MAX_IMAGE_PIXELS or math.inf):
                return Picture(path, Georeference.of(dataset))
            else:
                refuse_orientation(path, int(dataset.tags().get("EXIF_Orientation", 1)))
        stack.pop_all()
        return dataset


def resampled(georeference: Georeference, resolution: float, *, name: str) -> Georeference:
    """Return the grid of the same ground in pixels of ``resolution`` metres; the same grid where that is close.

    Raises:
        ConfigError: ``resolution`` isn't above 0, or so fine that the grid would have more than a hundred times as many
            pixels.
        DataError: The grid's own resolution isn't known.
    """
    if not (resolution > 0 and math.isfinite(resolution)):
        raise UsageError(f"--resolution is metres a pixel and must be above 0, found {resolution}")
    size = georeference.pixel_size
    if size is None:
        raise DataError(
            f"{name} doesn't say how large its pixels are on the ground (no coordinate reference system), so it can't "
            f"be read at {resolution:g} m; leave --resolution out"
        )
    if all(abs(part / resolution - 1) <= _SAME_RESOLUTION for part in size):
        return georeference
    height, width = (
        max(1, round(pixels * part / resolution))
        for pixels, part in zip((georeference.height, georeference.width), size, strict=True)
    )
    if height * width > _MOST_ENLARGED * georeference.height * georeference.width:
        raise ConfigError(
            f"{name} has pixels of {max(size):.3g} m: at {resolution:g} m its {georeference.height} × "
            f"{georeference.width} pixels would become {height} × {width}, {height * width:.3g} in all, which show no "
            "more than before and take as much longer; use --resolution native, a coarser one, or a finer scene"
        )
    return georeference.scaled(height, width)


def _declaring(dataset: Any, nodata: float) -> Any:
    """Open the raster again in such a way that GDAL knows the no-data value, so that averages leave it out."""
    if isinstance(dataset, Picture):
        dataset.nodata = nodata
        return dataset
    with MemoryFile(filename="scene.vrt") as memory:
        rasterio.shutil.copy(dataset, memory.name, driver="VRT")
        with rasterio.open(memory.name, "r+", driver="VRT") as virtual, suppress(ValueError):
            virtual.nodata = nodata  # one that the raster's numbers can't be stands in no pixel
        text = memory.read().decode()
    dataset.close()
    return rasterio.open(text, driver="VRT")
