"""Weights of a whole network, from whoever trained it: number of classes read from their shapes, nothing left out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from segshrink.classes import VOC_CLASSES, ClassMap
from segshrink.errors import ModelError, first_line, nearest
from segshrink.file_kinds import explain
from segshrink.models.adapters import TorchvisionNetwork, torchvision_names
from segshrink.models.dry_run import dry_run
from segshrink.models.model import SegmentationModel
from segshrink.models.registry import build_model
from segshrink.models.weights import read_tensors

# Heads that only helped in training, or classify whole images.
_HELPERS = ("aux_classifier.", "auxiliary_head.", "classification_head.")
# Side of the image on which lazy layers get their weights.
_LAZY = 128
# What torch.compile puts before the names of what it wraps.
_COMPILED = "_orig_mod."
# Where a network's weights stand as a rule, the likeliest first.
_USUAL = ("", "model.", "net.", "network.", "module.")
# Batch normalization's counter, which older files lack.
_COUNTER = "num_batches_tracked"
# The network of ours whose weights others publish, and its activation that has 64 channels times its scale.
_ESPNETV2, _ESPNETV2_ANCHOR = "espnetv2", "base_net.level2_0.act.weight"


def load_network(
    identity: str,
    weights: Path,
    name_classes: Callable[[int], ClassMap],
    *,
    bands: int = 3,
    options: Mapping[str, Any] | None = None,
    likely_classes: int = 2,
) -> SegmentationModel:
    """Build a network with as many classes as its weights have, and load them; one channel is two classes.

    A prefix that all names share ("module.", "model.", ...) is taken away; auxiliary heads are left out.

    Args:
        identity: "smp:<Architecture>/<encoder>", "torchvision:<name>" or "espnetv2".
        weights: File of the whole network's weights (.safetensors, or .pth read weights-only), or for torchvision the
            name of published ones, which are downloaded unless torch's cache has them.
        name_classes: Says what K classes mean.
        bands: Bands of an image.
        options: The network's options by name; the scale of "espnetv2" is read from its weights.
        likely_classes: The number of classes that is tried first.

    Raises:
        FileError: The file is missing or can't be read.
        ModelError: Unknown network, published weights that don't exist or can't be downloaded, or weights that don't
            fit.
    """
    tensors = _read(identity, weights)
    if identity == _ESPNETV2 and (scale := espnetv2_scale(tensors)) is not None:
        options = {"scale": scale, **(options or {})}
    count = likely_classes
    model, renamed = _fitted(identity, tensors, count, source=weights, bands=bands, options=options)
    if (classes_in_file := _count_classes(model.network, renamed, count)) != count:
        count = classes_in_file
        model, renamed = _fitted(identity, tensors, count, source=weights, bands=bands, options=options)
    if problems := _problems(_inner(model.network).state_dict(), renamed):
        raise ModelError(
            f"{weights} doesn't fit '{identity}': {_listed(problems)}; give weights of this whole network, "
            "and the options that it was built with"
        )
    _inner(model.network).load_state_dict(renamed, strict=False)
    sigmoid = count == 1
    classes = name_classes(2 if sigmoid else count)
    return SegmentationModel(model.network, replace(model.description, classes=classes, sigmoid=sigmoid)).eval()


def load_published(weights: Path) -> SegmentationModel:
    """Load weights that others publish for a network of ours, those of ESPNetv2, which need nothing beside them.

    Raises:
        FileError: The file is missing or can't be read.
        ModelError: They are another network's, or damaged.
    """
    if espnetv2_scale(read_tensors(weights)) is None:
        raise ModelError(str(explain(weights)))

    def name_classes(count: int) -> ClassMap:
        return ClassMap.build(published_classes(_ESPNETV2, count) or [str(number) for number in range(count)])

    return load_network(_ESPNETV2, weights, name_classes, likely_classes=len(VOC_CLASSES))


def espnetv2_scale(tensors: Mapping[str, Tensor]) -> float | None:
    """Return the scale of an ESPNetv2 for segmentation; None where its tensors aren't there."""
    channels = (len(value) for name, value in tensors.items() if name.endswith(_ESPNETV2_ANCHOR) and value.ndim)
    return next((count / 64 for count in channels), None)


def published_classes(identity: str, count: int) -> tuple[str, ...] | None:
    """Return the class names of weights that are published for a network, where they are so many."""
    if identity == _ESPNETV2:
        return VOC_CLASSES if count == len(VOC_CLASSES) else None
    for weights in _published(identity).values():
        names = tuple(str(name).strip("_") for name in weights.meta["categories"])
        if len(names) == count:
            return names
    return None


def _read(identity: str, weights: Path) -> dict[str, Tensor]:
    published = _published(identity)
    if weights.suffix or not published:
        return read_tensors(weights)
    name = str(weights)
    if (chosen := published.get(name)) is None:
        raise ModelError(f"torchvision publishes no weights '{name}' for '{identity}'{nearest(name, published)}")
    try:
        tensors: dict[str, Tensor] = chosen.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (OSError, RuntimeError) as error:
        raise ModelError(
            f"the weights '{weights}' of '{identity}' can't be downloaded ({first_line(error)}); download {chosen.url} "
            "elsewhere and give the file"
        ) from error
    return tensors


def _published(identity: str) -> Mapping[str, Any]:
    """Return torchvision's published weights of a network by name."""
    from torchvision import models

    family, _, name = identity.partition(":")
    if family != "torchvision" or name not in torchvision_names():
        return {}
    members: Mapping[str, Any] = models.get_model_weights(name).__members__
    return members


def _fitted(
    identity: str,
    tensors: Mapping[str, Tensor],
    count: int,
    *,
    source: Path,
    bands: int,
    options: Mapping[str, Any] | None,
) -> tuple[SegmentationModel, dict[str, Tensor]]:
    """Build the network for so many classes; return it and the file's tensors under its names."""
    classes = ClassMap.build([(str(number), None, None) for number in range(count)])
    with torch.random.fork_rng(devices=[]):
        model = build_model(identity, classes, bands=bands, options=options)
    return model, fitting_tensors(_inner(model.network).state_dict(), tensors, str(source))


def fitting_tensors(expected: Mapping[str, Tensor], tensors: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Return the tensors of a file under a network's names, without the prefix and what only helped in training.

    Args:
        expected: The network's tensors.
        tensors: The file's; what stands beside their common prefix is left out.
        source: Where they come from, for messages.

    Raises:
        ModelError: The network stands there several times, with different weights.
    """
    if not any(_COMPILED in name for name in expected):
        tensors = {name.replace(_COMPILED, ""): value for name, value in tensors.items()}
    anchor = max(expected, key=len, default="")
    prefixes = [name.removesuffix(anchor) for name in tensors if f".{name}".endswith(f".{anchor}")]
    counts = {prefix: sum(prefix + name in tensors for name in expected) for prefix in prefixes}
    best = [prefix for prefix in counts if counts[prefix] == max(counts.values())] or [""]
    fitting = [
        {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        for prefix in best
    ]
    usual = [prefix for prefix in best if prefix in _USUAL]
    if len(best) > 1 and not usual and not all(_equal(each, fitting[0], expected) for each in fitting[1:]):
        raise ModelError(
            f"{source} holds this network under {', '.join(map(repr, best))}, with different weights; save the one "
            "that you mean alone"
        )
    chosen = fitting[best.index(usual[0]) if usual else 0]
    return {name: value for name, value in chosen.items() if not name.startswith(_HELPERS)}


def load_whole(network: nn.Module, weights: Path, *, name: str, bands: int = 3) -> None:
    """Load a file's weights into a network that somebody's own code made.

    Args:
        network: Gets them.
        weights: The file; a prefix that all its names share is taken away.
        name: How messages call the network.
        bands: Bands of an image, on which lazy layers are run.

    Raises:
        FileError: It is missing or can't be read.
        ModelError: It isn't a safe file of weights, or they don't fit; the first tensor that doesn't is named.
    """
    if any(is_lazy(value) for value in network.parameters()):
        dry_run(network, bands=bands, size=_LAZY)
    expected = network.state_dict()
    tensors = fitting_tensors(expected, read_tensors(weights), str(weights))
    if problems := _problems(expected, tensors):
        raise ModelError(
            f"{weights} doesn't fit {name}: {_listed(problems)}; give its own weights, and as 'options' the arguments "
            "that it was made with, such as its number of classes"
        )
    network.load_state_dict(tensors, strict=False)


def _equal(first: Mapping[str, Tensor], second: Mapping[str, Tensor], names: Iterable[str]) -> bool:
    return all(name in first and name in second and torch.equal(first[name], second[name]) for name in names)


def _inner(network: nn.Module) -> nn.Module:
    """Return the module whose names a library's files have."""
    inner: nn.Module = network.model if isinstance(network, TorchvisionNetwork) else network
    return inner


def _count_classes(network: nn.Module, tensors: Mapping[str, Tensor], count: int) -> int:
    """Read the number of classes off the tensors that differ from a network of ``count`` in their first axis only."""
    counts = {
        len(tensors[name])
        for name, value in _inner(network).state_dict().items()
        if name in tensors and value.ndim and tensors[name].ndim and len(value) == count != len(tensors[name])
        if value.shape[1:] == tensors[name].shape[1:]
    }
    return counts.pop() if len(counts) == 1 else count


def _listed(problems: list[str]) -> str:
    more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
    return ", ".join(problems[:3]) + more


def _problems(expected: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> list[str]:
    missing = [f"{name} is missing" for name in expected if name not in tensors and not name.endswith(_COUNTER)]
    other = [
        f"{name} is {tuple(tensors[name].shape)} in the file but {tuple(value.shape)} in the network"
        for name, value in expected.items()
        if name in tensors and tensors[name].shape != value.shape
    ]
    return missing + other + [f"the network has no {name}" for name in tensors if name not in expected]
