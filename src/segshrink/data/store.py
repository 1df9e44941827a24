"""Images decoded once into memory-mapped arrays, so that a crop costs what it reads."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, astuple, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from segshrink.classes import IGNORE_INDEX, ClassMap
from segshrink.data.checked_arrays import ArrayHeader, CheckedArrays, DamagedError, array_header, write_array
from segshrink.data.file_keys import FORMAT_VERSION, cache_folder, remembered_key
from segshrink.data.sources import Sample
from segshrink.errors import DataError, FileError
from segshrink.imagery import MaskOptions, ReadOptions, read_mask, read_valid_image
from segshrink.imagery.label_regions import read_label_regions
from segshrink.imagery.masks import mask_files, mask_identity, nearest_pixels, resized_mask
from segshrink.imagery.pictures import files_of_place
from segshrink.imagery.raster_files import masks_beside, read_header
from segshrink.tiling import Window
from segshrink.working_size import Resize, working_size

# Arrays held open at once, where the system allows so many open files.
_OPEN_ARRAYS = 256

# Noted beside a decoded image: whether all its pixels have a value, or an array of its own says which.
_VALID, _PARTLY_VALID = "a", "p"
# Noted beside a decoded mask: an array of its own says which of its labels are doubted.
_DOUBTED = "d"

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Scene:
    """A whole image with its target.

    Attributes:
        name: The sample's name.
        image: (H, W, bands) raw pixel values.
        target: (H, W) uint8 class indices, 255 = ignore.
        valid: (H, W) which pixels have a value; None: all have.
    """

    name: str
    image: NDArray[Any]
    target: NDArray[np.uint8]
    valid: NDArray[np.bool_] | None = None


class SceneStore:
    """Decoded images and masks of some samples, memory-mapped and read-only.

    Arrays lie in the cache folder under the hash of their file's content (and, for masks, of the class map), so they
    are shared between data sets and runs, a changed or damaged one is decoded anew, and two processes that build at
    once write the same content. The store can be pickled and used after a fork.

    Args:
        samples: What to hold, in this order.
        classes: What masks mean.
        resize: Working size that images are brought to as models do it, masks and what else belongs to them pixel by
            nearest pixel; None leaves them as they are.
        folder: Cache folder; None is ``$SEGSHRINK_CACHE`` or the user's cache folder.
        progress: Called with (samples done, all samples) after each sample.

    Raises:
        FileError: A file is missing, damaged or unreadable; the cache folder can't be written.
        DataError: Image and mask differ in size; images differ in bands or data type; a mask holds an undeclared
            color or value.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        classes: ClassMap,
        *,
        resize: Resize | None = None,
        folder: Path | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.samples = tuple(samples)
        self.classes = classes
        self.resize = resize
        self.folder = cache_folder() if folder is None else Path(folder)
        self._files = CheckedArrays()
        entries: list[_Entry] = []
        known: dict[tuple[Any, ...], _Entry] = {}
        for number, sample in enumerate(self.samples):
            # Windows of a file share its arrays, unless each is resized by itself.
            own = None if resize is None else sample.window
            files = (sample.image, sample.mask, sample.options, sample.regions, own)
            if files not in known:
                known[files] = self._entry(sample)
            entries.append(known[files])
            _refuse_different(self.samples[0], entries[0], sample, entries[-1])
            if progress is not None:
                progress(number + 1, len(self.samples))
        self._entries = tuple(entries)

    def __len__(self) -> int:
        return len(self.samples)

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
        window = self._window(index)
        return (window.height, window.width) if window else (self._entries[index].height, self._entries[index].width)

    def image(self, index: int, rows: slice | None = None) -> NDArray[Any]:
        """Return a sample's raw pixel values, (H, W, bands), memory-mapped and read-only.

        Args:
            index: The sample.
            rows: The only ones that are looked at, and so the only ones that must be undamaged; None: all.
        """
        return self._array(index, "image", rows)

    def original(self, index: int) -> NDArray[Any]:
        """Return a sample's raw pixel values, (H, W, bands), at the size of its file, whatever ``resize`` says."""
        sample = self.samples[index]
        return self.image(index) if self.resize is None else self._original(self._decoded(sample).image, sample)

    def mask(self, index: int, rows: slice | None = None) -> NDArray[np.uint8]:
        """Return a sample's class indices, (H, W) uint8, memory-mapped and read-only; all 255 without a mask."""
        if self._entries[index].mask is None:
            return np.broadcast_to(np.uint8(IGNORE_INDEX), self.shape(index))
        return self._array(index, "mask", rows)

    def valid(self, index: int, rows: slice | None = None) -> NDArray[np.bool_] | None:
        """Return which of a sample's pixels have a value, (H, W), memory-mapped and read-only; None when all have.

        The others are filled in ``image`` and ignored in ``mask``.
        """
        return None if self._entries[index].valid is None else self._array(index, "valid", rows)

    def doubted(self, index: int, rows: slice | None = None) -> NDArray[np.bool_] | None:
        """Return which of a sample's labels are doubted and undecided, (H, W), memory-mapped; None where none is."""
        return None if self._entries[index].doubted is None else self._array(index, "doubted", rows)

    def image_key(self, index: int) -> str:
        """Return a hash of a sample's image file and of how it is read, as it was when the store was built."""
        return self._entries[index].image.stem

    @property
    def key(self) -> str:
        """Hash of the files of all samples and of how they are read, as they were when the store was built."""
        content = [
            (sample.name, sample.window, entry.image.stem, entry.mask and entry.mask.stem)
            for sample, entry in zip(self.samples, self._entries, strict=True)
        ]
        return hashlib.sha256(repr(content).encode()).hexdigest()

    def _entry(self, sample: Sample) -> _Entry:
        """Decode a sample's files, and bring them to the working size, unless the cache has them."""
        entry = self._decoded(sample)
        return entry if self.resize is None else self._resized(entry, sample, self.resize)

    def _resized(self, entry: _Entry, sample: Sample, resize: Resize) -> _Entry:
        """Write a sample's arrays at the working size; a window is an image of its own."""
        window = sample.window
        shape = working_size(resize, *((window.height, window.width) if window else (entry.height, entry.width)))
        place = json.dumps([resize, window and astuple(window)])

        def written(path: Path, change: Callable[[NDArray[Any]], NDArray[Any]]) -> Path:
            """Write one of the arrays and return where it lies."""
            key = hashlib.sha256(f"{path.parts[-3]} {path.stem} {place}".encode()).hexdigest()
            small = self._home("resized", key)
            if array_header(small) is None:
                write_array(small, change(self._original(path, sample)))
            return small

        image, nearest = (
            written(entry.image, partial(_resized_pixels, resize=resize)),
            partial(nearest_pixels, shape=shape),
        )
        mask, valid, doubted = (path and written(path, nearest) for path in (entry.mask, entry.valid, entry.doubted))
        return _Entry(image, mask, valid, doubted, *shape, entry.bands, entry.dtype)

    def _original(self, path: Path, sample: Sample) -> NDArray[Any]:
        """Return one of a sample's arrays as it was decoded; one that is damaged is decoded anew."""
        try:
            array = self._files.get(path, most=_OPEN_ARRAYS)
        except (DamagedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            self._decoded(sample)
            array = self._files.get(path, most=_OPEN_ARRAYS)
        return array[sample.window.slices] if sample.window else array

    def _window(self, index: int) -> Window | None:
        """Return the part of the arrays that a sample is."""
        return self.samples[index].window if self.resize is None else None

    def _decoded(self, sample: Sample) -> _Entry:
        """Decode a sample's files unless the cache has them, and check that they fit together."""
        key = self._key(sample.image)
        if sample.options not in (None, ReadOptions()):
            key = hashlib.sha256(f"{key} {json.dumps(asdict(sample.options))}".encode()).hexdigest()
        image_path, valid_path = self._home("images", key), self._home("valid", key)
        image = array_header(image_path)
        if image is None or (image.note == _PARTLY_VALID and array_header(valid_path) is None):
            pixels, valid = read_valid_image(sample.image, sample.options)
            if valid is not None:
                write_array(valid_path, valid)
            write_array(image_path, pixels, note=_VALID if valid is None else _PARTLY_VALID)
            image = _read_back(image_path)
        known_valid = valid_path if image.note == _PARTLY_VALID else None
        mask_path = doubted_path = None
        if sample.mask is not None:
            # A mask depends on its image: where that lies, and where it has no values.
            place = [remembered_key(path, self.folder) for path in files_of_place(sample.image)]
            resized = [list(image.shape[:2])] if sample.resize_mask else []
            options = asdict(sample.mask_options or MaskOptions())
            identity = mask_identity(sample.mask, sample.image)
            files = [self._key(file) for file in mask_files(sample.mask)]
            decided = [] if sample.regions is None else [remembered_key(sample.regions, self.folder)]
            meaning = json.dumps(
                [self.classes.to_dict(), options, key, *place, *resized, *identity, *decided], sort_keys=True
            )
            mask_key = hashlib.sha256(f"{' '.join(files)} {meaning}".encode()).hexdigest()
            mask_path = self._home("masks", mask_key)
            mask, doubted_path = array_header(mask_path), self._home("doubted", mask_key)
            if mask is None or (mask.note == _DOUBTED and array_header(doubted_path) is None):
                decoded, doubted = self._decoded_mask(sample, image.shape[:2], known_valid)
                if doubted is not None:
                    write_array(doubted_path, doubted)
                write_array(mask_path, decoded, note="-" if doubted is None else _DOUBTED)
                mask = _read_back(mask_path)
            if mask.note != _DOUBTED:
                doubted_path = None
            if mask.shape != image.shape[:2]:
                raise DataError(
                    f"{sample.mask} is {mask.shape[0]} × {mask.shape[1]} pixels (height × width) but its image "
                    f"{sample.image} is {image.shape[0]} × {image.shape[1]}; a mask must have its image's size (or its "
                    "proportions, and mask_resize: nearest in the description)"
                )
        height, width, bands = image.shape
        window = sample.window
        if window and (window.row + window.height > height or window.col + window.width > width):
            raise DataError(
                f"the window {window} of '{sample.name}' reaches outside {sample.image} ({height} × {width})"
            )
        return _Entry(image_path, mask_path, known_valid, doubted_path, height, width, bands, image.dtype.str)

    def _decoded_mask(
        self, sample: Sample, shape: tuple[int, ...], valid_path: Path | None
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_] | None]:
        """Read a sample's mask, brought to the image's shape where it may be, corrected, and which labels are doubted.

        Where the image has no value, the mask is ignored.
        """
        if sample.mask is None:
            raise ValueError("an unlabeled sample has no mask to decode")
        mask = read_mask(sample.mask, self.classes, image=sample.image, options=sample.mask_options)
        if sample.resize_mask and mask.shape != shape:
            resized = resized_mask(mask, (shape[0], shape[1]))
            mask = mask if resized is None else resized
        doubted = None
        if sample.regions is not None and mask.shape == shape:
            corrected, doubted = read_label_regions(sample.regions, sample.image, self.classes, shape)
            np.copyto(mask, corrected, where=corrected != IGNORE_INDEX)
        if valid_path is not None:
            try:
                valid: NDArray[np.bool_] | None = self._files.get(valid_path, most=_OPEN_ARRAYS)
            except (DamagedError, FileNotFoundError):
                valid = read_valid_image(sample.image, sample.options)[1]
            if valid is not None and valid.shape == mask.shape:
                mask[~valid] = IGNORE_INDEX
        return mask, doubted if doubted is not None and doubted.any() else None

    def _key(self, path: Path) -> str:
        """Return the key of an image or mask; not that of when masks beside pictures weren't read."""
        key = remembered_key(path, self.folder)
        if not (masks_beside(path) and read_header(path).by_pillow):
            return key
        return hashlib.sha256(f"{key} masked".encode()).hexdigest()

    def _home(self, kind: str, key: str) -> Path:
        return self.folder / f"v{FORMAT_VERSION}" / kind / key[:2] / f"{key}.npy"

    def _array(
        self, index: int, kind: Literal["image", "mask", "valid", "doubted"], rows: slice | None
    ) -> NDArray[Any]:
        """Return one of a sample's arrays; one that is damaged or gone is decoded anew."""
        path: Path = getattr(self._entries[index], kind)
        window = self._window(index)
        if window:
            start, stop, _ = (rows or slice(None)).indices(window.height)
            rows = slice(window.row + start, window.row + stop)
        try:
            array = self._files.get(path, most=_OPEN_ARRAYS, rows=rows)
        except (DamagedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            if self._entry(self.samples[index]) != self._entries[index]:
                raise FileError(
                    f"{self.samples[index].image} or its mask has changed since this began, and what was decoded of it "
                    f"is gone ({path}); start again"
                ) from None
            array = self._files.get(path, most=_OPEN_ARRAYS, rows=rows)
        return array[window.slices] if window else array


def scenes(store: SceneStore) -> Iterator[Scene]:
    """Yield all samples of a store as scenes, in order."""
    for index, sample in enumerate(store.samples):
        yield Scene(sample.name, store.image(index), store.mask(index), store.valid(index))


@dataclass(frozen=True)
class _Entry:
    """Where a sample's arrays lie and what they are."""

    image: Path
    mask: Path | None
    valid: Path | None
    doubted: Path | None
    height: int
    width: int
    bands: int
    dtype: str


def _resized_pixels(pixels: NDArray[Any], *, resize: Resize) -> NDArray[Any]:
    """Bring pixels (H, W, bands) of any type to the working size, as a model does."""
    import torch

    from segshrink.models.model import at_working_size

    planes = torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1)[None]
    small: NDArray[Any] = at_working_size(planes, resize)[0].permute(1, 2, 0).numpy()
    return (np.rint(small) if pixels.dtype.kind in "iu" else small).astype(pixels.dtype)


def _read_back(path: Path) -> ArrayHeader:
    header = array_header(path)
    if header is None:
        raise FileError(f"can't read back {path}; choose another cache folder with $SEGSHRINK_CACHE")
    return header


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
