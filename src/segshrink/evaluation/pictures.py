"""The files that an evaluation keeps of its scenes: predictions of all, pictures for a report of some."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segshrink.classes import ClassMap
from segshrink.evaluation_records import PicturesRecord
from segshrink.imagery import to_display, write_image, write_index_png

LONGEST_SIDE = 1024


class SceneFiles:
    """The folder ``evaluation`` of a run.

    Args:
        folder: Where it is written.
        classes: The classes, whose colors the masks take.
        names: Names of all scenes.
        pictures: Of how many of them pictures are kept, see ``evenly_spaced``.
    """

    def __init__(self, folder: Path, classes: ClassMap, names: Iterable[str], *, pictures: int) -> None:
        self._folder = folder
        self._classes = classes
        self._shown = evenly_spaced(names, limit=pictures)
        (folder / "predictions").mkdir(parents=True)

    def keep(
        self, name: str, image: NDArray[Any], truth: NDArray[np.uint8], prediction: NDArray[np.uint8]
    ) -> PicturesRecord | None:
        """Write ``predictions/NAME.png``, and NAME.jpg, NAME.truth.png and NAME.prediction.png where it is shown.

        These three have one size: the image's, or less so that the longest side is 1024 pixels; masks by nearest
        pixel.

        Returns:
            Their paths relative to the run folder; None where it isn't shown.
        """
        write_index_png(self._folder / "predictions" / f"{name}.png", prediction, self._classes)
        if name not in self._shown:
            return None
        height, width = truth.shape
        scale = min(1.0, LONGEST_SIDE / max(height, width))
        size = max(1, round(width * scale)), max(1, round(height * scale))
        shown = Image.fromarray(to_display(image))
        shown = shown if shown.size == size else shown.resize(size, Image.Resampling.LANCZOS)
        write_image(self._folder / f"{name}.jpg", np.asarray(shown))
        for kind, index in (("truth", truth), ("prediction", prediction)):
            small = np.asarray(Image.fromarray(index).resize(size, Image.Resampling.NEAREST))
            write_index_png(self._folder / f"{name}.{kind}.png", small, self._classes)
        stem = f"{self._folder.name}/{name}"
        return PicturesRecord(image=f"{stem}.jpg", truth=f"{stem}.truth.png", prediction=f"{stem}.prediction.png")


def evenly_spaced(names: Iterable[str], *, limit: int) -> frozenset[str]:
    """Return at most ``limit`` names, evenly spaced in name order: the same ones for every model."""
    ordered = sorted(names)
    if len(ordered) <= limit:
        return frozenset(ordered)
    return frozenset(ordered[position * len(ordered) // limit] for position in range(limit))
