"""Networks that a user's own code makes, ``module:function``: made, and measured by running them once."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import torch
from torch import nn

from segshrink.classes import ClassMap
from segshrink.errors import ModelError
from segshrink.models.adapters import measured_stride
from segshrink.models.dry_run import dry_run
from segshrink.models.outputs import chosen_output, tell_choice
from segshrink.user_code import argument_names, call_function, user_function

# Pixels that the coarsest features of most encoders stand for, and of some that halve more often.
_STRIDES = (32, 64, 128)
# How far the noise that a network is tried with reaches beyond normalized pixels.
_BRIGHT = 1e3
_LOGGER = logging.getLogger(__name__)
# What the function may call the number of classes and the number of bands.
_CLASSES = ("classes", "num_classes", "n_classes", "num_labels", "out_channels")
_BANDS = ("bands", "in_channels", "n_channels", "in_chans", "num_channels")


def call_network(source: str, options: Mapping[str, Any], *, subject: str) -> nn.Module:
    """Return the network that a function makes; the working folder is searched first.

    Args:
        source: ``package.module:function``; a class does as well.
        options: Its keyword arguments.
        subject: What names it, for messages.

    Raises:
        ModelError: There is no such module or function, it fails, or it doesn't return a network.
    """
    network = call_function(source, options, subject=subject)
    if not isinstance(network, nn.Module):
        name = source.partition(":")[2]
        raise ModelError(
            f"{subject}: {name}() returned {type(network).__name__}, expected a torch.nn.Module; correct it"
        )
    return network


def build_own(source: str, options: Mapping[str, Any], *, num_classes: int, bands: int) -> nn.Module:
    """Return the network of a function for a data set.

    Arguments called ``classes``, ``num_classes`` or as other libraries call them get the number of channels, ``bands``,
    ``in_channels`` and the like that of bands, where the options don't say them.

    Raises:
        ModelError: As ``call_network``.
    """
    subject = f"network '{source}'"
    names = argument_names(user_function(source, subject=subject))
    counts = {name: num_classes for name in _CLASSES if name in names}
    counts |= {name: bands for name in _BANDS if name in names}
    network = call_network(source, {**counts, **options}, subject=subject)
    if isinstance(network, torch.jit.ScriptModule):
        raise ModelError(
            f"{subject} is a program of TorchScript, in which nothing can be tapped or pruned; let the function return "
            "the network that was scripted"
        )
    return network


def channels_of(source: str) -> int:
    """Return how many classes the network of a function has where two are asked for; at least two.

    Raises:
        ModelError: As ``build_own``; or it can't be run on a small image.
    """
    bands = 3
    network = build_own(source, {}, num_classes=2, bands=bands)
    answer = chosen_output(dry_run(network, bands=bands, size=3 * own_stride(network, bands)), name=f"'{source}'")
    return max(2, answer.shape[1]) if answer.ndim == 4 else 2


def own_stride(network: nn.Module, bands: int) -> int:
    """Return the number of pixels of which sides must be multiples, as a foreign network says it or shows it."""
    encoder = getattr(network, "encoder", None)
    if isinstance(getattr(network, "stride", None), int) or hasattr(encoder, "output_stride"):
        return measured_stride(network, bands)
    for stride in _STRIDES:
        with suppress(ModelError):
            dry_run(network, bands=bands, size=3 * stride)
            return stride
    return _STRIDES[0]


def count_channels(network: nn.Module, classes: ClassMap, *, bands: int, stride: int, name: str) -> int:
    """Return how many channels a network gives: one for each class, or one for two.

    Raises:
        ModelError: It can't be run on a small image, or gives another number.
    """
    answers = dry_run(network, bands=bands, size=max(64, 3 * stride))
    tell_choice(answers, name)
    answer = chosen_output(answers, name=name)
    if answer.ndim != 4:
        raise ModelError(f"{name} answers with {tuple(answer.shape)}, expected logits (N, C, h, w)")
    channels = int(answer.shape[1])
    if channels != len(classes) and (channels, len(classes)) != (1, 2):
        raise ModelError(
            f"{name} gives {channels} channels, but {len(classes)} classes are named ({', '.join(classes.names)}); "
            "name one for each channel"
        )
    if _is_squashed(network, bands=bands, size=max(64, 3 * stride)):
        _LOGGER.warning(
            "%s gives numbers from 0 to 1, as a softmax or sigmoid does; losses and predictions take logits, so leave "
            "that layer out of the network",
            name,
        )
    return channels


def _is_squashed(network: nn.Module, *, bands: int, size: int) -> bool:
    """Tell whether a network ends in a softmax or sigmoid: far too bright noise still gives numbers from 0 to 1."""
    noise = torch.randn((1, bands, size, size), generator=torch.Generator().manual_seed(0)) * _BRIGHT
    answer = chosen_output(dry_run(network, bands=bands, size=size, images=noise))
    low, high = (float(value) for value in torch.aminmax(answer.float()))
    return 0 <= low < high <= 1
