"""Several models that answer as one: the mean of their probabilities."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from segshrink.errors import ModelError
from segshrink.imagery.bands import same_bands
from segshrink.imagery.scaling import describe_scaling
from segshrink.prediction.backends import Backend
from segshrink.prediction.logits import log_probabilities, softmax_in_place
from segshrink.working_size import depends_on_image, zoom

# Coarser than another by this, a resolution is still the same.
_SAME_RESOLUTION = 1.05


class AverageBackend:
    """The mean of several models' probabilities, as one model.

    Args:
        parts: Two or more models that take the same bands and give the same classes in the same order.

    Attributes:
        parts: The models.
        description: The first one's, with the band names, scaling and resolution that any knows, and a stride and size
            that suit all.
        own_tile: The largest of theirs.

    Raises:
        ModelError: Classes, bands, or the numbers that pixels have differ.
    """

    def __init__(self, parts: Sequence[Backend]) -> None:
        self.parts = tuple(parts)
        for first, other in combinations(self.parts, 2):
            if other.classes.names != first.classes.names or other.bands != first.bands:
                raise ModelError(
                    f"{other.name} ({', '.join(other.classes.names)}; {other.bands} bands) and {first.name} "
                    f"({', '.join(first.classes.names)}; {first.bands} bands) have no mean; give models of the same "
                    "classes and bands"
                )
            _refuse_other_pixels(other, first)
        first = self.parts[0]
        self.name = f"mean of {', '.join(part.name for part in self.parts)}"
        self.classes, self.num_classes, self.bands = first.classes, first.num_classes, first.bands
        self.runtime = first.runtime
        self.own_tile = max((part.own_tile for part in self.parts if part.own_tile is not None), default=None)
        descriptions = [part.description for part in self.parts if part.description is not None]
        resizes = [description.resize for description in descriptions]
        largest = next(filter(depends_on_image, resizes), min(resizes, key=zoom, default=None))
        stride = math.lcm(*(description.stride for description in descriptions))
        self.description = first.description and replace(
            first.description,
            band_names=next((each.band_names for each in descriptions if each.band_names), None),
            scaling=next((each.scaling for each in descriptions if each.scaling), None),
            resolution=next((each.resolution for each in descriptions if each.resolution), None),
            stride=stride,
            resize=largest,
        )

    def run(self, images: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Turn raw pixel values (N, H, W, bands) into the logarithms of the mean probabilities (N, C, H, W)."""
        return log_probabilities(self._mean(images))

    def classify(self, images: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
        """Turn raw pixel values (N, H, W, bands) into the most likely class (N, H, W), the first of equals."""
        index: npt.NDArray[np.uint8] = self._mean(images).argmax(axis=1).astype(np.uint8)
        return index

    def refuse_other_resolutions(self) -> None:
        """Refuse to map at one resolution with models that were trained on several.

        Raises:
            ModelError: Known resolutions differ by more than 5 %.
        """
        known = {
            part.description.resolution: part.name
            for part in self.parts
            if part.description is not None and part.description.resolution is not None
        }
        if known and max(known) > _SAME_RESOLUTION * min(known):
            raise ModelError(
                f"{known[min(known)]} was trained at {min(known):g} m a pixel and {known[max(known)]} at "
                f"{max(known):g} m; say with --resolution at which one to predict, or give models of one resolution"
            )

    def _mean(self, images: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        total = None
        for part in self.parts:
            logits = np.array(part.run(images), np.float32)
            for image in logits:
                softmax_in_place(image)
            total = logits if total is None else np.add(total, logits, out=total)
        assert total is not None  # noqa: S101  # there are parts
        return total / np.float32(len(self.parts))


def _refuse_other_pixels(other: Backend, first: Backend) -> None:
    theirs, ours = other.description, first.description
    if theirs is None or ours is None:
        return
    if not same_bands(theirs.band_names, ours.band_names):
        difference = [", ".join(names or ()) for names in (theirs.band_names, ours.band_names)]
    elif theirs.dtype != ours.dtype:
        difference = [f"{dtype} pixels" for dtype in (theirs.dtype, ours.dtype)]
    elif theirs.scaling and ours.scaling and not np.allclose(theirs.scaling, ours.scaling, rtol=1e-6, atol=0):
        difference = [f"scale and offset {describe_scaling(tags)}" for tags in (theirs.scaling, ours.scaling)]
    else:
        return
    raise ModelError(
        f"{other.name} ({difference[0]}) and {first.name} ({difference[1]}) have no mean; give models that take the "
        "same pixels"
    )
