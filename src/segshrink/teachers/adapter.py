"""How a network takes pixels and what it answers: its adapter, completed and checked by what its file says."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from segshrink.config import Adapter, TeacherSource, keras_adapter, load_adapter
from segshrink.errors import ConfigError, ModelError, nearest
from segshrink.model_description import Normalization
from segshrink.model_file import ModelFile, keras_path
from segshrink.prediction.runtimes.network import Network, Port
from segshrink.teachers.probabilities import (
    channels_for,
    check_probabilities,
    one_hot_logits,
    tell_probabilities,
    to_log_probabilities,
    two_class_logits,
)

# Largest raw value of an image that a network of bytes takes.
_LARGEST = 255

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

    def tensor(self, images: Tensor) -> Tensor:
        """Return raw pixels (N, bands, h, w) as the network takes them.

        Raises:
            ModelError: It takes 8-bit pixels and these are larger or negative.
        """
        values = images.float()
        if self.bgr:
            values = values[:, [2, 1, 0, *range(3, values.shape[1])]]
        integers = self.dtype.kind in "iu"
        if not integers or self.quantization is not None:
            statistics = self.scaling.mean, self.scaling.std
            mean, std = (torch.tensor(each, device=values.device).view(1, -1, 1, 1) for each in statistics)
            values = (values - mean) / std
        elif not 0 <= float(values.min()) <= float(values.max()) <= _LARGEST:
            raise ModelError(
                f"{self.name} takes 8-bit pixels (0 to {_LARGEST}), found {float(values.min()):g} to "
                f"{float(values.max()):g}; say in its adapter how they are scaled ('mean', 'std')"
            )
        if integers:
            limits = np.iinfo(self.dtype)
            scale, zero = self.quantization or (1.0, limits.min)
            values = (values / scale + zero).round().clamp(limits.min, limits.max)
        if self.layout == "NHWC":
            values = values.permute(0, 2, 3, 1)
        return values.to(getattr(torch, self.dtype.name))


@dataclass
class OutputFormat:
    """How one output of a network is read.

    Attributes:
        name: How messages call the network.
        kind: What the output holds. "auto" becomes "logits" or "probabilities" at the first batch.
        classes: K, how many classes the network knows; None: as many as it has channels.
        axis: Where its channels are, 1 or 3; None: it has no such axis.
        confidence: Probability of the class that a label map names.
        number: The output's position.
        port: What the file says about it; None: there is no file.
    """

    name: str
    kind: Kind = "auto"
    classes: int | None = None
    axis: Literal[1, 3] | None = 1
    confidence: float = 0.9
    number: int = 0
    port: Port | None = None

    @property
    def returns_probabilities(self) -> bool | None:
        """Whether the network answers with probabilities; None: not known yet."""
        return None if self.kind == "auto" else self.kind == "probabilities"

    def logits(self, answer: Tensor) -> Tensor:
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
            maps = (answer[:, None] if self.axis is None else answer.movedim(self.axis, 1)).contiguous()
        classes = maps.shape[1] if self.classes is None else self.classes
        if maps.shape[1] not in ((1,) if self.kind == "labels" else channels_for(classes)):
            raise self._misshapen(answer)
        if self.kind == "labels":
            return one_hot_logits(maps[:, 0], classes, self.confidence, self.name)
        values, tolerance = maps.float(), 1e-2
        if self.port is not None and self.port.quantization is not None:
            scale, zero = self.port.quantization
            values = (values - zero) * scale
            tolerance = max(tolerance, classes * scale / 2)  # each rounded probability may be half a step off
        if self.kind == "auto":
            self.kind = "probabilities" if tell_probabilities(values, self.name, tolerance=tolerance) else "logits"
        elif self.kind == "probabilities":
            check_probabilities(values, self.name, tolerance=tolerance)
        if values.shape[1] == 1:
            return two_class_logits(values, probabilities=self.kind == "probabilities")
        return to_log_probabilities(values) if self.kind == "probabilities" else values

    def _misshapen(self, answer: Tensor) -> ModelError:
        channels = 1 if self.kind == "labels" else self.classes or "classes"
        expected = {None: "(N, h, w)", 1: f"(N, {channels}, h, w)", 3: f"(N, h, w, {channels})"}[self.axis]
        output = f": '{self.port.name}'" if self.port else ""
        return ModelError(f"{self.name}{output} answers {tuple(answer.shape)}, expected {expected}")


def adapter_of(source: TeacherSource) -> Adapter:
    """Return how a teacher takes pixels and what it answers, from the source or the file that it names.

    Of a Keras file the file beside it is read where the source says nothing.

    Raises:
        FileError: The adapter file is missing or unreadable.
        ConfigError: The adapter file is wrong.
    """
    if isinstance(source.adapter, Path):
        return load_adapter(source.adapter)
    if source.adapter is None and (path := keras_path(source.source)):
        return keras_adapter(ModelFile(path))
    return source.adapter or Adapter()


def check_order(adapter: Adapter, bands: int, name: str) -> None:
    """Refuse to turn round bands that images don't have.

    Raises:
        ConfigError: There are fewer than three.
    """
    if adapter.order == "bgr" and bands < 3:
        raise ConfigError(f"{name}: the adapter says 'order: bgr', but the images have {bands} band(s)")


def read_input(network: Network, adapter: Adapter, *, bands: int, described: bool) -> tuple[InputFormat, Size | None]:
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
        raise ModelError(f"{path}: its input '{port.name}' has {len(port.shape)} axes; a teacher takes images (4 axes)")
    layout = adapter.layout or _layout(network, bands)
    channels = port.shape[1 if layout == "NCHW" else 3]
    if channels not in (None, bands):
        reason = f" (as the adapter's 'layout: {adapter.layout}' has it)" if adapter.layout else ""
        raise ModelError(f"{path} takes {channels} bands{reason}, but the images have {bands}; use another teacher")
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


def read_output(network: Network, adapter: Adapter, classes: int, *, named: str, layout: str) -> OutputFormat:
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
    number = _output_number(network, adapter.output_name)
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
    return OutputFormat(str(network.path), kind, classes, axis, adapter.confidence, number, port)


def _layout(network: Network, bands: int) -> Literal["NCHW", "NHWC"]:
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


def _output_number(network: Network, output: str | int) -> int:
    names = network.outputs
    if isinstance(output, str):
        if output not in names:
            raise ConfigError(f"{network.path} has no output '{output}'{nearest(output, names)}")
        return names.index(output)
    if not 0 <= output < len(names):
        raise ConfigError(
            f"{network.path} has {len(names)} output(s) ({', '.join(names)}), numbered from 0; the adapter's "
            f"'output_name' is {output}"
        )
    return output


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
