"""Pictures that Pillow decodes (8-bit JPEG, PNG, BMP, GIF, WebP), for training and prediction alike."""

from __future__ import annotations

import os
import struct
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from PIL import Image
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import Affine
from rasterio.windows import Window

from segshrink.errors import DataError
from segshrink.imagery.georeference import Georeference
from segshrink.imagery.raster_files import (
    PILLOW_FORMATS,
    Header,
    masks_beside,
    open_pillow,
    open_raster,
    read_header,
    silent,
)

_ORIENTATION_TAG = 0x0112
_TURNED_SIDES = (5, 6, 7, 8)  # orientations that exchange height and width
_COLORS = {
    "L": (ColorInterp.gray,),
    "LA": (ColorInterp.gray, ColorInterp.alpha),
    "RGB": (ColorInterp.red, ColorInterp.green, ColorInterp.blue),
    "RGBA": (ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha),
}


class Picture:
    """A picture with what is asked of an open rasterio dataset here; its pixels are decoded when they are first read.

    It is one of gray or color values, whatever the file stores (palette, CMYK, bits); transparency of any kind is an
    alpha band. It stands upright as its EXIF orientation says. A mask and no-data values beside it count as GDAL reads
    them.

    Args:
        path: The file.
        place: Where it lies on the ground; None where nothing says.

    Raises:
        FileError: The file is damaged or truncated, or holds more pixels than Pillow takes.
        DataError: It has an orientation, and a place on the ground or a mask beside it.
    """

    def __init__(self, path: Path, place: Georeference | None = None) -> None:
        self.path = Path(path)
        with open_pillow(self.path) as image:
            self.orientation = orientation_of(image)
            plain = "L" if image.mode in ("1", "L", "LA", "La") else "RGB"
            self._mode = plain + "A" * image.has_transparency_data
            sides = (image.height, image.width)
        located = place is not None and (place.transform is not None or bool(place.gcps))
        self._masked = bool(masks_beside(self.path))
        refuse_orientation(self.path, self.orientation if located or self._masked else 1)
        self.height, self.width = sides[::-1] if self.orientation in _TURNED_SIDES else sides
        self.shape = self.height, self.width
        self.nodata: float | None = None  # a value that averages leave out
        # The rest is named as rasterio does and says what rasterio says of an 8-bit image without tags.
        self.colorinterp = _COLORS[self._mode]
        self.count = len(self.colorinterp)
        self.dtypes = ("uint8",) * self.count
        self.descriptions: tuple[str | None, ...] = (None,) * self.count
        self.nodatavals: tuple[float | None, ...] = (None,) * self.count
        self.scales, self.offsets = (1.0,) * self.count, (0.0,) * self.count
        self.block_shapes = [(1, self.width)] * self.count
        flags = [MaskFlags.per_dataset, MaskFlags.alpha] if self._mode.endswith("A") else [MaskFlags.all_valid]
        if self._masked:
            flags = [MaskFlags.per_dataset]
            with open_raster(self.path, read_header(self.path)) as dataset:
                if dataset.count == self.count:
                    self.nodatavals = dataset.nodatavals
        self.mask_flag_enums = (flags,) * self.count
        profile: dict[str, Any] = {} if place is None else place.profile()
        self.crs: CRS | None = profile.get("crs")
        self.transform: Affine = profile.get("transform", Affine.identity())
        points: list[GroundControlPoint] = profile.get("gcps", [])
        self.gcps = points, self.crs if points else None

    @property
    def files(self) -> list[str]:
        """The file, and those beside it that say where it lies and what masks it."""
        return [*map(str, dict.fromkeys((self.path, *files_of_place(self.path), *masks_beside(self.path))))]

    def read(
        self,
        indexes: int | list[int] | None = None,
        *,
        out: NDArray[Any] | None = None,
        window: Window | None = None,
        out_shape: tuple[int, ...] | None = None,
        resampling: Resampling = Resampling.nearest,
    ) -> NDArray[Any]:
        """Read bands as rasterio does: (rows, columns) of one band, (bands, rows, columns) of several.

        Raises:
            FileError: The file is damaged or truncated.
        """
        window = window or Window(0, 0, self.width, self.height)
        size = window.height, window.width
        shape = size if out is None else out.shape[-2:]
        if (out_shape or shape)[-2:] != size:
            resampled: NDArray[Any] = self._dataset.read(
                indexes, out=out, window=window, out_shape=out_shape, resampling=resampling
            )
            return resampled
        bands = slice(None) if indexes is None else np.asarray(indexes) - 1
        rows, columns = window.toslices()
        values = self._pixels.transpose(2, 0, 1)[:, rows, columns][bands]
        if out is None:
            return np.array(values)
        out[...] = values
        return out

    def overviews(self, _: int) -> list[int]:
        """Return the factors of smaller copies of a band: a picture has none."""
        return []

    def read_masks(self, _: int, **options: Any) -> NDArray[np.uint8]:
        """Read the mask beside the file, which is that of all bands, as rasterio does: (rows, columns)."""
        masks: NDArray[np.uint8] = self._dataset.read_masks(1, **options)
        return masks

    def close(self) -> None:
        """Let the decoded pixels go."""
        for name in ("_dataset", "_pixels"):
            self.__dict__.pop(name, None)

    def __enter__(self) -> Picture:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @cached_property
    def _pixels(self) -> NDArray[np.uint8]:
        with open_pillow(self.path) as image:
            values = np.array(image.convert(self._mode))
        return upright(values.reshape(*values.shape[:2], self.count), self.orientation)

    @cached_property
    def _dataset(self) -> Any:
        """The pixels as a dataset of GDAL, which resamples."""
        size = {"height": self.height, "width": self.width, "count": self.count, "dtype": "uint8"}
        nodata = self.nodata if self.nodata in range(256) else None
        with silent(NotGeoreferencedWarning):
            dataset = rasterio.open("picture", "w+", driver="MEM", nodata=nodata, **size)
        dataset.write(self._pixels.transpose(2, 0, 1))
        dataset.colorinterp = self.colorinterp  # averages leave out what is transparent
        if self._masked:
            with open_raster(self.path, read_header(self.path)) as original:
                dataset.write_mask(original.dataset_mask())
        return dataset


def files_of_place(path: Path) -> list[Path]:
    """Return the files beside an image that may say where it lies: world files, and GDAL's own."""
    text, ending = str(path), path.suffix[1:]  # texts: to make nine paths takes longer than to look for the files
    worlds = (ending[:1] + ending[-1:] + "w", ending + "w", "wld", "tab")
    stem = text[: len(text) - len(ending)] if ending else f"{text}."
    beside = [f"{stem}{world}" for name in worlds for world in (name.lower(), name.upper())]
    return [Path(file) for file in (f"{text}.aux.xml", *beside) if os.path.isfile(file)]  # noqa: PTH113


def orientation_of(image: Image.Image) -> int:
    """Return the EXIF orientation of an opened picture, 1 (upright) where there is none or a senseless one."""
    try:
        # Unlike PNG's own method this one doesn't decode the pixels.
        orientation = Image.Image.getexif(image).get(_ORIENTATION_TAG, 1)
    except Exception:  # Pillow raises errors of many kinds on damaged EXIF, which viewers pass over as well
        return 1
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1


def upright(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Turn and mirror (H, W) or (H, W, bands) as an EXIF orientation says; a view."""
    if orientation in _TURNED_SIDES:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def refuse_turned(path: Path, header: Header) -> None:
    """Refuse a raster that GDAL reads although its orientation tag says that it lies on its side.

    Raises:
        DataError: It does.
    """
    if header.format == "TIFF":
        refuse_orientation(path, _tiff_orientation(path))
    elif header.format in PILLOW_FORMATS:
        with open_pillow(path) as image:
            orientation = orientation_of(image)
        refuse_orientation(path, orientation)


def refuse_orientation(path: Path, orientation: int) -> None:
    """Raise DataError unless an orientation is 1, upright."""
    if orientation != 1:
        raise DataError(
            f"{path} says with its orientation tag ({orientation}) that viewers turn or mirror it, which can't be done "
            "here; save it upright, without that tag"
        )


def _tiff_orientation(path: Path) -> int:
    """Read the orientation from the first directory of a TIFF or BigTIFF file; 1 where it has none."""
    with path.open("rb") as stream:
        start = stream.read(16)
        order = "<" if start[:2] == b"II" else ">"
        big = start[2:4] in (b"+\0", b"\0+")
        offset_format, count_format, entry_size = ("Q", "Q", 20) if big else ("I", "H", 12)
        try:
            stream.seek(struct.unpack_from(order + offset_format, start, 8 if big else 4)[0])
            (count,) = struct.unpack(order + count_format, stream.read(struct.calcsize(order + count_format)))
            for _ in range(min(count, 4096)):
                entry = stream.read(entry_size)
                tag, _, _, value = struct.unpack_from(f"{order}HH{offset_format}H", entry)
                if tag == _ORIENTATION_TAG:
                    return int(value) if 1 <= value <= 8 else 1
        except (struct.error, OSError, OverflowError):
            pass  # damaged, which whoever reads the pixels tells
    return 1
