"""How a file of anybody takes pixels and what it answers: its adapter, completed and checked by what the file says."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from segshrink.config import Adapter
from segshrink.errors import ConfigError, ModelError
from segshrink.model_description import Normalization
from segshrink.prediction.probabilities import (
    channels_for,
    check_labels,
    check_probabilities,
    peak,
    tell_probabilities,
)
from segshrink.prediction.resizing import Resizing
from segshrink.prediction.runtimes.network import Network, Port, output_number

# Largest raw value of an image that a network of bytes takes.
_LARGEST = 255
# Probabilities are at least this before their logarithm is taken.
_LEAST = 1e-7

Kind = Literal["auto", "logits", "probabilities", "labels"]
Size = tuple[int, int]


@dataclass(frozen=True)
class InputFormat:
    """Turns raw pixels into what a network takes.

    Attributes:
        name: How messages call the network.
        scaling: Mean and standard deviation of each band, in the network's order.
        layout: Order of the axes.
        dtype: Type of its numbers.
        bgr: Whether the first three bands are turned round.
        quantization: Scale and zero point of its integers; None: integers are the pixel values themselves.
    """

    name: str
    scaling: Normalization
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    dtype: np.dtype[Any] = field(default=np.dtype(np.float32))
    bgr: bool = False
    quantization: tuple[float, int] | None = None

    def array(self, images: NDArray[Any]) -> NDArray[Any]:
        """Return raw pixels (N, bands, h, w) as the network takes them.

        Raises:
            ModelError: It takes 8-bit pixels and these are larger or negative.
        """
        values = images.astype(np.float32)
        if self.bgr:
            values = values[:, [2, 1, 0, *range(3, values.shape[1])]]
        integers = self.dtype.kind in "iu"
        if not integers or self.quantization is not None:
            mean, std = (np.array(each, np.float32).reshape(-1, 1, 1) for each in (self.scaling.mean, self.scaling.std))
            values = (values - mean) / std
        elif not 0 <= float(values.min()) <= float(values.max()) <= _LARGEST:
            raise ModelError(
                f"{self.name} takes 8-bit pixels (0 to {_LARGEST}), found {float(values.min()):g} to "
                f"{float(values.max()):g}; say in its adapter how they are scaled ('mean', 'std')"
            )
        if integers:
            limits = np.iinfo(self.dtype)
            scale, zero = self.quantization or (1.0, limits.min)
            values = (values / np.float32(scale) + zero).round().clip(limits.min, limits.max)
        if self.layout == "NHWC":
            values = values.transpose(0, 2, 3, 1)
        return np.ascontiguousarray(values, self.dtype)


@dataclass
class OutputFormat:
    """How one output of a network is read.

    Attributes:
        name: How messages call the network.
        kind: What the output holds. "auto" becomes "logits" or "probabilities" at the first batch.
        classes: K, how many classes the network knows.
        axis: Where its channels are, 1 or 3; None: it has no such axis.
        confidence: Probability of the class that a label map names.
        number: The output's position.
        port: What the file says about it.
    """

    name: str
    kind: Kind
    classes: int
    axis: Literal[1, 3] | None
    port: Port
    confidence: float = 0.9
    number: int = 0

    @property
    def returns_probabilities(self) -> bool | None:
        """Whether the network answers with probabilities; None: not known yet."""
        return None if self.kind == "auto" else self.kind == "probabilities"

    def logits(self, answer: NDArray[Any]) -> NDArray[np.float32]:
        """Return float32 logits (N, K, h, w).

        Probabilities become their logarithms, one channel z becomes (0, z), and a label map becomes logits whose
        softmax is ``confidence`` at the class that it names.

        Args:
            answer: The output, as the network gave it.

        Raises:
            ModelError: Its shape, its numbers or its labels aren't what is said.
        """
        if answer.ndim != (3 if self.axis is None else 4):
            raise self._misshapen(answer)
        maps = answer
        if self.axis != 1:
            maps = answer[:, None] if self.axis is None else np.moveaxis(answer, self.axis, 1)
        if maps.shape[1] not in ((1,) if self.kind == "labels" else channels_for(self.classes)):
            raise self._misshapen(answer)
        if self.kind == "labels":
            return self._of_labels(maps[:, 0])
        values, tolerance = np.ascontiguousarray(maps, np.float32), 1e-2
        if self.port.quantization is not None:
            scale, zero = self.port.quantization
            values = (values - zero) * np.float32(scale)
            tolerance = max(tolerance, self.classes * scale / 2)  # each rounded probability may be half a step off
        if self.kind == "auto":
            self.kind = "probabilities" if tell_probabilities(values, self.name, tolerance=tolerance) else "logits"
        elif self.kind == "probabilities":
            check_probabilities(values, self.name, tolerance=tolerance)
        if self.kind == "probabilities":
            least = np.float32(_LEAST)
            if values.shape[1] > 1:
                return np.log(np.maximum(values, least))
            chance = values.clip(least, 1 - least)
            values = np.log(chance / (1 - chance))
        return values if values.shape[1] > 1 else np.concatenate([np.zeros_like(values), values], axis=1)

    def _of_labels(self, labels: NDArray[Any]) -> NDArray[np.float32]:
        index = (labels.round() if labels.dtype.kind == "f" else labels).astype(np.int64)
        check_labels(int(index.min()), int(index.max()), self.classes, self.name)
        logits = np.zeros((len(index), self.classes, *index.shape[1:]), np.float32)
        np.put_along_axis(logits, index[:, None], np.float32(peak(self.classes, self.confidence)), axis=1)
        return logits

    def _misshapen(self, answer: NDArray[Any]) -> ModelError:
        channels = 1 if self.kind == "labels" else self.classes
        expected = {None: "(N, h, w)", 1: f"(N, {channels}, h, w)", 3: f"(N, h, w, {channels})"}[self.axis]
        return ModelError(f"{self.name}: '{self.port.name}' answers {answer.shape}, expected {expected}")


@dataclass
class AdaptedFile:
    """A network in a file with how it takes pixels and what it answers.

    Attributes:
        network: The file.
        takes: How it takes pixels.
        gives: How its answers are read.
        resizing: How images become the size that it takes.
        batches: Gets what the network is given, while it is a list.
    """

    network: Network
    takes: InputFormat
    gives: OutputFormat
    resizing: Resizing
    batches: list[NDArray[Any]] | None = None

    @classmethod
    def of(
        cls, network: Network, adapter: Adapter, classes: int, *, bands: int, described: bool, named: str
    ) -> AdaptedFile:
        """Complete an adapter by what a file says.

        Args:
            network: The file.
            adapter: What is said about it.
            classes: K, how many classes it should know.
            bands: Bands of the images.
            described: Whether segshrink wrote the file, which then scales pixels itself.
            named: Where the number of classes comes from, for messages.

        Raises:
            ConfigError: The adapter contradicts itself, the images or the file.
            ModelError: The network takes no images, or images with other bands; its output is no map, or has other
                channels than classes.
        """
        takes, size = _read_input(network, adapter, bands=bands, described=described)
        gives = _read_output(network, adapter, classes, named=named, layout=takes.layout)
        return cls(network, takes, gives, Resizing.of(adapter, size))

    def logits(self, pixels: NDArray[Any]) -> NDArray[np.float32]:
        """Return logits (N, K, h, w) for raw pixels (N, bands, H, W) of a size that the network takes."""
        return self.gives.logits(self.answer(pixels))

    def answer(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """Return the network's output for raw pixels (N, bands, H, W); a fixed batch size is kept by repetition.

        Raises:
            ModelError: The network fails on images of this size.
        """
        images = self.takes.array(pixels)
        step = self.network.images.shape[0] or len(images)
        answers = []
        for start in range(0, len(images), step):
            part = images[start : start + step]
            missing = step - len(part)
            batch = np.concatenate([part, np.repeat(part[-1:], missing, axis=0)]) if missing else part
            answers.append(self._run(batch)[: len(part)])
        return np.concatenate(answers)

    def _run(self, batch: NDArray[Any]) -> NDArray[Any]:
        if self.batches is not None:
            self.batches.append(batch)
        try:
            answer = self.network.run(batch, self.gives.number)
        except ModelError as error:
            raise ModelError(f"{error}; if it takes one size only, say 'size' in its adapter") from error
        if answer.ndim == 0 or len(answer) != len(batch):
            raise ModelError(
                f"{self.network.path} answers {answer.shape} to {len(batch)} image(s); its answer's first axis must "
                "count the images"
            )
        return answer


def check_order(adapter: Adapter, bands: int, name: str) -> None:
    """Refuse to turn round bands that images don't have.

    Raises:
        ConfigError: There are fewer than three.
    """
    if adapter.order == "bgr" and bands < 3:
        raise ConfigError(f"{name}: the adapter says 'order: bgr', but the images have {bands} band(s)")


def _read_input(network: Network, adapter: Adapter, *, bands: int, described: bool) -> tuple[InputFormat, Size | None]:
    """Complete an adapter by what a file says; return how it takes pixels, and the only size that it takes.

    Args:
        network: The file.
        adapter: What is said about it.
        bands: Bands of the images.
        described: Whether segshrink wrote the file, which then scales pixels itself.

    Raises:
        ConfigError: The adapter contradicts itself, the images or the file.
        ModelError: The network takes no images, or images with other bands.
    """
    path, port = network.path, network.images
    if len(port.shape) != 4:
        raise ModelError(f"{path}: its input '{port.name}' has {len(port.shape)} axes; a network takes images (4 axes)")
    layout = adapter.layout or usual_layout(network, bands)
    channels = port.shape[1 if layout == "NCHW" else 3]
    if channels not in (None, bands):
        reason = f" (as the adapter's 'layout: {adapter.layout}' has it)" if adapter.layout else ""
        raise ModelError(f"{path} takes {channels} bands{reason}, but the images have {bands}; use another network")
    if adapter.dtype is not None and adapter.dtype != port.dtype.name:
        raise ConfigError(f"{path} takes {port.dtype.name} numbers, but the adapter says 'dtype: {adapter.dtype}'")
    check_order(adapter, bands, str(path))
    scaling = adapter.normalization(bands)
    scaled = any(scaling.mean) or any(value != 1 for value in scaling.std)
    if scaled and described:
        raise ConfigError(f"{path} was written by segshrink and scales pixels itself; leave out 'mean' and 'std'")
    if port.dtype.kind in "iu" and port.dtype.itemsize > 1:
        raise ModelError(f"{path} takes {port.dtype.name} numbers; images are given as float32, float16, uint8 or int8")
    if port.dtype.kind in "iu" and scaled and port.quantization is None:
        raise ConfigError(
            f"{path} takes {port.dtype.name} numbers and doesn't say their scale, so the adapter's 'mean' and 'std' "
            "can't be kept; leave them out"
        )
    size = _size(network, adapter, layout)
    if size is None and adapter.fit != "tile":
        raise ConfigError(f"{path} takes images of any size, but the adapter says 'fit: {adapter.fit}'; say 'size' too")
    quantization = port.quantization if scaled else None
    return InputFormat(str(path), scaling, layout, port.dtype, adapter.order == "bgr", quantization), size


def _read_output(network: Network, adapter: Adapter, classes: int, *, named: str, layout: str) -> OutputFormat:
    """Find out how a network's output is read, and refuse what can't be.

    Args:
        network: The file.
        adapter: What is said about it.
        classes: K, how many classes it should know.
        named: Where that number comes from, for messages.
        layout: Order of the axes of its input.

    Raises:
        ConfigError: There is no such output, or the output isn't what the adapter says.
        ModelError: The output is no map, or has other channels than classes.
    """
    number = output_number(network, adapter)
    port = network.output(number)
    subject = f"{network.path}: its output '{port.name}' {_shape(port)}"
    if len(port.shape) not in (3, 4):
        raise ModelError(
            f"{subject} is no map of classes; name another in the adapter ('output_name'){_listed(network)}"
        )
    axis = _axis(port, adapter.output, classes, layout)
    channels = 1 if axis is None else port.shape[axis]
    kind: Kind = adapter.output
    whole_numbers = port.dtype.kind in "iu" and port.quantization is None
    if kind == "auto" and channels in (1, None) and (whole_numbers or (channels == 1 and classes > 2)):
        kind = "labels"
    if kind == "labels" and channels not in (1, None):
        raise ConfigError(f"{subject} has {channels} channels, but the adapter says 'output: labels'; correct it")
    if kind != "labels" and channels is not None and channels not in channels_for(classes):
        raise ModelError(
            f"{subject} has {channels} channel(s), but {named}; give its class names in order in the adapter "
            "('classes')"
        )
    return OutputFormat(str(network.path), kind, classes, axis, port, adapter.confidence, number)


def usual_layout(network: Network, bands: int) -> Literal["NCHW", "NHWC"]:
    """Tell the order of axes from where the bands are; if that doesn't say, it is the one usual for the file."""
    first, last = (network.images.shape[axis] == bands for axis in (1, 3))
    if first == last:
        return network.layout
    return "NCHW" if first else "NHWC"


def _size(network: Network, adapter: Adapter, layout: str) -> Size | None:
    path, shape = network.path, network.images.shape
    height, width = shape[2:4] if layout == "NCHW" else shape[1:3]
    if adapter.size is None:
        if height is not None and width is not None:
            return height, width
        if height is None and width is None:
            return None
        raise ConfigError(
            f"{path} takes images of height {height or 'any'} and width {width or 'any'}; say 'size' in its adapter"
        )
    size = (adapter.size, adapter.size) if isinstance(adapter.size, int) else adapter.size
    if min(size) < 1:
        raise ConfigError(f"the adapter's 'size' must be at least 1 pixel, found {size[0]} x {size[1]}")
    if height not in (None, size[0]) or width not in (None, size[1]):
        raise ConfigError(
            f"{path} takes images of {height or 'any'} x {width or 'any'} pixels (height x width), but the adapter "
            f"says 'size' {size[0]} x {size[1]}; leave it out"
        )
    return size


def _axis(port: Port, kind: Kind, classes: int, layout: str) -> Literal[1, 3] | None:
    """Tell which axis holds the channels; None: there is none."""
    if len(port.shape) != 4:
        return None
    fitting = (1,) if kind == "labels" else (*channels_for(classes), 1)
    first, last = port.shape[1] in fitting, port.shape[3] in fitting
    if first != last:
        return 1 if first else 3
    return 1 if layout == "NCHW" else 3


def _shape(port: Port) -> str:
    return f"({', '.join('?' if length is None else str(length) for length in port.shape)})"


def _listed(network: Network) -> str:
    if len(network.outputs) < 2:
        return ""
    ports = [network.output(number) for number in range(len(network.outputs))]
    return ": " + ", ".join(f"{port.name} {_shape(port)}" for port in ports)
