"""Reading whole images as (H, W, bands) arrays of raw pixel values."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.errors import NotGeoreferencedWarning
from rasterio.windows import Window

from segshrink.errors import FileError
from segshrink.imagery.bands import Bands, Remedy, choose_bands, transparency
from segshrink.imagery.georeference import Georeference, read_georeference
from segshrink.imagery.pictures import Picture, files_of_place, refuse_turned
from segshrink.imagery.raster_files import open_raster, read_header, silent
from segshrink.imagery.scaling import Scaling, ScalingChange, scaling_of
from segshrink.imagery.validity import Validity, fill_nodata
from segshrink.tiling import grid

# Numbers that we work in; the rest is converted without loss of what images hold.
_DTYPES = {dtype: dtype for dtype in ("uint8", "uint16", "int16", "float32")}
_DTYPES |= {"int8": "int16"} | dict.fromkeys(("int32", "uint32", "float16", "float64"), "float32")
# Side of the squares that are filled one after another: filling a large scene at once takes much memory.
_SQUARE = 1024
# Pixels that are resampled at once, and how far beyond a window they count in its pixels.
_MOST_RESAMPLED, _REACH = 1 << 24, 2


@dataclass(frozen=True)
class ReadOptions:
    """What of an image file is read, and how.

    Attributes:
        bands: Bands by number (from 1) or name; or how many there are, and then a transparency band is one of them
            where only that makes so many; None is all but transparency.
        nodata: A value that stands for no value, besides those that the file declares.
        names: The bands' names in the order of reading; files that have them in another order are put right.
        scaling: Scale and offset tags of the numbers that are read; files that have others are put right.
    """

    bands: int | tuple[int | str, ...] | None = None
    nodata: float | None = None
    names: tuple[str, ...] | None = None
    scaling: Scaling | None = None

    def choose(self, dataset: Any, name: str, *, remedy: Remedy = "bands:") -> Bands:
        """Choose the bands of an open dataset; errors as in ``choose_bands``."""
        if isinstance(self.bands, tuple):
            return choose_bands(dataset, self.bands, count=None, name=name)
        # Another number of bands is told where the whole set is known.
        count = self.bands if self.bands == dataset.count else None
        return choose_bands(dataset, None, count=count, name=name, model=self.names, remedy=remedy)


@dataclass(frozen=True)
class ImageInfo:
    """What a file's header says about what ``read_image`` would give.

    Attributes:
        height: Pixels, of the upright image.
        width: Pixels.
        bands: Bands that are read.
        dtype: Data type of the pixel values.
        band_names: What the bands are called, as a model records it; None where nothing says.
        scaling: Their scale and offset tags; None where there are none.
        transparency: Number of a transparency band that is taken as a mask; None without one.
        orientation: EXIF orientation that was undone; 1 is none.
        place: Grid and place on the ground.
    """

    height: int
    width: int
    bands: int
    dtype: str
    band_names: tuple[str, ...] | None = None
    scaling: Scaling | None = None
    transparency: int | None = None
    orientation: int = 1
    place: Georeference = field(default=Georeference(0, 0), compare=False)


@contextmanager
def open_image(path: Path) -> Iterator[Any]:
    """Open an image as a rasterio dataset, or as a ``Picture``, which is asked alike.

    Raises:
        FileError: The file is missing, unreadable, no image, damaged or truncated.
        DataError: It is a raster that viewers turn or mirror.
    """
    header = read_header(path)
    if header.by_pillow:
        with Picture(path, read_georeference(path) if files_of_place(path) else None) as picture:
            yield picture
        return
    refuse_turned(path, header)
    with open_raster(path, header) as dataset:
        yield dataset


class BandReader:
    """Reads some bands of an open dataset.

    Attributes:
        dataset: A rasterio dataset or a ``Picture``.
        bands: Which bands.
        dtype: The numbers that come out: "uint8", "uint16", "int16" or "float32".

    Args:
        dataset: As above.
        bands: As above.
        name: What errors call the file.
        nodata: A value that stands for no value, besides those that the file declares.

    Raises:
        FileError: Numbers of such a type aren't read.
    """

    def __init__(self, dataset: Any, bands: Bands, *, name: str, nodata: float | None = None) -> None:
        self.dataset, self.bands = dataset, bands
        dtypes = dataset.dtypes
        dtype = dtypes[0] if "complex" in "".join(dtypes) else str(np.result_type(*dtypes))
        if dtype not in _DTYPES:
            raise FileError(f"{name} holds {dtype} numbers; convert it to uint8, uint16, int16 or float32")
        self.dtype = _DTYPES[dtype]
        self._validity = Validity(dataset, bands, self.dtype, declared=nodata)

    def read(
        self,
        window: Window | None = None,
        *,
        shape: tuple[int, int] | None = None,
        resampling: Resampling = Resampling.nearest,
    ) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        """Read a window (None: all) as ``shape`` pixels: (h, w, bands), and the valid ones, (h, w), None if all are."""
        window = window or Window(0, 0, self.dataset.width, self.dataset.height)
        shape = shape or (window.height, window.width)
        if resampling != Resampling.nearest and self._validity.across_bands:
            pixels, inside = self._resampled(window, shape, resampling)
            return pixels, None if inside.all() else inside
        pixels = self._raw(window, shape, resampling)
        valid = self._validity.of_window(pixels, window)
        return self._through_palette(pixels), valid

    def read_all(self) -> NDArray[Any]:
        """Read all pixels (H, W, bands), whether they are valid or not."""
        height, width = self.dataset.height, self.dataset.width
        return self._through_palette(self._raw(Window(0, 0, width, height), (height, width), Resampling.nearest))

    def _resampled(
        self, window: Window, shape: tuple[int, int], resampling: Resampling
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Resample valid pixels, all bands of each, and tell where there are any; a large window part by part."""
        scale = min(window.height / shape[0], window.width / shape[1])
        step = max((overview for overview in self.dataset.overviews(1) if overview < scale + 0.1), default=1)
        if window.height * window.width > _MOST_RESAMPLED * step**2 and shape[0] > 1:
            half = shape[0] // 2
            cut = window.height * half / shape[0]
            upper = Window(window.col_off, window.row_off, window.width, cut)
            lower = Window(window.col_off, window.row_off + cut, window.width, window.height - cut)
            parts = [
                self._resampled(part, (rows, shape[1]), resampling)
                for part, rows in ((upper, half), (lower, shape[0] - half))
            ]
            return np.concatenate([pixels for pixels, _ in parts]), np.concatenate([inside for _, inside in parts])
        height, width = (math.ceil(size / step) for size in self.dataset.shape)
        down, across = height / self.dataset.height, width / self.dataset.width
        place = Window(window.col_off * across, window.row_off * down, window.width * across, window.height * down)
        (top, bottom), (left, right) = (
            (max(math.floor(start) - _REACH, 0), min(math.ceil(stop) + _REACH, size))
            for (start, stop), size in zip(place.toranges(), (height, width), strict=True)
        )
        source = Window(left / across, top / down, (right - left) / across, (bottom - top) / down)
        pixels = self._raw(source, (bottom - top, right - left), Resampling.nearest)
        valid = self._validity.of_window(pixels, source)
        if valid is None:
            valid = np.ones(pixels.shape[:2], dtype=np.bool_)
        place = Window(place.col_off - left, place.row_off - top, place.width, place.height)
        return _resampled(pixels, valid, place, shape=shape, resampling=resampling)

    def _raw(self, window: Window, shape: tuple[int, int], resampling: Resampling) -> NDArray[Any]:
        numbers = list(self.bands.numbers)
        pixels = np.empty((*shape, len(numbers)), dtype=self.dtype)
        # GDAL writes into the interleaved array directly: no second copy of a large scene.
        self.dataset.read(numbers, out=pixels.transpose(2, 0, 1), window=window, resampling=resampling)
        return pixels

    def _through_palette(self, pixels: NDArray[Any]) -> NDArray[Any]:
        palette = self.bands.palette
        return pixels if palette is None else np.take(palette, pixels[:, :, 0], axis=0)


def _resampled(
    pixels: NDArray[Any],
    valid: NDArray[np.bool_],
    place: Window,
    *,
    shape: tuple[int, int],
    resampling: Resampling,
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Resample a part of (h, w, bands) from what is valid in it, and tell where anything is."""
    height, width, bands = pixels.shape
    size = {"height": height, "width": width, "count": bands + 1, "dtype": pixels.dtype}
    with silent(NotGeoreferencedWarning):
        dataset = rasterio.open("pixels", "w+", driver="MEM", **size)
    with dataset:
        dataset.write(pixels.transpose(2, 0, 1), range(1, bands + 1))
        dataset.write(valid.astype(pixels.dtype), bands + 1)  # 0 stays only where none is valid
        dataset.write_mask(valid)
        values = dataset.read(window=place, out_shape=(bands + 1, *shape), resampling=resampling)
    return np.ascontiguousarray(values[:-1].transpose(1, 2, 0)), values[-1] > 0


def probe(path: Path, options: ReadOptions | None = None) -> ImageInfo:
    """Read the header of an image only.

    Raises:
        FileError: The file is missing, unreadable, no image, or its header is damaged.
        DataError: It has no such bands.
    """
    path = Path(path)
    with open_image(path) as dataset:
        bands = (options or ReadOptions()).choose(dataset, str(path))
        alpha = transparency(dataset)
        return ImageInfo(
            dataset.height,
            dataset.width,
            len(bands),
            BandReader(dataset, bands, name=str(path)).dtype,
            band_names=bands.recorded_names,
            scaling=scaling_of(dataset, bands),
            transparency=None if alpha in bands.numbers else alpha,
            orientation=getattr(dataset, "orientation", 1),
            place=Georeference.of(dataset),
        )


def read_image(path: Path, options: ReadOptions | None = None) -> NDArray[Any]:
    """Read an image at full resolution, upright.

    8-bit JPEG, PNG, BMP, GIF and WebP through Pillow; TIFF, JP2, VRT and 16-bit PNG through rasterio. Palette images
    are read through their palette, CMYK as RGB; a transparency band is left out unless ``options`` ask for it.

    Returns:
        (H, W, bands) uint8, uint16, int16 or float32 raw pixel values; no-data values are left as they are.

    Raises:
        FileError: The file is missing, unreadable, no image, damaged or truncated.
        DataError: It has no such bands, or a raster's orientation tag says that viewers turn it.
    """
    path = Path(path)
    with open_image(path) as dataset:
        bands = (options or ReadOptions()).choose(dataset, str(path))
        return BandReader(dataset, bands, name=str(path)).read_all()


def read_valid_image(path: Path, options: ReadOptions | None = None) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    """Read an image, and which pixels have a value.

    Pixels without a value (transparent, masked, no-data, NaN, infinite) are filled as in scenes.

    Returns:
        Raw pixel values (H, W, bands), finite, as ``read_image`` gives them; (H, W), None when all are valid.

    Raises:
        FileError, DataError: As ``read_image``.
    """
    path, options = Path(path), options or ReadOptions()
    with open_image(path) as dataset:
        bands = options.choose(dataset, str(path))
        reader = BandReader(dataset, bands, name=str(path), nodata=options.nodata)
        change = ScalingChange(scaling_of(dataset, bands), options.scaling, dtype=reader.dtype, name=str(path))
        pixels, valid = reader.read()
    if valid is not None:
        for window in grid(*valid.shape, tile=_SQUARE, overlap=0):
            if not valid[window.slices].all():
                fill_nodata(pixels[window.slices], valid[window.slices])
    return change(pixels), valid


def transparency_shares(path: Path, number: int) -> tuple[float, float]:
    """Return the shares of a transparency band's pixels that are 0, and that are neither 0 nor the largest value."""
    with open_image(path) as dataset:
        values = dataset.read(number)
    clear, opaque = np.mean(values == 0), np.mean(values == values.max())
    return float(clear), float(1 - clear - opaque) if values.max() else 0.0
