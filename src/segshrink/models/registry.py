"""Network ids: our own networks, ``smp:``, ``torchvision:``, ``hf:`` and a user's ``module:function``."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from torch import nn

from segshrink.classes import ClassMap
from segshrink.errors import ModelError, nearest
from segshrink.model_description import ModelDescription, Normalization
from segshrink.models.adapters import (
    WEIGHTS_OPTION,
    build_smp,
    build_torchvision,
    check_options,
    measured_stride,
    smp_names,
    torchvision_names,
)
from segshrink.models.espnetv2 import ESPNetV2
from segshrink.models.huggingface import HuggingFaceNetwork, build_huggingface
from segshrink.models.imagenet import load_imagenet_weights
from segshrink.models.imagenet_hubs import IMAGENET
from segshrink.models.mobile import MobileSegmenter
from segshrink.models.model import SegmentationModel
from segshrink.models.own_network import build_own, count_channels, own_stride
from segshrink.models.separable_unet import SeparableUNet
from segshrink.models.unet import UNet
from segshrink.models.weights import load_encoder_weights
from segshrink.user_code import is_function

# Our networks: a class with the options as keyword arguments, and a ``stride``.
_OWN: Mapping[str, type[nn.Module]] = {
    "espnetv2": ESPNetV2,
    "mobile": MobileSegmenter,
    "separable-unet": SeparableUNet,
    "unet": UNet,
}
_KINDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    tuple: "a list of whole numbers",
    str: "a name",
}
_BORROWED = {"hf": build_huggingface, "smp": build_smp, "torchvision": build_torchvision}


def build_model(
    id: str,  # what recipes and config.json call it
    classes: ClassMap,
    *,
    bands: int = 3,
    options: Mapping[str, Any] | None = None,
    normalization: Normalization | None = None,
    encoder_weights: Path | Literal["imagenet"] | None = None,
    sigmoid: bool = False,
) -> SegmentationModel:
    """Build a network by id, with random weights or an encoder's from a file; nothing is downloaded unasked.

    Args:
        id: "unet", "separable-unet", "mobile", "espnetv2", "smp:<Architecture>/<encoder>", "torchvision:<name>",
            "hf:<folder or hub name>", which brings its trained weights, or "module:function" of your own code, which is
            imported; arguments called ``classes`` and ``bands`` get their numbers.
        classes: What the logits mean.
        bands: Bands of an image.
        options: The network's options by name; for networks of smp and torchvision ``weights="imagenet"`` downloads
            the encoder's.
        normalization: How raw pixels are scaled; None takes what the weights expect, ImageNet's without any.
        encoder_weights: File of encoder weights (.safetensors, or .pth read weights-only), or "imagenet": from a
            package or a hub, see `load_imagenet_weights`; where neither is at hand the start is random, with a notice.
        sigmoid: Give the network one output channel for two classes, the background first; the model turns it into
            two logits.

    Raises:
        ModelError: Unknown id or option (the nearest is named), a value out of range, weights that don't fit, or
            ``sigmoid`` with another number of classes than two.
        FileError: The weight file is missing or can't be read.
    """
    if bands < 1:
        raise ModelError(f"a model takes at least one band, found bands={bands}")
    options = dict(options or {})
    channels = 1 if sigmoid else len(classes)
    network = build_network(id, options, num_classes=channels, bands=bands)
    stride = own_stride(network, bands) if is_function(id) else measured_stride(network, bands)
    if is_function(id):
        sigmoid = count_channels(network, classes, bands=bands, stride=stride, name=f"'{id}'") < len(classes)
    expected = Normalization.named("imagenet", bands)
    if isinstance(network, HuggingFaceNetwork):
        id, options, expected = network.identity, network.options, network.normalization
    normalization_name = None
    if encoder_weights == IMAGENET:
        normalization_name = load_imagenet_weights(network, id)
    elif encoder_weights is not None:
        normalization_name = load_encoder_weights(network, Path(encoder_weights))
    if normalization_name is not None:
        expected = Normalization.named(normalization_name, bands)
    description = ModelDescription(
        id=id,
        options={name: value for name, value in options.items() if name != WEIGHTS_OPTION},
        classes=classes,
        bands=bands,
        normalization=normalization or expected,
        stride=stride,
        sigmoid=sigmoid,
    )
    return SegmentationModel(network, description)


def model_ids() -> list[str]:
    """List the ids of all networks but timm's ``smp:<Architecture>/tu-<name>`` and transformers' ``hf:<name>``."""
    borrowed = [f"smp:{name}" for name in smp_names()] + [f"torchvision:{name}" for name in torchvision_names()]
    return [*_OWN, *borrowed]


def build_network(identity: str, options: Mapping[str, Any], *, num_classes: int, bands: int) -> nn.Module:
    """Build a network by id, without what makes a ``SegmentationModel`` of it; raises what ``build_model`` does."""
    if is_function(identity):
        return build_own(identity, options, num_classes=num_classes, bands=bands)
    family, separator, name = identity.partition(":")
    if separator and family in _BORROWED:
        return _BORROWED[family](name, options, num_classes=num_classes, bands=bands)
    kind = _OWN.get(identity)
    if kind is None:
        borrowed = ("smp:<Architecture>/<encoder>", "torchvision:<name>", "hf:<folder or hub name>")
        ids = [*_OWN, *borrowed, "module:function"]
        raise ModelError(f"unknown model '{identity}'{nearest(identity, ids)}")
    return kind(num_classes, bands, **_checked(identity, kind, options))


def _checked(identity: str, kind: type[nn.Module], options: Mapping[str, Any]) -> dict[str, Any]:
    """Check options of our own networks against the keyword arguments of the class: name and kind of value."""
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(kind).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
    check_options(identity, options, list(defaults))
    checked = {}
    for name, value in options.items():
        kind_of_value = type(defaults[name])
        if not _fits(value, kind_of_value):
            raise ModelError(f"'{identity}': option '{name}' must be {_KINDS[kind_of_value]}, found {value!r}")
        checked[name] = kind_of_value(value)
    return checked


def _fits(value: Any, expected: type) -> bool:
    if expected is tuple:
        return isinstance(value, list | tuple) and all(_fits(item, int) for item in value)
    if expected is str:
        return isinstance(value, str)
    if isinstance(value, bool) != (expected is bool) or not isinstance(value, int | float):
        return False
    return expected is not int or value == int(value)
