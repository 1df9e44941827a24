"""Scenes: images of any size as a user names them, read window by window with what is valid in them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

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
from segshrink.file_search import WILDCARD, find_files, is_file
from segshrink.files import expanded
from segshrink.imagery.bands import choose_bands
from segshrink.imagery.georeference import Georeference
from segshrink.imagery.pictures import Picture, refuse_orientation, refuse_turned
from segshrink.imagery.raster_files import Source, gdal_settings, is_remote, open_source, scene_header
from segshrink.imagery.reading import BandReader
from segshrink.imagery.scaling import PixelMap, Scaling, ScalingChange, rescaling, scaling_of
from segshrink.imagery.validity import fill_nodata
from segshrink.tiling import Window

# Files of a folder that are taken for scenes.
SCENE_SUFFIXES = frozenset(
    (".tif", ".tiff", ".vrt", ".jp2", ".j2k", ".jpg", ".jpeg", ".png", ".img", ".bmp", ".webp", ".gif", ".dat", ".bil")
)
# What stands beside scenes and describes them.
_SIDECARS = (
    ".aux.xml", ".ovr", ".msk", ".tfw", ".jgw", ".pgw", ".wld", ".prj", ".hdr", ".txt", ".json", ".xml", ".qml",
)  # fmt: skip
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
        self, source: Source, reader: BandReader, *, georeference: Georeference, change: PixelMap, dtype: str
    ) -> None:
        self.source, self.name = source, scene_name(source)
        self.georeference = georeference
        self.height, self.width = georeference.height, georeference.width
        self.bands, self.band_names, self.dtype = len(reader.bands), reader.bands.names, dtype
        self._reader, self._change = reader, change
        self._resampling = Resampling.nearest
        if (self.height, self.width) != reader.dataset.shape and reader.bands.palette is None:
            self._resampling = Resampling.average if self.height < reader.dataset.height else Resampling.bilinear

    def __enter__(self) -> Scene:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; nothing can be read afterwards."""
        self._reader.dataset.close()

    @property
    def files(self) -> list[str]:
        """All files that the scene is read from: itself, a VRT's sources, masks, world files."""
        return list(self._reader.dataset.files)

    @property
    def notes(self) -> list[str]:
        """What the file, or GDAL's ``.aux.xml`` beside it, says of its place, bands, no-data values and numbers."""
        dataset = self._reader.dataset
        notes = (self.georeference, self.band_names, dataset.nodatavals, dataset.scales, dataset.offsets)
        return list(map(repr, notes))

    def read(self, window: Window) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        """Read a window.

        Pixels without a value (transparent, masked, no-data, NaN, infinite) are filled as ``fill_nodata`` says, from
        the window's valid ones; where there are none, with zeros. So they don't stand out for their neighbors.

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
            for file, read in zip(self._reader.dataset.shape, (self.height, self.width), strict=True)
        )
        place = RasterWindow(window.col * right, window.row * down, window.width * right, window.height * down)
        try:
            with gdal_settings():
                size = window.height, window.width
                pixels, valid = self._reader.read(place, shape=size, resampling=self._resampling)
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
    source: Source,
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
        bands: Bands by number (from 1) or by name: the band's description or its color ("red", "nir"), in any case.
            None is all but transparency; all with it where ``count`` says so.
        scale: (low, high) raw values that become 0 and the largest value of ``dtype`` (1 for float32), linearly; what
            is beyond is clipped, except to float32.
        resolution: Meters a pixel to read at, where that differs from the scene's own by more than 5 %. Shrinking
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
        georeference = Georeference.of(dataset)
        if resolution is not None:
            georeference = resampled(georeference, resolution, name=str(source))
        if nodata is not None and (georeference.height, georeference.width) != dataset.shape:
            dataset = _declaring(dataset, nodata)
        reader = BandReader(dataset, chosen, name=str(source), nodata=nodata)
        if dtype not in (None, reader.dtype) and scale is None:
            raise DataError(
                f"{source} holds {reader.dtype} numbers but the model takes {dtype}; say which of its values are dark "
                "and bright with --scale LOW:HIGH"
            )
        change: PixelMap = ScalingChange(
            scaling_of(dataset, chosen), None if scale else scaling, dtype=reader.dtype, name=str(source)
        )
        if scale is not None:
            change = rescaling(reader.dtype, dtype or reader.dtype, scale)
        return Scene(source, reader, georeference=georeference, change=change, dtype=dtype or reader.dtype)
    except BaseException:  # nobody else has it to close
        dataset.close()
        raise


def _open(source: Source) -> Any:
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
    """Return the grid of the same ground in pixels of ``resolution`` meters; the same grid where that is close.

    Raises:
        ConfigError: ``resolution`` isn't above 0, or so fine that the grid would have more than a hundred times as many
            pixels.
        DataError: The grid's own resolution isn't known.
    """
    if not (resolution > 0 and math.isfinite(resolution)):
        raise UsageError(f"--resolution is meters a pixel and must be above 0, found {resolution}")
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


def expand_sources(sources: Sequence[Source], *, leave_out: Path | None = None) -> dict[Source, Path]:
    """Turn what a user names into single scenes, each once, in the order named, and the sub-folder each lies in.

    A folder stands for the images directly in it, or where it holds none for those in its sub-folders, a wildcard
    (``*``, ``?``, ``[...]``, ``**`` for any folders) for what it matches; an existing file is taken as it is, whatever
    its name. Hidden files and those that describe others (``.aux.xml``, ``.ovr``, ``.msk``, world files) are left out
    of folders and wildcards. URLs stay as they are.

    Args:
        sources: Files, folders, wildcards, URLs.
        leave_out: A folder that no sub-folder may be, such as that of the results.

    Returns:
        Scene → its folder relative to the folder named; "." for all others.

    Raises:
        FileError: Something named doesn't exist, or a folder or wildcard holds no image.
    """
    folders: dict[Source, Path] = {}
    for source in sources:
        for scene, folder in _expanded(source, leave_out).items():
            folders.setdefault(scene, folder)
    if not folders:
        raise FileError("no scene was named; give an image file, a folder, a wildcard in quotes or a URL")
    return folders


def images_below(folder: Path, *, leave_out: Path | None) -> list[Path]:
    """List the images in a folder and its sub-folders, sorted, but those in the folder ``leave_out``."""
    below = (folder / name for name in find_files("**/*", folder))
    return [path for path in below if _is_image(path) and leave_out not in path.resolve().parents]


def scene_name(source: Source) -> str:
    """Return the file name of a source without its suffix; of a URL without query."""
    if isinstance(source, str) and is_remote(source):
        return PurePosixPath(unquote(urlsplit(source).path)).stem or "scene"
    return Path(source).stem


def _expanded(source: Source, leave_out: Path | None) -> dict[Source, Path]:
    if is_remote(source):
        return {str(source): Path()}
    path = expanded(source)
    if is_file(path):
        return {path: Path()}
    if path.is_dir():
        return {image: image.parent.relative_to(path) for image in _in_folder(path, leave_out)}
    if not WILDCARD.search(str(path)):
        raise FileError(f"{path} does not exist; give an image file, a folder, a wildcard in quotes or a URL")
    images = [image for image in map(Path, find_files(path.as_posix(), Path())) if _is_scene(image)]
    if not images:
        raise FileError(f"no image matches {path}; check the wildcard")
    return dict.fromkeys(images, Path())


def _in_folder(folder: Path, leave_out: Path | None) -> list[Path]:
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise FileError(f"can't list {folder}: {error.strerror or error}; check its permissions") from error
    images = [entry for entry in entries if _is_image(entry)]
    if not images:
        images = images_below(folder, leave_out=leave_out)
    if not images:
        raise FileError(
            f"the folder {folder} holds no image ({', '.join(sorted(SCENE_SUFFIXES))}), nor do its sub-folders; check "
            "the path"
        )
    return images


def _is_scene(path: Path) -> bool:
    name = path.name.lower()
    return is_file(path) and not name.startswith(".") and not name.endswith(_SIDECARS)


def _is_image(path: Path) -> bool:
    return _is_scene(path) and path.suffix.lower() in SCENE_SUFFIXES
