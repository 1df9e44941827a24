"""Networks in files that segshrink didn't write: read as the adapter beside them, the file and the data set say."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segshrink.classes import ClassMap
from segshrink.config import Adapter
from segshrink.errors import ModelError
from segshrink.model_description import CUSTOM, ModelDescription
from segshrink.prediction.backends import check_images
from segshrink.prediction.formats import AdaptedFile, usual_layout
from segshrink.prediction.logits import most_likely
from segshrink.prediction.pixel_units import check_units, tell_unscaled
from segshrink.prediction.runtimes.network import Network, output_number
from segshrink.prediction.tiled import WHOLE

_LOGGER = logging.getLogger(__name__)
# Sides of images are padded to multiples of this where a network takes any size: what encoders need as a rule.
_STRIDE = 32
# Sides of the images of noise that tell logits from probabilities: most networks take the first.
_TRIALS = (64, 224, 512)


class ForeignBackend:
    """A backend of a file of anybody.

    Images for a network of any size are padded right and bottom by repeating their edge.

    Args:
        network: The file, opened.
        adapter: What is said about it.
        classes: What it tells apart where the adapter doesn't name its classes; None: "class 0" and so on.

    Attributes:
        file: The network and its formats.

    Raises:
        ConfigError: The adapter contradicts itself or the file.
        ModelError: The file is no network from an image to a map of classes, or has other channels than classes.
    """

    def __init__(self, network: Network, adapter: Adapter, classes: ClassMap | None = None) -> None:
        self.path, self.runtime, self.name = network.path, network.runtime, network.path.stem
        names = adapter.class_names()
        named = f"{len(names or ())} class names are given" if names else "the data set has {count} classes"
        if names is not None and (classes is None or names != classes.names):
            classes = ClassMap.build(names)
        bands = count_bands(network, adapter)
        if classes is None:
            classes, named = ClassMap.build(_numbered(network, adapter, bands)), "it has {count} channels"
            _LOGGER.warning(
                "%s doesn't name its classes; name them in order in %s.yaml beside it: classes: [..., ...]",
                network.path,
                network.path.name,
            )
        named = named.format(count=len(classes))
        self.file = AdaptedFile.of(network, adapter, len(classes), bands=bands, described=False, named=named)
        size = self.file.resizing.size
        scaling = self.file.takes.scaling
        self.description: ModelDescription | None = ModelDescription(
            id=f"{CUSTOM}{network.path.name}",
            classes=classes,
            bands=bands,
            normalization=scaling,
            stride=_STRIDE if size is None else 1,
            dtype="uint8" if max(*map(abs, scaling.mean), *scaling.std) <= np.iinfo(np.uint8).max else "uint16",
        )
        self.classes, self.num_classes, self.bands = classes, len(classes), bands
        self.own_tile: int | None = None if size is None else size[0] if adapter.fit == "tile" else WHOLE
        if self.file.takes.dtype.kind == "f":
            tell_unscaled(adapter, str(network.path))
        self._tell_kind()

    def run(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Turn raw pixel values (N, H, W, bands) into logits (N, num_classes, H, W).

        Raises:
            ConfigError: The adapter scales pixels from 0 to 1, and these are larger.
            ModelError: The number of bands differs, or the network fails or answers what isn't said of it.
        """
        check_images(images, bands=self.bands, name=self.name)
        check_units(self.file.takes.scaling, images, str(self.path))
        planes = images.transpose(0, 3, 1, 2)
        pixels = planes if images.dtype == np.uint8 else planes.astype(np.float32)
        if self.file.resizing.size is not None:
            return self.file.resizing.logits(pixels, self.file.logits)
        height, width = images.shape[1:3]
        missing = [max(-(-side // _STRIDE), 2) * _STRIDE - side for side in (height, width)]
        padded = np.pad(pixels, ((0, 0), (0, 0), (0, missing[0]), (0, missing[1])), mode="edge")
        return np.ascontiguousarray(self.file.resizing.logits(padded, self.file.logits)[:, :, :height, :width])

    def classify(self, images: NDArray[Any]) -> NDArray[np.uint8]:
        """Turn raw pixel values (N, H, W, bands) into the most likely class (N, H, W), the first of equals."""
        return np.stack([most_likely(logits) for logits in self.run(images)])

    def _tell_kind(self) -> None:
        """Tell logits from probabilities by the answer to noise, so that no image that comes later decides it."""
        size = self.file.resizing.size
        for sides in [size] if size is not None else [(side, side) for side in _TRIALS]:
            noise = np.random.default_rng(0).integers(0, 256, (1, self.bands, *sides), dtype=np.uint8)
            with suppress(ModelError):  # what is wrong is said when an image comes
                self.file.logits(noise)
                return


def count_bands(network: Network, adapter: Adapter) -> int:
    """Return how many bands a file's network takes, by the shape of its input, else by its adapter, else three.

    Raises:
        ModelError: It takes no images.
    """
    port = network.images
    if len(port.shape) != 4:
        raise ModelError(
            f"{network.path}: its input '{port.name}' has {len(port.shape)} axes; a network takes images (4 axes)"
        )
    first, last = port.shape[1], port.shape[3]
    if adapter.layout is not None:
        bands = first if adapter.layout == "NCHW" else last
    elif first is None or last is None:
        bands = first or last
    else:
        bands = min(first, last)
    if bands is None:
        bands = len(adapter.mean) if isinstance(adapter.mean, list) else 3
    return bands


def _numbered(network: Network, adapter: Adapter, bands: int) -> list[str]:
    """Name the channels of a file's answer by number.

    Raises:
        ModelError: They can't be counted.
    """
    number = output_number(network, adapter)
    port = network.output(number)
    layout = adapter.layout or usual_layout(network, bands)
    channels = port.shape[1 if layout == "NCHW" else 3] if len(port.shape) == 4 else None
    labels = channels == 1 and port.dtype.kind in "iu" and port.quantization is None
    if channels is None or labels or adapter.output == "labels":
        raise ModelError(
            f"{network.path} doesn't say how many classes its output '{port.name}' tells apart; name them in order in "
            f"{network.path.name}.yaml beside it: classes: [..., ...]"
        )
    return [f"class {index}" for index in range(max(2, channels))]
