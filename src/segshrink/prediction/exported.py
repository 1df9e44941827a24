"""What all backends of exported files share: the description that files carry, checks, images as networks take them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segshrink.classes import ClassMap
from segshrink.errors import ModelError, first_line
from segshrink.model_description import ModelDescription
from segshrink.prediction.backends import check_images
from segshrink.prediction.logits import log_probabilities, most_likely
from segshrink.prediction.runtimes.network import Network

# The entry of a file's metadata that holds the model's description as JSON.
METADATA_KEY = "segshrink"
OUTPUTS = ("logits", "probabilities", "classes")
_LONGEST = 200  # letters of a reason that a file may have filled


class ExportedModel:
    """A backend of a file that segshrink wrote.

    Args:
        network: The file, opened.
        outputs: Names of what it gives; by default those in the file.

    Raises:
        ModelError: The file has no or damaged metadata, or none of the outputs that can be used.
    """

    own_tile: int | None = None

    def __init__(self, network: Network, outputs: Sequence[str] | None = None) -> None:
        self.network = network
        self.path, self.runtime = network.path, network.runtime
        self.description: ModelDescription | None = read_description(network.metadata, network.path)
        self.name: str = network.path.stem
        self.classes: ClassMap = self.description.classes
        self.num_classes: int = len(self.classes.names)
        self.bands: int = self.description.bands
        self._names = list(network.outputs if outputs is None else outputs)
        self.outputs = tuple(name for name in OUTPUTS if name in self._names)
        if not self.outputs:
            raise ModelError(
                f"{network.path} gives {', '.join(self._names) or 'nothing'}, but one of {', '.join(OUTPUTS)} is "
                "needed; export the model again"
            )
        self._dtype = np.uint8 if network.images.dtype == np.uint8 else np.float32

    def run(self, images: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Turn raw pixel values (N, H, W, bands) into logits (N, num_classes, H, W).

        A file that gives probabilities alone answers with their logarithms, which are logits, too.

        Raises:
            ModelError: The number of bands differs, 16-bit pixels meet a file that takes 8-bit ones, or the file gives
                classes alone.
        """
        self._check(images)
        if "logits" in self.outputs:
            return self._scores(images, "logits")
        if "probabilities" in self.outputs:
            return log_probabilities(self._scores(images, "probabilities"))
        raise ModelError(f"{self.path} gives classes alone; export the model with its logits or probabilities")

    def classify(self, images: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
        """Turn raw pixel values (N, H, W, bands) into the most likely class (N, H, W) of each pixel.

        Raises:
            ModelError: As ``run``.
        """
        self._check(images)
        if "classes" in self.outputs:
            classes: npt.NDArray[np.uint8] = self._fetch(images, "classes")
            if classes.shape != images.shape[:3]:
                raise self._other_shape("classes", classes.shape, images)
            if (highest := int(classes.max())) >= self.num_classes:
                raise ModelError(
                    f"{self.path} gives class {highest}, but its description names {self.num_classes} classes, 0 to "
                    f"{self.num_classes - 1}; export the model again"
                )
            return classes
        return np.stack([most_likely(values) for values in self._scores(images, self.outputs[0])])

    def _scores(self, images: npt.NDArray[Any], output: str) -> npt.NDArray[np.float32]:
        """Return logits or probabilities, one for each class that the description names."""
        scores: npt.NDArray[np.float32] = self._fetch(images, output)
        if scores.shape != (len(images), self.num_classes, *images.shape[1:3]):
            raise self._other_shape(output, scores.shape, images)
        return scores

    def _other_shape(self, output: str, shape: tuple[int, ...], images: npt.NDArray[Any]) -> ModelError:
        return ModelError(
            f"{self.path} gives {output} of shape {shape} for {len(images)} image(s) of {images.shape[1]} x "
            f"{images.shape[2]} pixels and the {self.num_classes} classes of its description; export the model again"
        )

    def _check(self, images: npt.NDArray[Any]) -> None:
        check_images(images, bands=self.bands, name=self.name)
        if self._dtype is np.uint8 and images.dtype != np.uint8:
            raise ModelError(
                f"{self.path} takes 8-bit pixels (uint8), got {images.dtype}; use the images it was made for"
            )

    def _fetch(self, images: npt.NDArray[Any], output: str) -> npt.NDArray[Any]:
        """Run the file on checked images and return one of its outputs."""
        planes = np.ascontiguousarray(images.transpose(0, 3, 1, 2), dtype=self._dtype)
        return self.network.run(planes, self._names.index(output))


def read_description(text: str | None, path: Path) -> ModelDescription:
    """Read the description that an exported file carries.

    Raises:
        ModelError: There is none, or it is damaged.
    """
    if text is None:
        raise ModelError(f"{path} was not written by segshrink (no '{METADATA_KEY}' metadata); use segshrink export")
    try:
        return ModelDescription.from_dict(json.loads(text))
    except (ValueError, RecursionError) as error:  # as ModelError is; and a number of too many digits
        reason = f"{type(error).__name__}: {first_line(error)}"[:_LONGEST]
        raise ModelError(f"{path}: damaged '{METADATA_KEY}' metadata ({reason}); export the model again") from error
