"""How a network without PyTorch takes pixels: what its adapter says, completed and checked by what its file says."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segshrink.config import Adapter
from segshrink.errors import ConfigError, ModelError
from segshrink.teachers.runtimes import Runner

# Largest raw value of an image that a network of bytes takes.
_LARGEST = 255


@dataclass(frozen=True)
class Intake:
    """Turns raw pixels into what a network takes.

    Attributes:
        path: The network's file, for messages.
        layout: Order of the axes.
        size: Height and width that it takes; None: any.
        dtype: Type of its numbers.
        bgr: Whether the first three bands are turned round.
        mean: One value a band, in its order.
        std: One value a band, in its order.
        quantization: Scale and zero point of its integers; None: integers are the pixel values themselves.
    """

    path: str
    layout: Literal["NCHW", "NHWC"]
    size: tuple[int, int] | None
    dtype: np.dtype[Any]
    bgr: bool
    mean: tuple[float, ...]
    std: tuple[float, ...]
    quantization: tuple[float, int] | None

    def array(self, images: Tensor) -> NDArray[Any]:
        """Return raw pixels (N, bands, h, w) as the network takes them.

        Raises:
            ModelError: It takes 8-bit pixels and these are larger or negative.
        """
        values = images.float()
        if self.bgr:
            values = values[:, [2, 1, 0, *range(3, values.shape[1])]]
        if self.dtype.kind == "f" or self.quantization is not None:
            shape = (1, len(self.mean), 1, 1)
            values = (values - torch.tensor(self.mean).view(shape)) / torch.tensor(self.std).view(shape)
        elif not 0 <= float(values.min()) <= float(values.max()) <= _LARGEST:
            raise ModelError(
                f"{self.path} takes 8-bit pixels (0 to {_LARGEST}), found {float(values.min()):g} to "
                f"{float(values.max()):g}; say in its adapter how they are scaled ('mean', 'std')"
            )
        if self.layout == "NHWC":
            values = values.permute(0, 2, 3, 1)
        return self._integers(values) if self.dtype.kind in "iu" else values.numpy().astype(self.dtype)

    def _integers(self, values: Tensor) -> NDArray[Any]:
        limits = np.iinfo(self.dtype)
        if self.quantization is None:
            values = values + limits.min
        else:
            scale, zero = self.quantization
            values = values / scale + zero
        integers: NDArray[Any] = values.round().clamp(limits.min, limits.max).numpy().astype(self.dtype)
        return integers


def read_intake(runner: Runner, adapter: Adapter, *, bands: int) -> Intake:
    """Complete an adapter by what the file says.

    Args:
        runner: The network.
        adapter: What is said about it.
        bands: Bands of the images.

    Raises:
        ConfigError: The adapter contradicts itself, the images or the file.
        ModelError: The network takes no images, or images with other bands.
    """
    path, port = runner.path, runner.input
    if len(port.shape) != 4:
        raise ModelError(f"{path}: its input '{port.name}' has {len(port.shape)} axes; a teacher takes images (4 axes)")
    layout = adapter.layout or _layout(runner, bands)
    channels = port.shape[1 if layout == "NCHW" else 3]
    if channels not in (None, bands):
        said = f" (as the adapter's 'layout: {adapter.layout}' has it)" if adapter.layout else ""
        raise ModelError(f"{path} takes {channels} bands{said}, but the images have {bands}; use another teacher")
    if runner.description is not None and runner.description.bands != bands:
        raise ModelError(f"{path} takes {runner.description.bands} bands, but the images have {bands}")
    if adapter.dtype is not None and adapter.dtype != port.dtype.name:
        raise ConfigError(f"{path} takes {port.dtype.name} numbers, but the adapter says 'dtype: {adapter.dtype}'")
    if adapter.order == "bgr" and bands < 3:
        raise ConfigError(f"{path}: the adapter says 'order: bgr', but the images have {bands} band(s)")
    mean, std = _per_band("mean", adapter.mean, bands), _per_band("std", adapter.std, bands)
    if min(std) <= 0:
        raise ConfigError(f"the adapter's 'std' must be above 0, found {min(std):g}")
    scaled = any(mean) or any(value != 1 for value in std)
    if scaled and runner.description is not None:
        raise ConfigError(f"{path} was written by segshrink and scales pixels itself; leave out 'mean' and 'std'")
    if port.dtype.kind in "iu" and port.dtype.itemsize > 1:
        raise ModelError(f"{path} takes {port.dtype.name} numbers; images are given as float32, float16, uint8 or int8")
    if port.dtype.kind in "iu" and scaled and port.quantization is None:
        raise ConfigError(
            f"{path} takes {port.dtype.name} numbers and doesn't say their scale, so the adapter's 'mean' and 'std' "
            "can't be kept; leave them out"
        )
    size = _size(runner, adapter, layout)
    if size is None and adapter.fit != "tile":
        raise ConfigError(f"{path} takes images of any size, but the adapter says 'fit: {adapter.fit}'; say 'size' too")
    return Intake(
        path=str(path),
        layout=layout,
        size=size,
        dtype=port.dtype,
        bgr=adapter.order == "bgr",
        mean=mean,
        std=std,
        quantization=port.quantization if scaled else None,
    )


def _layout(runner: Runner, bands: int) -> Literal["NCHW", "NHWC"]:
    """Tell the order of axes from where the bands are; if that doesn't say, it is the one usual for the file."""
    first, last = (runner.input.shape[axis] == bands for axis in (1, 3))
    if first == last:
        return runner.layout
    return "NCHW" if first else "NHWC"


def _size(runner: Runner, adapter: Adapter, layout: str) -> tuple[int, int] | None:
    height, width = runner.input.shape[2:4] if layout == "NCHW" else runner.input.shape[1:3]
    if adapter.size is None:
        if height is not None and width is not None:
            return height, width
        if height is None and width is None:
            return None
        raise ConfigError(
            f"{runner.path} takes images of height {height or 'any'} and width {width or 'any'}; say 'size' in its "
            "adapter"
        )
    wanted = (adapter.size, adapter.size) if isinstance(adapter.size, int) else adapter.size
    if min(wanted) < 1:
        raise ConfigError(f"the adapter's 'size' must be at least 1 pixel, found {wanted[0]} x {wanted[1]}")
    if height not in (None, wanted[0]) or width not in (None, wanted[1]):
        raise ConfigError(
            f"{runner.path} takes images of {height or 'any'} x {width or 'any'} pixels (height x width), but the "
            f"adapter says 'size' {wanted[0]} x {wanted[1]}; leave it out"
        )
    return wanted


def _per_band(name: str, values: float | list[float], bands: int) -> tuple[float, ...]:
    listed = values if isinstance(values, list) else [values] * bands
    if len(listed) != bands:
        raise ConfigError(f"the adapter's '{name}' has {len(listed)} values, but the images have {bands} bands")
    if not all(math.isfinite(value) for value in listed):
        raise ConfigError(f"the adapter's '{name}' must be finite numbers, found {listed}")
    return tuple(listed)
