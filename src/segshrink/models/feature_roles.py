"""Roles: what features mean in a network (encoder, decoder, stages by stride), found by watching a dry run."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from segshrink.models.dry_run import bands_of, dry_run, network_of, unwrapped
from segshrink.models.feature_maps import as_map, tensors_in

_ROLE = re.compile(r"encoder|decoder|logits|stage:\d+")
# What libraries call the part that makes features; the classes of an auxiliary head are not the model's.
_ENCODER_NAMES = ("encoder", "backbone")
_AUXILIARY = "aux"
# How far a stride may be from a power of two, in powers: as a border without padding makes it, unlike a patch of 14.
_TOLERANCE = 0.15


@dataclass(frozen=True)
class Role:
    """Features by what they mean.

    Attributes:
        name: "encoder" (the deepest features of the encoder), "decoder" (the last features before the layer that
            makes classes of them), "stage:k" (the encoder's last features at stride 2 ** k), or "logits".
        path: The module's path, "" for the model itself; behind "#" stands the element of its output, "@input" means
            what it is given.
        shape: (C, H, W) at the size of image that was asked for.
        stride: Pixels of the image, as padded, to a position.
    """

    name: str
    path: str
    shape: tuple[int, int, int]
    stride: int


def list_roles(model: nn.Module, *, size: int = 64) -> list[Role]:
    """List the roles that a model's features have, with shapes from a dry run in eval mode.

    Training flags, running averages and random numbers stay as they are.

    Args:
        model: A ``SegmentationModel``, or any network of (N, bands, H, W) images.
        size: Height and width of the image in pixels.

    Raises:
        ModelError: The model can't be run on such an image.
    """
    model = unwrapped(model)
    watch = _Watch(model, size)
    try:
        output = dry_run(model, bands=bands_of(model), size=size)
    finally:
        watch.close()
    encoder = _encoder_features(model, watch)
    roles = [watch.role("encoder", max(reversed(encoder), key=watch.stride))] if encoder else []
    roles += _decoder(model, watch)
    stages = {stage: feature for feature in encoder if (stage := watch.stage(feature)) is not None}
    roles += [watch.role(f"stage:{stage}", feature) for stage, feature in sorted(stages.items())]
    for key, logits in tensors_in(output):
        if as_map(logits, (size, size)) is not None:
            path = f"#{key}" if key else ""
            return [*roles, Role("logits", path, _shape(logits), round(size / logits.shape[2]))]
    return roles


def is_role(name: str) -> bool:
    """Tell whether a name is written like a role."""
    return _ROLE.fullmatch(name) is not None


@dataclass(frozen=True)
class _Seen:
    """A feature map that a module gave.

    The tensor is kept, so that no other gets its memory; its version tells whether it was overwritten afterwards.
    """

    path: str
    key: str
    features: Tensor
    version: int

    def is_same(self, other: Tensor) -> bool:
        return self.features.data_ptr() == other.data_ptr() and self.features.shape == other.shape


class _Watch:
    """Sees what every module of a model gives, in the order in which they finish.

    Attributes:
        image: What the network is given.
        called: Paths of the modules that ran -> the feature maps of their last call.
        layers: Path, output channels and input of every convolution and linear layer, in order.
    """

    def __init__(self, model: nn.Module, size: int) -> None:
        self.image: Tensor | None = None
        self.called: dict[str, list[_Seen]] = {}
        self.layers: list[tuple[str, int, Tensor]] = []
        self._image_size = (size, size)
        self._handles = [network_of(model)[1].register_forward_pre_hook(self._see_image)]
        for path, module in model.named_modules():
            self._handles.append(module.register_forward_hook(partial(self._see, path)))

    def close(self) -> None:
        """Remove all hooks."""
        for handle in self._handles:
            handle.remove()

    def role(self, name: str, feature: _Seen) -> Role:
        """Give features a name."""
        path = f"{feature.path}#{feature.key}" if feature.key else feature.path
        return Role(name, path, _shape(feature.features), self.stride(feature))

    def stride(self, feature: _Seen) -> int:
        """Return how many pixels of the network's image stand behind one row of features."""
        return round(self._image_size[0] / feature.features.shape[2])

    def stage(self, feature: _Seen) -> int | None:
        """Return k where the stride is 2 ** k, else None."""
        power = math.log2(self._image_size[0] / feature.features.shape[2])
        return round(power) if power > -_TOLERANCE and abs(power - round(power)) < _TOLERANCE else None

    def parts(self, path: str) -> list[_Seen]:
        """Return what the outermost modules that ran inside a module gave."""
        prefix = f"{path}." if path else ""
        inside = [inner for inner in self.called if inner.startswith(prefix) and inner != path]
        outermost = [
            inner for inner in inside if not any(inner.startswith(f"{other}.") for other in inside if other != inner)
        ]
        return [feature for inner in outermost for feature in self.called[inner]]

    def _see_image(self, module: nn.Module, inputs: Sequence[Any]) -> None:
        self.image = next((value for _, value in tensors_in(inputs) if value.ndim == 4), None)
        if self.image is not None:
            self._image_size = (self.image.shape[2], self.image.shape[3])

    def _see(self, path: str, module: nn.Module, inputs: Sequence[Any], output: Any) -> None:
        maps = ((key, as_map(value, self._image_size)) for key, value in tensors_in(output))
        self.called.pop(path, None)
        self.called[path] = [_Seen(path, key, value, value._version) for key, value in maps if value is not None]
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            image = next((as_map(value, self._image_size) for _, value in tensors_in(inputs)), None)
            channels = module.out_features if isinstance(module, nn.Linear) else module.out_channels
            if image is not None:
                self.layers.append((path, channels, image))


def _encoder_features(model: nn.Module, watch: _Watch) -> list[_Seen]:
    """List an encoder's features: of its parts, then its own; the later ones count where strides are equal.

    Where no module is the encoder, or it is a mere list of modules, it is everything down to the smallest features.
    """
    path = _encoder_path(model)
    if path in watch.called and path != network_of(model)[0]:
        features = [
            feature for feature in watch.called[path] if watch.image is None or not feature.is_same(watch.image)
        ]
        deepest = max((watch.stride(feature) for feature in features), default=math.inf)
        return [*(feature for feature in watch.parts(path) if watch.stride(feature) <= deepest), *features]
    while path not in watch.called:
        path = path.rpartition(".")[0]
    parts = _before_head(model, watch, path)
    smallest = max((watch.stride(feature) for feature in parts), default=0)
    last = max((index for index, feature in enumerate(parts) if watch.stride(feature) == smallest), default=-1)
    return parts[: last + 1]


def _before_head(model: nn.Module, watch: _Watch, path: str) -> list[_Seen]:
    """List what ran before the part that makes classes; where it is the only part, before that part inside it."""
    head = _head(model, watch)
    parts = watch.parts(path)
    if head is None:
        return parts
    holders = [index for index, part in enumerate(parts) if f"{head[0]}.".startswith(f"{part.path}.")]
    if not holders:
        return parts
    holder = parts[holders[0]].path
    if holders[0] == 0 and holder != head[0]:
        return _before_head(model, watch, holder)
    return parts[: holders[0]]


def _encoder_path(model: nn.Module) -> str:
    paths: dict[nn.Module, str] = {module: path for path, module in model.named_modules()}
    stated = getattr(network_of(model)[1], "encoder", None)
    if isinstance(stated, nn.Module) and stated in paths:
        return paths[stated]
    candidates = [path for path in paths.values() if path.rpartition(".")[2] in _ENCODER_NAMES]
    return min(candidates, key=lambda path: path.count("."), default=network_of(model)[0])


def _head(model: nn.Module, watch: _Watch) -> tuple[str, Tensor] | None:
    """Find the layer that makes classes, the last with as many channels as the network's output: path and input."""
    output = watch.called[network_of(model)[0]]
    classes = output[0].features.shape[1] if output else 0
    heads = [
        (path, head_input)
        for path, channels, head_input in watch.layers
        if channels == classes and _AUXILIARY not in path
    ]
    return heads[-1] if heads else None


def _decoder(model: nn.Module, watch: _Watch) -> list[Role]:
    """Find which module gave what the layer that makes classes is given."""
    head = _head(model, watch)
    if head is None:
        return []
    path, head_input = head
    sources = [
        feature
        for module_path, maps in watch.called.items()
        if not isinstance(model.get_submodule(module_path), nn.Identity | nn.Dropout | nn.Dropout2d)
        for feature in maps
        if feature.is_same(head_input) and feature.features._version == feature.version
    ]
    if sources:
        return [watch.role("decoder", min(sources, key=lambda feature: feature.path.count(".")))]
    return [watch.role("decoder", _Seen(f"{path}@input", "", head_input, head_input._version))]


def _shape(features: Tensor) -> tuple[int, int, int]:
    channels, height, width = features.shape[1:]
    return channels, height, width
