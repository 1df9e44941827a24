"""Writing rasters as Cloud-Optimized GeoTIFFs, window by window, whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape, quoteattr

import numpy as np
import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window as RasterWindow

from segshrink.classes import ClassMap
from segshrink.errors import FileError
from segshrink.files import replacing
from segshrink.imagery.georeference import Georeference
from segshrink.imagery.raster_files import gdal_settings, silent
from segshrink.tiling import Window

# Dataset tag that holds the class map as JSON.
CLASSES_TAG = "SEGSHRINK_CLASSES"
NODATA = 255
# Probabilities are stored as 0 .. 254, so that 255 is left for no data.
PROBABILITY_STEPS = 254
_BLOCK = 512
_SMALLEST_BLOCK = 128
# Bytes of a row of blocks above which blocks become smaller: GDAL's cache must hold the rows that are being written.
_BLOCK_ROW_BYTES = 32 << 20
_WINDOWED = {
    "driver": "GTiff",
    "tiled": True,
    "interleave": "pixel",
    "photometric": "minisblack",  # three probabilities are no colors
    "compress": "zstd",
    "zstd_level": 1,
    "bigtiff": "if_safer",
}
_CLOUD_OPTIMIZED = {
    "driver": "COG",
    "compress": "zstd",
    "level": 1,
    "bigtiff": "if_safer",
    "overviews": "ignore_existing",
    "overview_resampling": "nearest",  # there is no mean of two classes
}


class CogWriter:
    """Takes the windows of a raster; made by ``open_cog``."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset

    def write(self, window: Window, values: NDArray[Any]) -> None:
        """Write the pixels of a window.

        Args:
            window: Where; windows that come row by row are compressed once.
            values: (bands, h, w), or (h, w) for one band, of the raster's dtype.

        Raises:
            ValueError: The window lies beyond the grid, or the values don't fit it.
            OSError: The disk is full; becomes a FileError when the block ends.
        """
        values = values[np.newaxis] if values.ndim == 2 else values
        height, width = self._dataset.shape
        expected = self._dataset.count, window.height, window.width
        if values.shape != expected or values.dtype != self._dataset.dtypes[0]:
            raise ValueError(f"expected {expected} {self._dataset.dtypes[0]}, found {values.shape} {values.dtype}")
        bottom, right = window.row + window.height, window.col + window.width
        if min(window.row, window.col) < 0 or bottom > height or right > width:
            raise ValueError(f"{window} lies beyond the grid of {height} × {width} pixels")
        with gdal_settings():
            self._dataset.write(values, window=RasterWindow(window.col, window.row, window.width, window.height))


@contextmanager
def open_cog(
    path: str | Path,
    georeference: Georeference,
    *,
    bands: int = 1,
    dtype: str = "uint8",
    nodata: float = NODATA,
    classes: ClassMap | None = None,
    descriptions: Sequence[str] | None = None,
    scale: float | None = None,
) -> Iterator[CogWriter]:
    """Write a raster on a scene's grid as a Cloud-Optimized GeoTIFF while its windows arrive.

    When the block ends well the file appears under its name: blocks of 512 pixels, overviews, Zstandard, BigTIFF where
    it must be, same grid, CRS and control points as the scene; with ``classes`` the color table, the class map as JSON
    in the tag ``SEGSHRINK_CLASSES`` and, beside the file, ``<name>.aux.xml`` with the class names that GDAL and QGIS
    show. When it fails nothing is left.

    Windows go into a compressed GeoTIFF, which GDAL's COG driver copies at the end. Memory is that of GDAL's cache,
    whatever the raster's size. Windows may be written from another thread than the one that opened the writer, one at a
    time.

    Args:
        path: Where to, ``.tif``.
        georeference: Grid and place of the scene.
        bands: Number of bands.
        dtype: NumPy name of the numbers.
        nodata: Value of pixels without data; pixels that no window covers have it.
        classes: What the numbers of a class map mean.
        descriptions: A name for each band.
        scale: What a stored number must be multiplied with, such as 1 / 254 for probabilities.

    Raises:
        FileError: The file can't be written (permission, disk full).
    """
    if descriptions is not None and len(descriptions) != bands:
        raise ValueError(f"{bands} bands need as many descriptions, found {len(descriptions)}")
    path = Path(path)
    block = _BLOCK
    while block > _SMALLEST_BLOCK and bands * block * georeference.width * np.dtype(dtype).itemsize > _BLOCK_ROW_BYTES:
        block //= 2
    profile = {**_WINDOWED, "blockxsize": block, "blockysize": block, "count": bands, "dtype": dtype, "nodata": nodata}
    settings = partial(gdal_settings, GDAL_PAM_ENABLED=False)
    with replacing(path) as temporary, _as_file_errors(path):
        windowed = temporary.with_name(f"{temporary.name}.windowed")
        with settings(), silent(NotGeoreferencedWarning):
            dataset = rasterio.open(windowed, "w", **profile, **georeference.profile())
        try:
            _describe(dataset, classes, descriptions, scale)
            yield CogWriter(dataset)
        finally:
            with settings():
                dataset.close()
        # Neighbors differ little in measured bands; classes jump.
        copied = {**_CLOUD_OPTIMIZED, "blocksize": block, "predictor": "yes" if classes is None else "no"}
        with settings(), silent(NotGeoreferencedWarning):
            _refuse_truncated(windowed)
            rasterio.shutil.copy(windowed, temporary, **copied)  # threads would take memory, and no less time
            _refuse_truncated(temporary)
        if classes is None:
            auxiliary_path(path).unlink(missing_ok=True)  # described an older file
        else:
            write_auxiliary(path, classes)


def _describe(dataset: Any, classes: ClassMap | None, descriptions: Sequence[str] | None, scale: float | None) -> None:
    if classes is not None:
        colors = {number: (*color, 255) for number, color in enumerate(classes.colors)}
        dataset.write_colormap(1, {**colors, NODATA: (*classes.ignore_color, 0)})
        dataset.update_tags(**{CLASSES_TAG: json.dumps(classes.to_dict(), ensure_ascii=False)})
    for band, text in enumerate(descriptions or (), start=1):
        dataset.set_band_description(band, text)
    if scale is not None:
        dataset.scales = [scale] * dataset.count


@contextmanager
def _as_file_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (RasterioError, CPLE_BaseError) as error:
        raise FileError(f"can't write {path}: {error}; free some space or choose another folder") from error


def _refuse_truncated(path: Path) -> None:
    """Raise OSError unless all blocks of a GeoTIFF lie inside the file: GDAL keeps silent when the disk is full."""
    size = path.stat().st_size
    with rasterio.open(path, driver="GTiff") as dataset:
        for (row, col), _ in dataset.block_windows(1):
            offset, length = (
                dataset.get_tag_item(f"BLOCK_{part}_{col}_{row}", "TIFF", bidx=1) for part in ("OFFSET", "SIZE")
            )
            if offset is None or int(offset) + int(length) > size:
                raise OSError("GDAL wrote only a part of it")


def auxiliary_path(raster: Path) -> Path:
    """Return where GDAL looks for what a raster's format can't hold."""
    return raster.with_name(f"{raster.name}.aux.xml")


def write_auxiliary(raster: Path, classes: ClassMap, georeference: Georeference | None = None) -> None:
    """Write class names, and where its format has no room for it a raster's place, for GDAL and QGIS to read.

    Raises:
        FileError: The file can't be written.
    """
    names = "".join(f"<Category>{escape(name)}</Category>" for name in classes.names)
    with replacing(auxiliary_path(raster)) as temporary:
        temporary.write_text(
            f'<PAMDataset>{"" if georeference is None else _place(georeference)}<PAMRasterBand band="1">'
            f"<CategoryNames>{names}</CategoryNames></PAMRasterBand></PAMDataset>\n",
            encoding="utf-8",
        )


def _place(georeference: Georeference) -> str:
    parts = ""
    if georeference.crs is not None:
        parts += f"<SRS>{escape(georeference.crs)}</SRS>"
    if georeference.transform is not None:
        a, b, c, d, e, f = georeference.transform
        parts += f"<GeoTransform>{c!r}, {a!r}, {b!r}, {f!r}, {d!r}, {e!r}</GeoTransform>"
    elif georeference.gcps:
        points = "".join(
            f'<GCP Id="{number}" Pixel="{point.col!r}" Line="{point.row!r}" X="{point.x!r}" Y="{point.y!r}" '
            f'Z="{point.z!r}"/>'
            for number, point in enumerate(georeference.gcps, start=1)
        )
        parts += f"<GCPList Projection={quoteattr(georeference.gcp_crs or '')}>{points}</GCPList>"
    return parts


def encode_probabilities(values: NDArray[np.floating], valid: NDArray[np.bool_] | None = None) -> NDArray[np.uint8]:
    """Turn probabilities into what ``open_cog(..., scale=1 / PROBABILITY_STEPS)`` stores.

    Args:
        values: (bands, h, w) or (h, w), 0 to 1.
        valid: (h, w); False becomes 255, no data. None: all are valid.

    Returns:
        uint8 of the same shape: 0 to 254 for 0 to 1, rounded.
    """
    scaled = values * np.float32(PROBABILITY_STEPS)
    scaled += np.float32(0.5)
    steps = np.clip(scaled, 0, PROBABILITY_STEPS, out=scaled).astype(np.uint8)
    if valid is not None:
        steps[..., ~valid] = NODATA
    return steps
