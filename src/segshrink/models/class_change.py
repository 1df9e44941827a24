"""A trained network for another list of classes: all weights stay, and the head's rows go by class."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from segshrink.classes import ClassMap
from segshrink.errors import ModelError
from segshrink.model_description import CUSTOM, ModelDescription
from segshrink.models.adapters import WEIGHTS_OPTION
from segshrink.models.model import SegmentationModel
from segshrink.models.outputs import chosen_output
from segshrink.models.registry import build_network
from segshrink.models.structure import apply_structure


def with_classes(model: SegmentationModel, classes: ClassMap, sources: Sequence[Sequence[int]]) -> SegmentationModel:
    """Return a model of the same network and weights for other classes.

    A class that others of the new list come from too shares its probability with them evenly. One that comes from
    several old ones starts at the mean of their logits plus the logarithm of their number: at their sum where they are
    equally likely, below it elsewhere. One that comes from none starts at random.

    Args:
        model: The trained model.
        classes: What the new model's logits mean.
        sources: For each new class the old ones, as indices, that it comes from.

    Raises:
        ModelError: The network can't be built with other classes.
    """
    old = model.description
    if old.id.startswith(CUSTOM):
        raise ModelError(
            f"'{old.id}' is a network of somebody's own code, whose classes can't be changed here; save one that a "
            "function makes: build_model('module:function', classes)"
        )
    channels = 1 if old.sigmoid else len(old.classes)
    tensors = model.network.state_dict()
    with torch.random.fork_rng(devices=[]):
        other = _built(old, channels + 1).state_dict()
    network = _built(old, len(classes))
    head = [name for name, value in tensors.items() if value.shape != other[name].shape]
    shares = Counter(index for group in sources for index in group)
    summed = _summed(network, [name for name in head if tensors[name].ndim == 1], old)
    renewed = network.state_dict()
    for name, value in tensors.items():
        renewed[name] = _rows(value, renewed[name], sources, shares, channels, summed) if name in head else value
    network.load_state_dict(renewed)
    return SegmentationModel(network, replace(old, classes=classes, sigmoid=False))


def _built(description: ModelDescription, channels: int) -> nn.Module:
    options = {name: value for name, value in description.options.items() if name != WEIGHTS_OPTION}
    network = build_network(description.id, options, num_classes=channels, bands=description.bands)
    apply_structure(network, description.structure or {})
    return network


def _summed(network: nn.Module, biases: Sequence[str], description: ModelDescription) -> int:
    """Return how many biases of a head are summed in each logit: two in LR-ASPP; those of further outputs aren't."""
    learned = [value for name, value in network.named_parameters() if name in biases]
    if len(learned) < 2:
        return 1
    network.eval()
    side = 2 * description.stride
    with torch.enable_grad():
        logits = chosen_output(network(torch.zeros(1, description.bands, side, side)))
    gradients = torch.autograd.grad(logits.sum(), learned, allow_unused=True)
    network.train()
    return max(1, sum(gradient is not None for gradient in gradients))


def _rows(
    old: Tensor, new: Tensor, sources: Sequence[Sequence[int]], shares: Counter[int], channels: int, summed: int
) -> Tensor:
    """Return a tensor of the head, (C, ...), whose rows come from those of (K, ...).

    Biases, (K,), also carry their class's share, divided among as many as are summed.
    """
    if old.shape[0] != channels:
        raise ModelError(f"the network's head has {old.shape[0]} rows where {channels} classes are expected")
    if channels == 1:  # a sigmoid: the first class's logit is zero
        old = torch.cat([torch.zeros_like(old), old])
    rows = new.clone()
    for place, group in enumerate(sources):
        if not group:
            continue
        rows[place] = old[list(group)].mean(dim=0)
        if old.ndim == 1:
            rows[place] += math.log(sum(1 / shares[index] for index in group)) / summed
    return rows
