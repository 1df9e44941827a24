"""Writing scenes as Cloud-Optimised GeoTIFFs, window by window, whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self
from xml.sax.saxutils import escape, quoteattr

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import MemoryFile

from segshrink.classes import ClassMap
from segshrink.errors import FileError
from segshrink.files import replacing
from segshrink.imagery.georeference import Georeference
from segshrink.imagery.opening import silent
from segshrink.imagery.pyramid import Pyramid
from segshrink.imagery.tiff_layout import first_directory, head, overview_of
from segshrink.tiling import Window

# Dataset tag that holds the class map as JSON.
CLASSES_TAG = "SEGSHRINK_CLASSES"
NODATA = 255
# Probabilities are stored as 0 .. 254, so that 255 is left for no data.
PROBABILITY_STEPS = 254
_BLOCK = 512
_SMALLEST_BLOCK = 128
# Bytes of a row of tiles above which tiles become smaller.
_STRIP_LIMIT = 32 << 20
_LAYOUT = {
    "driver": "GTiff",
    "tiled": True,
    "interleave": "pixel",
    "photometric": "minisblack",  # three probabilities are no colours
    "bigtiff": "yes",  # what tiff_layout reads
    "endianness": "little",
}
_COMPRESSIONS = {"zstd": {"compress": "zstd", "zstd_level": 1}, "deflate": {"compress": "deflate", "zlevel": 1}}


class RasterWriter:
    """Write a raster on a scene's grid as a Cloud-Optimised GeoTIFF while its windows arrive.

    Use it as a context manager. When the block ends well the file appears under its name: tiles of 512 pixels,
    overviews, Zstandard or deflate, BigTIFF where it must be, same grid, CRS and control points as the scene; with
    ``classes`` the colour table, the class map as JSON in the tag ``SEGSHRINK_CLASSES`` and, beside the file,
    ``<name>.aux.xml`` with the class names that GDAL and QGIS show. When it fails nothing is left.

    Each tile is compressed once, when its row of tiles is complete; at the end the compressed tiles are put in order.
    GDAL's own driver must read a whole raster first: three times the work, nearly all of it after the last window.
    Memory: the rows of tiles that one window touches, whatever the scene's height. Windows may be written from another
    thread than the one that opened the writer, one at a time.

    Args:
        path: Where to, ``.tif``.
        georeference: Grid and place of the scene.
        bands: Number of bands.
        dtype: NumPy name of the numbers.
        nodata: Value of pixels without data; pixels that no window covers have it.
        classes: What the numbers of a class map mean.
        descriptions: A name for each band.
        scale: What a stored number must be multiplied with, such as 1 / 254 for probabilities.
        compression: "zstd" takes half the time of "deflate" and 4 % less space; "deflate" is for programs without it.

    Raises:
        FileError: The file can't be written (permission, disk full).
    """

    def __init__(
        self,
        path: str | Path,
        georeference: Georeference,
        *,
        bands: int = 1,
        dtype: str = "uint8",
        nodata: float = NODATA,
        classes: ClassMap | None = None,
        descriptions: Sequence[str] | None = None,
        scale: float | None = None,
        compression: Literal["zstd", "deflate"] = "zstd",
    ) -> None:
        if descriptions is not None and len(descriptions) != bands:
            raise ValueError(f"{bands} bands need as many descriptions, found {len(descriptions)}")
        self._path = Path(path)
        self._georeference = georeference
        self._shape = bands, georeference.height, georeference.width
        self._classes = classes
        self._descriptions = descriptions
        self._scale = scale
        self._profile = {
            **_LAYOUT,
            **_COMPRESSIONS[compression],
            **_tiling(self._shape, np.dtype(dtype)),
            "nodata": nodata,
            # Neighbours differ little in measured bands; classes jump.
            "predictor": 2 if classes is None and np.issubdtype(dtype, np.integer) else 1,
        }
        self._row = 0
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._stack.__enter__()
        try:
            self._temporary = self._stack.enter_context(replacing(self._path))
            try:
                self._pyramid = Pyramid(self._temporary.parent, self._shape, self._profile)
            except OSError as error:
                raise FileError(f"can't write {self._path}: {error.strerror}; free some space") from error
            self._stack.callback(self._pyramid.close)
        except BaseException:
            self._stack.close()
            raise
        return self

    def write(self, window: Window, values: NDArray[Any]) -> None:
        """Write the pixels of a window.

        Args:
            window: Where; windows come in row order, that is none starts above the one before.
            values: (bands, h, w), or (h, w) for one band, of the writer's dtype.

        Raises:
            ValueError: The window lies beyond the grid or above the one before, or the values don't fit it.
            OSError: The disk is full; becomes a FileError when the block ends.
        """
        values = values[np.newaxis] if values.ndim == 2 else values
        expected = self._shape[0], window.height, window.width
        if values.shape != expected or values.dtype != self._profile["dtype"]:
            raise ValueError(f"expected {expected} {self._profile['dtype']}, found {values.shape} {values.dtype}")
        bottom, right = window.row + window.height, window.col + window.width
        if min(window.row, window.col) < 0 or bottom > self._shape[1] or right > self._shape[2]:
            raise ValueError(f"{window} lies beyond the grid of {self._shape[1]} × {self._shape[2]} pixels")
        if window.row < self._row:
            raise ValueError(f"{window} starts above row {self._row}; give windows in row order")
        self._row = window.row
        self._pyramid.finish(window.row)
        self._pyramid.put(values, window.row, window.col)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._stack.__exit__(kind, error, trace)
            return
        with self._stack:
            self._pyramid.finish(self._shape[1])
            self._assemble()
            self._name_classes()

    def _assemble(self) -> None:
        levels = self._pyramid.levels
        main = first_directory(self._template())
        overviews = [overview_of(main, level.height, level.width) for level in levels[1:]]
        with self._temporary.open("wb") as file:
            file.write(head([main, *overviews], [level.tile_sizes for level in levels]))
            for level in reversed(levels):
                level.copy_tiles(file)

    def _template(self) -> bytes:
        """Let GDAL write a file of the same kind without any tiles: its tags are ours."""
        profile = {**self._profile, **self._georeference.profile(), "count": self._shape[0], "sparse_ok": True}
        try:
            with rasterio.Env(GDAL_PAM_ENABLED=False), silent(NotGeoreferencedWarning), MemoryFile() as memory:
                with memory.open(**profile) as dataset:
                    self._describe(dataset)
                return bytes(memory.getbuffer())
        except RasterioError as error:
            raise FileError(
                f"can't write {self._path}: GeoTIFF can't hold the scene's georeference ({error})"
            ) from error

    def _describe(self, dataset: Any) -> None:
        if self._classes is not None:
            colors = {number: (*color, 255) for number, color in enumerate(self._classes.colors)}
            dataset.write_colormap(1, {**colors, NODATA: (*self._classes.ignore_color, 0)})
            dataset.update_tags(**{CLASSES_TAG: json.dumps(self._classes.to_dict(), ensure_ascii=False)})
        for band, text in enumerate(self._descriptions or (), start=1):
            dataset.set_band_description(band, text)
        if self._scale is not None:
            dataset.scales = [self._scale] * self._shape[0]

    def _name_classes(self) -> None:
        """Write what GDAL keeps beside a GeoTIFF: the class names; or remove what described an older file."""
        if self._classes is None:
            auxiliary_path(self._path).unlink(missing_ok=True)
        else:
            write_auxiliary(self._path, self._classes)


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
    """Turn probabilities into what ``RasterWriter(..., scale=1 / PROBABILITY_STEPS)`` stores.

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


def _tiling(shape: tuple[int, int, int], dtype: np.dtype[Any]) -> dict[str, Any]:
    bands, _, width = shape
    block = _BLOCK
    while block > _SMALLEST_BLOCK and bands * block * width * dtype.itemsize > _STRIP_LIMIT:
        block //= 2
    return {"dtype": dtype.name, "blockxsize": block, "blockysize": block}
