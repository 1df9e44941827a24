"""A foreign network of torch behind an adapter: raw pixels in, one map of scores out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from segshrink.config import Adapter
from segshrink.errors import ConfigError, ModelError, nearest
from segshrink.losses.shapes import resized
from segshrink.model_description import Normalization
from segshrink.teachers.output_format import one_hot_logits
from segshrink.teachers.resizing import Fitting

# What torchvision and others call the output that counts.
_MAIN_OUTPUTS = ("out", "logits")


class AdaptedNetwork(nn.Module):
    """A network that gets its pixels, and whose answer is read, as its adapter says.

    Args:
        network: The network.
        adapter: What is said about it; what it answers may be logits or probabilities (N, K, h, w), or with ``output``
            "labels" class indices (N, h, w) or (N, 1, h, w).
        bands: Bands of the images.
        classes: K; needed for labels.
        scaled: Whether pixels are scaled here; a ``SegmentationModel`` does it itself.
        name: How messages call it.
        origin: What its answers depend on besides its class and weights, such as the arguments it was made with.

    Raises:
        ConfigError: The adapter contradicts itself or the images.
        ModelError: A ``std`` isn't positive.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        adapter: Adapter,
        *,
        bands: int,
        classes: int,
        scaled: bool = True,
        name: str = "the teacher",
        origin: str = "",
    ) -> None:
        super().__init__()
        if adapter.order == "bgr" and bands < 3:
            raise ConfigError(f"{name}: its adapter says 'order: bgr', but the images have {bands} band(s)")
        self.network = network
        self.adapter = adapter
        self.name = name
        self.origin = origin
        self._classes = classes
        scaling = adapter if scaled else Adapter()
        normalization = adapter_normalization(scaling, bands)
        self.register_buffer("mean", torch.tensor(normalization.mean).reshape(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(normalization.std).reshape(1, -1, 1, 1), persistent=False)
        size = (adapter.size, adapter.size) if isinstance(adapter.size, int) else adapter.size
        self._fitting = size and Fitting(size, adapter.fit, adapter.place, adapter.fill)

    @property
    def sees_whole_scenes(self) -> bool:
        """Whether it brings an image of any size to its own by itself, so that nothing else should tile it."""
        return self._fitting is not None

    def forward(self, images: Tensor) -> Tensor:
        """Return scores (N, K, H, W) at the images' size.

        Args:
            images: Raw pixel values (N, bands, H, W).

        Raises:
            ModelError: The network doesn't answer with a map of classes.
        """
        pixels = images.float()
        if self._fitting is None:
            return resized(self._scores(pixels), (images.shape[2], images.shape[3]))
        # Images are fitted on the CPU.
        device = self.mean.device
        return self._fitting.answers(pixels.cpu(), lambda fitted: self._scores(fitted.to(device)).cpu()).to(device)

    def _scores(self, pixels: Tensor) -> Tensor:
        if self.adapter.order == "bgr":
            pixels = torch.cat([pixels[:, :3].flip(1), pixels[:, 3:]], dim=1)
        pixels = (pixels - self.mean) / self.std
        if self.adapter.dtype is not None:
            dtype: torch.dtype = getattr(torch, self.adapter.dtype)
            pixels = (pixels if dtype.is_floating_point else pixels.round()).to(dtype)
        channels_last = self.adapter.layout == "NHWC"
        output = chosen_output(
            self.network(pixels.permute(0, 2, 3, 1) if channels_last else pixels), self.adapter.output_name, self.name
        )
        if channels_last and output.ndim == 4:
            output = output.permute(0, 3, 1, 2)
        if self.adapter.output == "labels":
            labels = output[:, 0] if output.ndim == 4 and output.shape[1] == 1 else output
            if labels.ndim == 3:
                return one_hot_logits(labels, self._classes, self.adapter.confidence, self.name)
        if output.ndim != 4:
            expected = "labels (N, H, W)" if self.adapter.output == "labels" else "scores (N, classes, H, W)"
            raise ModelError(f"{self.name} answers {tuple(output.shape)}, expected {expected}; correct its adapter")
        return output.float()


def adapter_normalization(adapter: Adapter, bands: int) -> Normalization:
    """Return the scaling that an adapter writes down, one number for each band or for all."""
    mean, std = (value if isinstance(value, list) else [value] * bands for value in (adapter.mean, adapter.std))
    if len(mean) != bands or len(std) != bands:
        raise ConfigError(
            f"the adapter has {len(mean)} value(s) for 'mean' and {len(std)} for 'std', but images have {bands} bands"
        )
    return Normalization(tuple(mean), tuple(std))


def chosen_output(output: Any, wanted: str | int, name: str) -> Tensor:
    """Return one of a network's outputs: by name, by position, or the only one there is.

    Args:
        output: A tensor; a mapping or a sequence of tensors, or an object with tensors as attributes.
        wanted: Name or position; of named outputs, position 0 means "out" or "logits" where there is one.
        name: How messages call the network.

    Raises:
        ConfigError: There is no such output.
        ModelError: It isn't a tensor.
    """
    if not isinstance(output, Tensor):
        output = _picked(output, wanted, name)
    if not isinstance(output, Tensor):
        raise ModelError(
            f"{name} answers with {type(output).__name__}, expected a tensor; say which output in its adapter "
            "('output_name')"
        )
    return output


def _picked(output: Any, wanted: str | int, name: str) -> Any:
    if isinstance(output, Mapping):
        names = [str(key) for key in output]
        if wanted == 0:
            wanted = next((key for key in _MAIN_OUTPUTS if key in names), names[0] if names else 0)
        if isinstance(wanted, int) and wanted < len(names):
            wanted = names[wanted]
        if wanted not in names:
            raise ConfigError(f"{name} has no output '{wanted}'{nearest(str(wanted), names)}")
        return output[wanted]
    if isinstance(wanted, str):
        if not hasattr(output, wanted):
            raise ConfigError(f"{name} has no output '{wanted}'; its answer is of type {type(output).__name__}")
        return getattr(output, wanted)
    if isinstance(output, Sequence):
        if not 0 <= wanted < len(output):
            raise ConfigError(f"{name} has {len(output)} output(s), numbered from 0; its adapter asks for {wanted}")
        return output[wanted]
    return getattr(output, "logits", output)
