"""Images decoded once into memory-mapped arrays, so that a crop costs what it reads."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segshrink.classes import IGNORE_INDEX, ClassMap
from segshrink.data.sources import Sample
from segshrink.errors import DataError, FileError
from segshrink.files import content_key, replacing
from segshrink.imagery import VectorLabels, read_mask, read_valid_image

# Part of every key: raise it when decoding changes, and old arrays are no longer found.
FORMAT_VERSION = 2

# A file that was written this short a time ago may change again without a new time stamp; its key isn't remembered.
_SETTLED_SECONDS = 2.0

# Arrays held open at once; each holds a file descriptor, of which a process has 1024 by default.
_OPEN_ARRAYS = 256

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Scene:
    """A whole image with its target.

    Attributes:
        name: The sample's name.
        image: (H, W, bands) raw pixel values.
        target: (H, W) uint8 class indices, 255 = ignore.
    """

    name: str
    image: NDArray[Any]
    target: NDArray[np.uint8]


class SceneStore:
    """Decoded images and masks of some samples, memory-mapped and read-only.

    Arrays lie in the cache folder under the hash of their file's content (and, for masks, of the class map), so they
    are shared between data sets and runs, a changed file is decoded anew, and two processes that build at once write
    the same content. The store can be pickled and used after a fork.

    Args:
        samples: What to hold, in this order.
        classes: What masks mean.
        folder: Cache folder; None is ``$SEGSHRINK_CACHE`` or the user's cache folder.
        progress: Called with (samples done, all samples) after each sample.

    Raises:
        FileError: A file is missing, damaged or unreadable; the cache folder can't be written.
        DataError: Image and mask differ in size; images differ in bands or data type; a mask holds an undeclared
            colour or value.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        classes: ClassMap,
        *,
        folder: Path | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.samples = tuple(samples)
        self.classes = classes
        self.folder = cache_folder() if folder is None else Path(folder)
        self._open: OrderedDict[Path, NDArray[Any]] = OrderedDict()
        entries: list[_Entry] = []
        decoded: dict[tuple[Path, Path | None], _Entry] = {}
        for number, sample in enumerate(self.samples):
            files = (sample.image, sample.mask)
            if files not in decoded:
                decoded[files] = self._entry(sample)
            entries.append(decoded[files])
            _refuse_different(self.samples[0], entries[0], sample, entries[-1])
            if progress is not None:
                progress(number + 1, len(self.samples))
        self._entries = tuple(entries)

    def __len__(self) -> int:
        return len(self.samples)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": OrderedDict()}

    @property
    def bands(self) -> int:
        """Bands of every image; 0 for an empty store."""
        return self._entries[0].bands if self._entries else 0

    @property
    def dtype(self) -> np.dtype[Any]:
        """Data type of every image; uint8 for an empty store."""
        return np.dtype(self._entries[0].dtype if self._entries else np.uint8)

    def shape(self, index: int) -> tuple[int, int]:
        """Return (height, width) of a sample in pixels."""
        window = self.samples[index].window
        return (window.height, window.width) if window else (self._entries[index].height, self._entries[index].width)

    def image(self, index: int) -> NDArray[Any]:
        """Return a sample's raw pixel values, (H, W, bands), memory-mapped and read-only."""
        array = self._mapped(self._entries[index].image)
        window = self.samples[index].window
        return array[window.slices] if window else array

    def mask(self, index: int) -> NDArray[np.uint8]:
        """Return a sample's class indices, (H, W) uint8, memory-mapped and read-only; all 255 without a mask."""
        path = self._entries[index].mask
        if path is None:
            return np.broadcast_to(np.uint8(IGNORE_INDEX), self.shape(index))
        array = self._mapped(path)
        window = self.samples[index].window
        return array[window.slices] if window else array

    def valid(self, index: int) -> NDArray[np.bool_] | None:
        """Return which of a sample's pixels have a value, (H, W), memory-mapped and read-only; None when all have.

        The others are filled in ``image`` and ignored in ``mask``.
        """
        path = self._entries[index].valid
        if path is None:
            return None
        array = self._mapped(path)
        window = self.samples[index].window
        return array[window.slices] if window else array

    def image_key(self, index: int) -> str:
        """Return the SHA-256 of a sample's image file, as it was when the store was built."""
        return self._entries[index].image.stem

    def _entry(self, sample: Sample) -> _Entry:
        """Decode a sample's files unless the cache has them, and check that they fit together."""
        key = remembered_key(sample.image, self.folder)
        image_path, valid_path = self._home("images", key), self._home("valid", key)
        image = _ensured(image_path, lambda: _decoded_image(sample.image, valid_path))
        mask_path = None
        if sample.mask is not None:
            # A mask depends on its image: where that lies, and where it has no values.
            meaning = json.dumps([self.classes.to_dict(), asdict(sample.labels or VectorLabels()), key], sort_keys=True)
            mask_key = hashlib.sha256(f"{remembered_key(sample.mask, self.folder)} {meaning}".encode()).hexdigest()
            mask_path = self._home("masks", mask_key)
            mask = _ensured(mask_path, lambda: _decoded_mask(sample, self.classes, valid_path))
            if mask.shape != image.shape[:2]:
                raise DataError(
                    f"{sample.mask} is {mask.shape[0]} × {mask.shape[1]} pixels (height × width) but its image "
                    f"{sample.image} is {image.shape[0]} × {image.shape[1]}; a mask must have its image's size"
                )
        height, width, bands = image.shape
        window = sample.window
        if window and (window.row + window.height > height or window.col + window.width > width):
            raise DataError(
                f"the window {window} of '{sample.name}' reaches outside {sample.image} ({height} × {width})"
            )
        known_valid = valid_path if valid_path.exists() else None
        return _Entry(image_path, mask_path, known_valid, height, width, bands, image.dtype.str)

    def _home(self, kind: str, key: str) -> Path:
        return self.folder / f"v{FORMAT_VERSION}" / kind / key[:2] / f"{key}.npy"

    def _mapped(self, path: Path) -> NDArray[Any]:
        array = self._open.get(path)
        if array is None:
            array = _load(path)
            if array is None:
                raise FileError(f"the decoded image {path} disappeared or is damaged; build the store again")
            self._open[path] = array
            while len(self._open) > _OPEN_ARRAYS:
                self._open.popitem(last=False)
        return array


def scenes(store: SceneStore) -> Iterator[Scene]:
    """Yield all samples of a store as scenes, in order."""
    for index, sample in enumerate(store.samples):
        yield Scene(sample.name, store.image(index), store.mask(index))


def cache_folder() -> Path:
    """Return ``$SEGSHRINK_CACHE``, or ``segshrink`` in the user's cache folder (``$XDG_CACHE_HOME``)."""
    given = os.environ.get("SEGSHRINK_CACHE")
    if given:
        return Path(given).expanduser()
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "segshrink"


def remembered_key(path: Path, folder: Path) -> str:
    """Return the SHA-256 of a file's content; an unchanged (path, size, modification time) isn't hashed again.

    Args:
        path: The file.
        folder: Cache folder, where keys are remembered.

    Raises:
        FileError: The file can't be read.
    """
    path = Path(os.path.abspath(path))  # noqa: PTH100  # Path.absolute keeps "..", under which one file has many names
    try:
        status = path.stat()
    except OSError as error:
        raise FileError(f"can't read {path}: {error.strerror or error}; check the path") from error
    stamp = [str(path), status.st_size, status.st_mtime_ns]
    name = hashlib.sha256(os.fsencode(path)).hexdigest()[:32]
    note = folder / f"v{FORMAT_VERSION}" / "keys" / name[:2] / f"{name}.json"
    try:
        known = json.loads(note.read_text(encoding="utf-8"))
        if known["stamp"] == stamp:
            return str(known["key"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # not known yet, or damaged: hash the file
    key = content_key(path)
    if abs(time.time() - status.st_mtime) > _SETTLED_SECONDS:
        with replacing(note) as temporary:
            temporary.write_text(json.dumps({"stamp": stamp, "key": key}), encoding="utf-8")
    return key


@dataclass(frozen=True)
class _Entry:
    """Where a sample's arrays lie and what they are."""

    image: Path
    mask: Path | None
    valid: Path | None
    height: int
    width: int
    bands: int
    dtype: str


def _ensured(path: Path, decode: Callable[[], NDArray[Any]]) -> NDArray[Any]:
    """Map the array at ``path``; decode and write it first if it is absent or damaged."""
    array = _load(path)
    if array is None:
        decoded = np.ascontiguousarray(decode())
        with replacing(path) as temporary, temporary.open("wb") as stream:
            np.save(stream, decoded, allow_pickle=False)
        array = _load(path)
        if array is None:
            raise FileError(f"can't read back {path}; choose another cache folder with $SEGSHRINK_CACHE")
    return array


def _decoded_image(path: Path, valid_path: Path) -> NDArray[Any]:
    """Read an image; which pixels have a value is written first, unless all have."""
    pixels, valid = read_valid_image(path)
    if valid is not None:
        _ensured(valid_path, lambda: valid)
    return pixels


def _decoded_mask(sample: Sample, classes: ClassMap, valid_path: Path) -> NDArray[np.uint8]:
    """Read a sample's mask, ignoring pixels where its image has no value."""
    if sample.mask is None:
        raise ValueError("an unlabelled sample has no mask to decode")
    mask = read_mask(sample.mask, classes, image=sample.image, labels=sample.labels)
    valid = _load(valid_path)
    if valid is not None and valid.shape == mask.shape:
        mask[~valid] = IGNORE_INDEX
    return mask


def _load(path: Path) -> NDArray[Any] | None:
    try:
        mapped: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    # A plain array over the same pages: slicing a memmap costs five times as much.
    return mapped.view(np.ndarray)


def _refuse_different(first: Sample, expected: _Entry, sample: Sample, entry: _Entry) -> None:
    if entry.bands != expected.bands:
        raise DataError(
            f"{sample.image} has {entry.bands} bands but {first.image} has {expected.bands}; "
            "all images of a data set must have the same bands"
        )
    if entry.dtype != expected.dtype:
        raise DataError(
            f"{sample.image} is {np.dtype(entry.dtype)} but {first.image} is {np.dtype(expected.dtype)}; "
            "all images of a data set must have the same data type"
        )
