"""A network that takes raw pixels of any size and carries its own description."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segshrink.classes import ClassMap
from segshrink.errors import ModelError
from segshrink.model_description import CUSTOM, ModelDescription, Normalization
from segshrink.models.outputs import chosen_output
from segshrink.working_size import Resize, sizes_on_the_way


class SegmentationModel(nn.Module):
    """Raw pixels in, logits out; resizes, normalizes, pads and crops inside itself.

    Args:
        network: Takes normalized images (N, bands, H, W) whose sides are multiples of ``description.stride``; gives
            (N, C, h, w) logits at the same or a smaller size, (N, 1, h, w) if ``description.sigmoid``; as a tensor, as
            "out" or "logits" of a dictionary or an object, or first of a tuple or list.
        description: What the model is; its number of classes is C.

    Attributes:
        network: The network; its weights are all the weights there are.
        description: The description; ``mean`` and ``std`` come from it and are not saved with the weights.

    Example:
        >>> from segshrink import ClassMap, build_model
        >>> model = build_model("mobile", ClassMap.build(["Land", "Water"])).eval()
        >>> model(torch.zeros(1, 3, 333, 250, dtype=torch.uint8)).shape
        torch.Size([1, 2, 333, 250])
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, description: ModelDescription) -> None:
        super().__init__()
        self.network = network
        self.description = description
        self.register_buffer("mean", _per_band(description.normalization.mean), persistent=False)
        self.register_buffer("std", _per_band(description.normalization.std), persistent=False)

    @classmethod
    def wrap(
        cls,
        network: nn.Module,
        *,
        classes: ClassMap | Sequence[str],
        bands: int | None = None,
        normalization: Normalization | str = "imagenet",
        stride: int | None = None,
        dtype: str = "uint8",
    ) -> Self:
        """Describe a network of any library, so that it takes raw pixels and can be saved and exported.

        The network is the given one, not a copy. ``load_model(folder, network=...)`` brings it back once it was saved.

        Args:
            network: As above; its output has a channel for each class, or one for two classes, the background first.
            classes: What its channels mean: a class map, or names.
            bands: Bands of an image; by default as many as its first convolution takes.
            normalization: What it was trained with, for pixels from 0 to 255: "imagenet", "half" or numbers.
            stride: The sides of images are padded to a multiple of this many pixels; by default as the network's own
                ``stride`` or an encoder of segmentation-models-pytorch says, else 32.
            dtype: Kind of the raw pixel values: "uint8", "uint16", "int16" or "float32".

        Raises:
            ModelError: The network can't be run on a small image, or has another number of channels; the normalization
                is that of pixels from 0 to 1, and the raw ones are whole numbers.

        Example:
            >>> model = SegmentationModel.wrap(nn.Conv2d(3, 2, 1), classes=["ground", "roof"])
            >>> model(torch.zeros(1, 3, 20, 30, dtype=torch.uint8)).shape
            torch.Size([1, 2, 20, 30])
        """
        from segshrink.models.dry_run import bands_of
        from segshrink.models.own_network import count_channels, own_stride

        classes = classes if isinstance(classes, ClassMap) else ClassMap.build(classes)
        bands = bands_of(network) if bands is None else bands
        name = type(network).__name__
        stride = own_stride(network, bands) if stride is None else stride
        channels = count_channels(network, classes, bands=bands, stride=stride, name=name)
        if isinstance(normalization, str):
            normalization = Normalization.named(normalization, bands)
        if normalization.for_unit_pixels and dtype != "float32":
            raise ModelError(
                f"mean {normalization.mean} and std {normalization.std} are for pixels from 0 to 1, not for {dtype} "
                "numbers; multiply both by the one that stands for 1, such as 255"
            )
        sigmoid = channels < len(classes)
        description = ModelDescription(
            f"{CUSTOM}{name}", classes, bands, normalization, stride, dtype=dtype, sigmoid=sigmoid
        )
        weight = next(network.parameters(), torch.empty(0))
        return cls(network, description).to(weight.device)

    @property
    def num_classes(self) -> int:
        """How many logits a pixel gets."""
        return len(self.description.classes.names)

    def forward(self, images: Tensor) -> Tensor:
        """Segment images of any size.

        Images are brought to the description's working size first, and logits back at last. In between, sides are
        padded right and bottom to a multiple of the stride by repeating the edge, and to twice the stride at least, so
        that batch normalization has more than one value to average even in training; logits are cropped back.

        Args:
            images: Raw pixel values (N, bands, H, W), uint8, another whole-number type, or float; H, W ≥ 1.

        Returns:
            Logits (N, C, H, W), float32 whatever autocast says.

        Raises:
            ModelError: Not four dimensions, another number of bands, or an empty image.
        """
        self._check(images)
        resize, size = self.description.resize, images.shape[-2:]
        if resize is None:
            return self._padded(images)
        logits = self._padded(at_working_size(images, resize))
        return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)

    def _padded(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        stride = self.description.stride
        below, right = (max(-(-side // stride), 2) * stride - side for side in (height, width))
        if not (below or right):
            return self.forward_aligned(images)
        padded = F.pad(self.normalize(images), (0, right, 0, below), mode="replicate")
        return self._logits(padded)[:, :, :height, :width]

    def forward_aligned(self, images: Tensor) -> Tensor:
        """Segment images whose sides are multiples of ``description.stride``, without a look at their size.

        This is ``forward`` without resizing, padding and checks: what exporters trace.
        """
        return self._logits(self.normalize(images))

    def normalize(self, images: Tensor) -> Tensor:
        """Turn raw pixel values of any type into what the network takes, (x - mean) / std, in float32."""
        return (images.to(torch.float32) - self.mean) / self.std

    def with_resize(self, resize: Resize | None) -> SegmentationModel:
        """Return the same network, not a copy of it, that works at another size; None: at that of the images."""
        changed = SegmentationModel(self.network, replace(self.description, resize=resize))
        return changed.to(self.mean.device)

    def save(self, folder: Path, *, overwrite: bool = False) -> None:
        """Write ``config.json`` and ``model.safetensors`` into ``folder``, whole or not at all.

        Args:
            folder: Where to; a model folder that stands there is replaced.
            overwrite: Replace two files of other origin as well; all other files stay in the folder.

        Raises:
            FileError: The folder can't be written, or holds anything other than a model.
        """
        from segshrink.models.folder import save_model

        save_model(self, Path(folder), overwrite=overwrite)

    def _logits(self, normalized: Tensor) -> Tensor:
        weight = next(self.network.parameters(), None)
        if weight is not None and weight.is_floating_point() and weight.dtype != normalized.dtype:
            normalized = normalized.to(weight.dtype)
        try:
            output = self.network(normalized)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise ModelError(
                f"'{self.description.id}' averages whole images in batch normalization and can't train on a batch of "
                "one; give a batch of at least two"
            ) from error
        # Losses and argmax want float32, and so does smooth interpolation.
        logits = chosen_output(output, name=self.description.id).float()
        if logits.ndim != 4:
            mode = "in training" if self.network.training else "in use"
            raise ModelError(
                f"'{self.description.id}' answers with {tuple(logits.shape)} {mode}, expected logits (N, C, h, w); let "
                "it give logits alone, or as 'out'"
            )
        if logits.shape[-2:] != normalized.shape[-2:]:
            logits = F.interpolate(logits, size=normalized.shape[-2:], mode="bilinear", align_corners=False)
        if self.description.sigmoid:
            logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
        return logits

    def _check(self, images: Tensor) -> None:
        bands = self.description.bands
        if images.ndim != 4:
            raise ModelError(f"images must be (N, bands, H, W), found shape {tuple(images.shape)}; add what is missing")
        if images.shape[1] != bands:
            raise ModelError(
                f"'{self.description.id}' takes {bands} bands, found {images.shape[1]}; choose bands to match"
            )
        if 0 in images.shape:
            raise ModelError(f"images must not be empty, found shape {tuple(images.shape)}")

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move or convert the model; ``mean`` and ``std`` stay float32, since 8 bits of mantissa spoil raw pixels."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.mean.dtype != torch.float32 and not self.mean.is_meta:
            device = self.mean.device
            self.mean = _per_band(self.description.normalization.mean).to(device)
            self.std = _per_band(self.description.normalization.std).to(device)
        return self


def at_working_size(images: Tensor, resize: Resize) -> Tensor:
    """Bring images, or other maps (N, channels, H, W), to their working size; float32."""
    maps = images.to(torch.float32)
    for size in sizes_on_the_way(resize, *images.shape[-2:]):
        maps = F.interpolate(maps, size=size, mode="bilinear", align_corners=False)
    return maps


def count_parameters(model: nn.Module) -> int:
    """Count the trainable and frozen parameters of a module; running averages are none."""
    return sum(parameter.numel() for parameter in model.parameters())


def _per_band(values: tuple[float, ...]) -> Tensor:
    return torch.tensor(values, dtype=torch.float32).reshape(1, -1, 1, 1)
