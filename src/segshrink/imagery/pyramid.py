"""A raster and its overviews, compressed into tiles while windows of it arrive."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from rasterio.io import MemoryFile
from rasterio.transform import Affine

from segshrink.imagery.tiff_layout import TILE_BYTE_COUNTS, TILE_OFFSETS, first_directory, framed

# GDAL warns about rasters that lie nowhere; strips lie anywhere.
_SOMEWHERE = Affine(1, 0, 1, 0, -1, 1)


class Pyramid:
    """Compressed tiles of a raster and of its overviews, each half as large, down to one that fits into a tile.

    Holds the strips (rows of tiles) that the arriving windows touch, one for each overview, and the tiles' sizes;
    everything else is in files. Overviews take every second pixel of every second row, as GDAL's "nearest" does: cheap,
    and right for class maps, of which no means can be taken.

    Args:
        folder: Where the files of compressed tiles go.
        shape: Bands, rows and columns.
        profile: What GDAL stores tiles with: driver, dtype, nodata, blockxsize, blockysize, compression.
        level: Number of the overview; 0 is the full raster.
    """

    def __init__(self, folder: Path, shape: tuple[int, int, int], profile: dict[str, Any], *, level: int = 0) -> None:
        self.height, self.width = shape[1:]
        self.tile_sizes: list[int] = []
        self._bands = shape[0]
        self._profile = profile
        self._block: int = profile["blockysize"]
        self._strips: dict[int, NDArray[Any]] = {}
        self._finished = 0
        self._path = folder / f"level{level}"
        self._file: BinaryIO = self._path.open("wb")
        self.next: Pyramid | None = None
        if max(self.height, self.width) > self._block:
            half = shape[0], (self.height + 1) // 2, (self.width + 1) // 2
            self.next = Pyramid(folder, half, profile, level=level + 1)

    @property
    def levels(self) -> list[Pyramid]:
        """This raster and its overviews, large to small."""
        return [self, *(self.next.levels if self.next else ())]

    def put(self, values: NDArray[Any], row: int, col: int) -> None:
        """Take (bands, h, w) pixels whose upper left corner is at ``row``, ``col`` of strips not finished yet."""
        height, width = values.shape[1:]
        for strip in range(row // self._block, -(-(row + height) // self._block)):
            if strip not in self._strips:
                self._strips[strip] = self._empty(strip)
            top = strip * self._block
            first, last = max(row, top), min(row + height, top + self._block)
            part = values[:, first - row : last - row]
            self._strips[strip][:, first - top : last - top, col : col + width] = part

    def finish(self, rows: int) -> None:
        """Compress the strips that lie wholly in the first ``rows`` rows; what no window brought is no data."""
        while (end := self._end(self._finished)) <= rows and self._finished * self._block < self.height:
            strip = self._strips.pop(self._finished, None)
            strip = self._empty(self._finished) if strip is None else strip
            self._compress(strip)
            if self.next is not None:
                start = self._finished * self._block // 2
                self.next.put(strip[:, ::2, ::2], start, 0)
                self.next.finish((end + 1) // 2)
            self._finished += 1

    def copy_tiles(self, target: BinaryIO) -> None:
        """Append the compressed tiles to a file."""
        self._file.close()
        with self._path.open("rb") as source:
            shutil.copyfileobj(source, target, 1 << 20)

    def close(self) -> None:
        """Close the files, which can't be written any more; the folder stays."""
        for level in self.levels:
            with contextlib.suppress(OSError):
                level._file.close()

    def _end(self, strip: int) -> int:
        return min((strip + 1) * self._block, self.height)

    def _empty(self, strip: int) -> NDArray[Any]:
        shape = self._bands, self._end(strip) - strip * self._block, self.width
        return np.full(shape, self._profile["nodata"], dtype=self._profile["dtype"])

    def _compress(self, strip: NDArray[Any]) -> None:
        with MemoryFile() as memory:
            size = dict(zip(("count", "height", "width"), strip.shape, strict=True))
            with memory.open(**self._profile, **size, transform=_SOMEWHERE) as dataset:
                dataset.write(strip)
            file = memory.getbuffer()
            directory = first_directory(file)
            for start, length in zip(
                directory[TILE_OFFSETS].integers, directory[TILE_BYTE_COUNTS].integers, strict=True
            ):
                self._file.write(framed(file[start : start + length]))
                self.tile_sizes.append(length)
