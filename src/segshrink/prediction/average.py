"""Several models that answer as one: the mean of their probabilities."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from segshrink.errors import ModelError
from segshrink.prediction.backends import Backend
from segshrink.prediction.logits import log_probabilities, softmax_in_place
from segshrink.working_size import depends_on_image, zoom


class AverageBackend:
    """The mean of several models' probabilities, as one model.

    Args:
        parts: Two or more models that take the same bands and give the same classes in the same order.

    Attributes:
        parts: The models.
        description: The first one's, with a stride and tiles that suit all.

    Raises:
        ModelError: Classes or bands differ.
    """

    def __init__(self, parts: Sequence[Backend]) -> None:
        self.parts = tuple(parts)
        first, *others = self.parts
        for other in others:
            if other.classes.names != first.classes.names or other.bands != first.bands:
                raise ModelError(
                    f"{other.name} ({', '.join(other.classes.names)}; {other.bands} bands) and {first.name} "
                    f"({', '.join(first.classes.names)}; {first.bands} bands) have no mean; give models of the same "
                    "classes and bands"
                )
        self.name = f"mean of {', '.join(part.name for part in self.parts)}"
        self.classes, self.num_classes, self.bands = first.classes, first.num_classes, first.bands
        self.runtime = first.runtime
        descriptions = [part.description for part in self.parts if part.description is not None]
        resizes = [description.resize for description in descriptions]
        largest = next(filter(depends_on_image, resizes), min(resizes, key=zoom, default=None))
        stride = math.lcm(*(description.stride for description in descriptions))
        self.description = first.description and replace(first.description, stride=stride, resize=largest)

    def run(self, images: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Turn raw pixel values (N, H, W, bands) into the logarithms of the mean probabilities (N, C, H, W)."""
        return log_probabilities(self._mean(images))

    def classify(self, images: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
        """Turn raw pixel values (N, H, W, bands) into the most likely class (N, H, W), the first of equals."""
        index: npt.NDArray[np.uint8] = self._mean(images).argmax(axis=1).astype(np.uint8)
        return index

    def _mean(self, images: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        total = None
        for part in self.parts:
            logits = np.array(part.run(images), np.float32)
            for image in logits:
                softmax_in_place(image)
            total = logits if total is None else np.add(total, logits, out=total)
        assert total is not None  # noqa: S101  # there are parts
        return total / np.float32(len(self.parts))
