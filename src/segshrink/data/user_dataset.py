"""Data sets that a user's own function makes, of torch or of Hugging Face, written out once as files."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segshrink.classes import IGNORE_INDEX
from segshrink.config import DatasetDescription, Recipe, Split
from segshrink.data.file_keys import cache_folder
from segshrink.data.layout import part_of
from segshrink.errors import DataError
from segshrink.files import replacing, writing
from segshrink.imagery import write_image
from segshrink.user_code import call_function, is_function

_LOGGER = logging.getLogger(__name__)
# What items that are mappings call an image and its mask.
_IMAGES = ("image", "images", "pixel_values", "img", "input", "x")
_MASKS = ("mask", "masks", "target", "label", "labels", "annotation", "segmentation", "segmentation_mask", "y")
# The folder of images without masks.
_UNLABELED = "unlabeled"
# Modes of PIL whose numbers are kept; others become RGB.
_RAW_MODES = ("L", "RGB", "RGBA", "I", "F", "I;16", "I;16L", "I;16B", "I;16N")


class _Item(NamedTuple):
    """An image (H, W) or (H, W, bands), its mask (H, W) or (H, W, 3), None without, and the image's suffix as a file.

    A PNG holds all but floats and numbers of bands of which it would take the last for transparency.
    """

    image: NDArray[Any]
    mask: NDArray[Any] | None
    suffix: str


def with_files(description: DatasetDescription) -> DatasetDescription:
    """Return a description of files for one whose ``images`` names a function; any other as it is.

    The function gives a ``torch.utils.data.Dataset`` or one of Hugging Face, or a mapping of "train", "validation",
    "test" to such. Items are pairs of image and mask, or mappings with an "image" and a "mask"; without a mask an
    image is unlabeled. Images are PIL's, arrays (H, W, bands) or tensors (bands, H, W) of raw pixel values, of which
    only PIL's of mode RGBA have transparency; masks are PIL's, arrays or tensors (H, W) of class values, negative ones
    ignored, or of colors. All are written into the cache folder, once for the same number of items, first, middle and
    last item, and Hugging Face's fingerprint.

    Raises:
        ModelError: There is no such module, or importing it fails.
        DataError: There is no such function, it fails, or gives no such data set; two of its data sets are the same
            part; an item is something else.
    """
    if not is_function(description.images):
        return description
    parts = _parts(description.images)
    key = _fingerprint(description.images, parts)
    folder = cache_folder() / "datasets" / f"{description.images.replace(':', '-')}-{key}"
    if not folder.is_dir():
        _LOGGER.info("%s: writing its items as files into %s", description.images, folder)
        with writing(folder), replacing(folder) as temporary:
            for name, dataset in parts.items():
                for number, item in _items(dataset, description.images):
                    _write(temporary, name, number, item)
    return _described(description, folder)


def recipe_with_files(recipe: Recipe) -> Recipe:
    """Return a recipe whose data are files, see ``with_files``."""
    data = with_files(recipe.data)
    return recipe if data is recipe.data else recipe.model_copy(update={"data": data})


def _parts(source: str) -> dict[str, Any]:
    """Call the function; return its data sets by part, "all" where there is one."""
    made = call_function(source, {}, subject=f"images '{source}'", raises=DataError)
    if not isinstance(made, Mapping):
        made = {"all": made}
    parts: dict[str, Any] = {}
    keys: dict[str, str] = {}
    for key, dataset in made.items():
        part = "all" if key == "all" else part_of(str(key)) or str(key)
        if part in parts:
            raise DataError(
                f"images '{source}': '{keys[part]}' and '{key}' are both the part {part}; give one data set of it "
                "(torch.utils.data.ConcatDataset joins several)"
            )
        parts[part], keys[part] = dataset, str(key)
        if not (hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")) or len(dataset) == 0:
            raise DataError(
                f"images '{source}': {part} is {type(dataset).__name__}, not a data set with items and a length; give "
                "a torch.utils.data.Dataset, one of Hugging Face, or a mapping of train and validation to such"
            )
    return parts


def _items(dataset: Any, source: str) -> Iterator[tuple[int, _Item]]:
    for number in range(len(dataset)):
        try:
            yield number, _item(dataset[number])
        except (TypeError, ValueError, KeyError, IndexError) as error:
            raise DataError(f"images '{source}': item {number} can't be used ({error}); correct it") from error


def _item(item: Any) -> _Item:
    if isinstance(item, Mapping):
        image, mask = (next((key for key in keys if key in item), None) for keys in (_IMAGES, _MASKS))
        if image is None:
            raise ValueError(
                f"it has no image, found {', '.join(map(str, item))}; call it 'image', and its mask 'mask'"
            )
        given = item[image], None if mask is None else item[mask]
    elif isinstance(item, Sequence) and len(item) > 1:
        given = item[0], item[1]
    else:
        raise ValueError(f"it is {type(item).__name__}, expected an image and its mask")
    pixels = _image(given[0])
    transparent = isinstance(given[0], Image.Image) and given[0].mode == "RGBA"
    png = pixels.dtype.kind == "u" and (transparent or pixels.ndim == 2 or pixels.shape[2] in (1, 3))
    return _Item(pixels, None if given[1] is None else _mask(given[1]), ".png" if png else ".tif")


def _image(image: Any) -> NDArray[Any]:
    if isinstance(image, Image.Image) and image.mode not in _RAW_MODES:
        image = image.convert("RGB")
    pixels = _array(image)
    if pixels.ndim not in (2, 3):
        raise ValueError(
            f"its image is of shape {pixels.shape}, expected (H, W), (H, W, bands) or a tensor (bands, H, W)"
        )
    if pixels.ndim == 3 and hasattr(image, "numpy"):
        pixels = np.moveaxis(pixels, 0, -1)
    raw = pixels.dtype.kind == "u" and pixels.dtype.itemsize <= 2
    return pixels.astype(pixels.dtype.newbyteorder("=") if raw else np.float32, copy=False)


def _mask(mask: Any) -> NDArray[Any]:
    numbers = np.asarray(mask) if isinstance(mask, Image.Image) else _array(mask)
    if numbers.ndim == 3 and 1 in (numbers.shape[0], numbers.shape[-1]):
        numbers = numbers.reshape(numbers.shape[1:] if numbers.shape[0] == 1 else numbers.shape[:2])
    if numbers.ndim == 3 and hasattr(mask, "numpy"):
        numbers = np.moveaxis(numbers, 0, -1)
    if numbers.ndim not in (2, 3) or (numbers.dtype.kind == "f" and not np.array_equal(numbers, np.floor(numbers))):
        raise ValueError(f"its mask is of shape {numbers.shape} and {numbers.dtype}, expected (H, W) whole numbers")
    numbers = np.where(numbers < 0, IGNORE_INDEX, numbers)
    return numbers.astype(np.uint16 if numbers.max(initial=0) > IGNORE_INDEX else np.uint8)


def _array(given: Any) -> NDArray[Any]:
    return np.asarray(given.numpy() if hasattr(given, "numpy") else given)


def _fingerprint(source: str, parts: Mapping[str, Any]) -> str:
    digest = hashlib.sha256()
    for name, dataset in parts.items():
        digest.update(f"{name} {len(dataset)} {getattr(dataset, '_fingerprint', '')}".encode())
        for number in sorted({0, len(dataset) // 2, len(dataset) - 1}):
            for _, item in _items(_Only(dataset, number), source):
                for array in (item.image, item.mask):
                    digest.update(b"" if array is None else f"{array.shape} {array.dtype}".encode() + array.tobytes())
                if item.suffix == ".tif" and item.image.dtype.kind == "u" and item.image.shape[2] <= 4:
                    digest.update(b".tif")  # they were PNG files once, read with transparency
    return digest.hexdigest()[:16]


class _Only:
    """One item of a data set."""

    def __init__(self, dataset: Any, number: int) -> None:
        self._dataset, self._number = dataset, number

    def __len__(self) -> int:
        return 1

    def __getitem__(self, number: int) -> Any:
        return self._dataset[self._number]


def _write(folder: Path, part: str, number: int, item: _Item) -> None:
    """Write PART/images/NUMBER and PART/masks/NUMBER, or without a mask unlabeled/PART/NUMBER."""
    image, mask, suffix = item
    name = f"{number:06d}{suffix}"
    places = {folder / _UNLABELED / part / name: image}
    if mask is not None:
        places = {folder / part / "images" / name: image, folder / part / "masks" / f"{number:06d}.png": mask}
    for path, pixels in places.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_image(path, pixels)


def _described(description: DatasetDescription, folder: Path) -> DatasetDescription:
    """Say where the files lie, and how they are split where the description doesn't."""
    labeled = {path.parent.parent.name for path in folder.glob("*/images/*")}
    unlabeled = {path.parent.name for path in folder.glob(f"{_UNLABELED}/*/*")}
    suffixes = sorted({path.suffix for path in (*folder.glob("*/images/*"), *folder.glob(f"{_UNLABELED}/*/*"))})
    if len(suffixes) > 1:
        raise DataError(f"images '{description.images}': items differ in bits, bands or transparency; give one kind")
    (suffix,) = suffixes
    changes: dict[str, Any] = {"root": folder, "images": f"{_UNLABELED}/*/*{suffix}"}
    if labeled:
        changes["images"], changes["masks"] = f"*/images/*{suffix}", "*/masks/*.png"
        if unlabeled:
            changes["unlabeled"] = f"{_UNLABELED}/*/*{suffix}"
    entries = {part: [part] for part in labeled} or {part: [f"{_UNLABELED}/{part}"] for part in unlabeled}
    judged = entries.get("val", entries.get("test"))
    if "split" not in description.model_fields_set and "train" in entries and judged:
        test = entries.get("test") if "val" in entries else None
        changes["split"] = Split(train=entries["train"], val=judged, test=test)
    else:
        changes["split"] = description.split
    return description.model_copy(update=changes)
