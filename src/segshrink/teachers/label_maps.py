"""Label maps in files as logits: hard ones (one class a pixel) and soft ones (a number a class and pixel)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segshrink.classes import IGNORE_INDEX, ClassMap, UndeclaredError
from segshrink.errors import DataError, FileError
from segshrink.imagery import read_mask
from segshrink.imagery.raster_files import read_header
from segshrink.prediction.probabilities import are_probabilities, channels_for
from segshrink.teachers.probabilities import one_hot_logits, to_log_probabilities, two_class_logits

SUFFIXES = (".png", ".npy", ".npz")

# PNG's numbers for gray and for gray with alpha.
_GRAY = (0, 4)
_PALETTE = 3

Meaning = Literal["auto", "logits", "probabilities", "labels"]


def read_hard(path: Path, classes: ClassMap) -> NDArray[np.uint8]:
    """Read a PNG of class numbers, or of the classes' colors, as class indices (H, W), 255 where unknown.

    A gray file holds class numbers from 0 in the order of ``classes``, 255 for unknown, unless all colors of the
    classes are shades of gray. One with three bands holds the classes' colors. One with a palette is read through it
    where the data set's masks are in colors, and as numbers where they are numbers.

    Raises:
        FileError: The file is unreadable, damaged or no image.
        DataError: It holds something that is no class.
    """
    header = read_header(path)
    if header.format != "PNG":
        raise DataError(f"{path} is a {header.format} file; hard label maps are PNG files")
    in_shades = classes.values is None and all(len(set(color)) == 1 for color in classes.colors)
    by_number = (header.color_type in _GRAY and not in_shades) or (
        header.color_type == _PALETTE and classes.values is not None
    )
    if by_number:
        numbers = replace(classes, values=tuple(range(len(classes))), ignored_colors=(), ignored_values=(IGNORE_INDEX,))
        try:
            return read_mask(path, numbers)
        except UndeclaredError as error:
            raise DataError(
                f"{error}; a label map counts the data set's classes from 0 to {len(classes) - 1}, {IGNORE_INDEX} is "
                "unknown"
            ) from error
    unknown = tuple(dict.fromkeys((*classes.ignored_colors, classes.ignore_color)))
    return read_mask(path, replace(classes, values=None, ignored_colors=unknown, ignored_values=()))


def read_array(path: Path) -> NDArray[Any]:
    """Read the one array of an ``.npy`` or ``.npz`` file; nothing in it is run.

    Raises:
        FileError: The file is unreadable or damaged.
        DataError: An ``.npz`` file holds another number of arrays than one.
    """
    try:
        with path.open("rb") as stream:
            content = np.load(stream, allow_pickle=False)
            if isinstance(content, np.ndarray):
                return content
            if len(content.files) != 1:
                held = ", ".join(content.files) or "nothing"
                raise DataError(f"{path} holds {held}; a label map is the only array in its file")
            array: NDArray[Any] = content[content.files[0]]
            return array
    except DataError:
        raise
    except Exception as error:  # zipfile and zlib have errors of their own
        raise FileError(f"{path} is damaged or no array ({error}); write it again") from error


def hard_logits(index: NDArray[Any], classes: int, confidence: float, path: Path) -> tuple[Tensor, Tensor]:
    """Return logits (K, H, W) of class indices (H, W), and where they are unknown (H, W).

    Raises:
        ModelError: An index is neither a class nor 255.
    """
    labels = torch.from_numpy(np.array(index, dtype=np.int64))
    unknown = labels == IGNORE_INDEX
    return one_hot_logits(labels.masked_fill(unknown, 0)[None], classes, confidence, str(path))[0], unknown


def soft_logits(
    array: NDArray[Any], size: tuple[int, int], classes: int, meaning: Meaning, path: Path
) -> tuple[Tensor, Tensor]:
    """Return logits (K, H, W) of a soft map, and where it says nothing (H, W).

    Args:
        array: (K, H, W) or (H, W, K); for two classes also (H, W), (1, H, W) or (H, W, 1), of the second one. uint8 is
            probabilities times 255. A pixel with a NaN, or whose probabilities are all 0, is unknown.
        size: Height and width of the image.
        classes: K.
        meaning: What float numbers are; "auto" tells probabilities from logits.
        path: The file, for messages.

    Raises:
        DataError: Another size than the image's, other channels than classes, or other numbers than said.
    """
    values = torch.from_numpy(np.array(_channels_first(array, size, classes, path), dtype=np.float32))
    if meaning == "labels" or (meaning == "logits" and array.dtype == np.uint8):
        raise DataError(f"{path} is a soft label map of {array.dtype}, but the adapter says 'output: {meaning}'")
    if array.dtype == np.uint8:
        values /= 255
        meaning = "probabilities"
    unknown = values.isnan().any(dim=0)
    one_channel = len(values) == 1
    valid = values[:, ~unknown]
    in_range = bool((valid >= 0).all()) and bool((valid <= 1).all())
    if meaning in ("auto", "probabilities") and in_range and not one_channel:
        unknown |= (values == 0).all(dim=0)
        valid = values[:, ~unknown]
    if meaning == "auto":
        meaning = "probabilities" if are_probabilities(valid[None]) else "logits"
        if meaning == "logits" and in_range and valid.numel():
            raise DataError(
                f"{path} holds numbers from 0 to 1 that don't add up to 1 over the classes; correct it, or say in the "
                "adapter what they are ('output: probabilities' or 'output: logits')"
            )
    if meaning == "probabilities" and not in_range:
        raise DataError(f"{path} should hold probabilities, found {float(valid.min()):g} to {float(valid.max()):g}")
    if bool(valid.isposinf().any()):
        raise DataError(f"{path} holds infinite logits; write finite ones")
    if one_channel:
        return two_class_logits(values[None], probabilities=meaning == "probabilities")[0], unknown
    return (to_log_probabilities(values) if meaning == "probabilities" else values), unknown


def _channels_first(array: NDArray[Any], size: tuple[int, int], classes: int, path: Path) -> NDArray[Any]:
    if array.dtype != np.uint8 and array.dtype.kind != "f":
        raise DataError(f"{path} holds {array.dtype} numbers; a soft label map is uint8 or float")
    allowed = channels_for(classes)
    if array.ndim == 2 and 1 in allowed:
        array = array[np.newaxis]
    if array.ndim == 3:
        if array.shape[0] in allowed and array.shape[1:] == size:
            return array
        if array.shape[2] in allowed and array.shape[:2] == size:
            return np.moveaxis(array, 2, 0)
    raise DataError(
        f"{path} is of shape {array.shape}, but its image is {size[0]} x {size[1]} pixels (height x width) and there "
        f"are {classes} classes; it must be ({classes}, {size[0]}, {size[1]}) or ({size[0]}, {size[1]}, {classes})"
    )
