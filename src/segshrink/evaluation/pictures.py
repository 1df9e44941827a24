"""Pictures of evaluated scenes, small enough for a report."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segshrink.classes import ClassMap
from segshrink.imagery import to_display, write_image, write_index_png

LONGEST_SIDE = 1024


def evenly_spaced(names: Iterable[str], *, limit: int) -> frozenset[str]:
    """Return at most ``limit`` names, evenly spaced in name order: the same ones for every model."""
    ordered = sorted(names)
    if len(ordered) <= limit:
        return frozenset(ordered)
    return frozenset(ordered[position * len(ordered) // limit] for position in range(limit))


def write_pictures(
    folder: Path,
    name: str,
    *,
    image: NDArray[Any],
    truth: NDArray[np.uint8],
    prediction: NDArray[np.uint8],
    classes: ClassMap,
) -> dict[str, str]:
    """Write NAME.jpg, NAME.truth.png and NAME.prediction.png into ``folder``.

    All three have one size: the image's, or less so that the longest side is 1024 pixels; masks by nearest pixel.

    Returns:
        Their file names, by "image", "truth" and "prediction".
    """
    files = {"image": f"{name}.jpg", "truth": f"{name}.truth.png", "prediction": f"{name}.prediction.png"}
    height, width = _shrunk(*truth.shape)
    shown = to_display(image)
    if shown.shape[:2] != (height, width):
        shown = np.asarray(Image.fromarray(shown).resize((width, height), Image.Resampling.LANCZOS))
    write_image(folder / files["image"], shown)
    write_index_png(folder / files["truth"], _nearest(truth, height, width), classes)
    write_index_png(folder / files["prediction"], _nearest(prediction, height, width), classes)
    return files


def _shrunk(height: int, width: int) -> tuple[int, int]:
    scale = min(1.0, LONGEST_SIDE / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def _nearest(index: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    if index.shape == (height, width):
        return index
    rows = ((np.arange(height) + 0.5) * index.shape[0] / height).astype(np.intp)
    columns = ((np.arange(width) + 0.5) * index.shape[1] / width).astype(np.intp)
    nearest: NDArray[np.uint8] = index[rows[:, np.newaxis], columns]
    return nearest
