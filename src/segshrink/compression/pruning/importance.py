"""How much a model's logits change when a channel is removed, without labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from segshrink.compression.pruning.channels import Block
from segshrink.models import SegmentationModel

Scores = NDArray[np.float64]
# Random combinations of the logits whose change is looked at.
PROBES = 8


def unit_importance(
    model: SegmentationModel, blocks: Sequence[Block], images: Tensor, *, probes: int = PROBES, seed: int = 0
) -> list[Scores]:
    """Estimate the squared change of the logits when a unit's channels are taken from every layer that reads them.

    The change is taken to first order (Molchanov 2019, arXiv 1906.10771) and estimated from random combinations of all
    logits, less what they have in common at a pixel. A channel that has no effect gets exactly 0.

    Args:
        model: The model; all its weights must require gradients.
        blocks: Its channels.
        images: Raw pixels (N, bands, H, W).
        probes: Combinations drawn.
        seed: Which combinations are drawn.

    Returns:
        One value a unit for each block.
    """
    readers = sorted({axis.path for block in blocks for axis in block.members if axis.side == "in"})
    layers = [model.network.get_submodule(path) for path in readers]
    weights = [layer.get_parameter("weight") for layer in layers]
    scores = [np.zeros(block.units) for block in blocks]
    generator = torch.Generator().manual_seed(seed)
    model.eval()
    with torch.enable_grad():
        logits = model(images)
        for probe in range(probes):
            signs = torch.randint(0, 2, logits.shape, generator=generator).to(logits) * 2 - 1
            direction = signs - signs.mean(dim=1, keepdim=True)
            gradients = torch.autograd.grad(
                logits, weights, direction, retain_graph=probe + 1 < probes, allow_unused=True
            )
            changes = {
                path: _by_input(layer, weight.detach() * gradient)
                for path, layer, weight, gradient in zip(readers, layers, weights, gradients, strict=True)
                if gradient is not None
            }
            for block, score in zip(blocks, scores, strict=True):
                change = np.zeros(block.units)
                for axis, numbers in block.members.items():
                    if axis.side == "in" and axis.path in changes:
                        change += changes[axis.path][numbers].sum(axis=1)
                score += change**2 / probes
    return scores


def example_images(model: SegmentationModel, *, count: int = 4, size: int = 96, seed: int = 0) -> Tensor:
    """Draw images of soft blobs with the mean and deviation that a model normalizes with: raw pixels, float32.

    Args:
        model: The model.
        count: How many.
        size: Their least side in pixels.
        seed: The same seed gives the same images.
    """
    description = model.description
    side = max(2, -(-size // description.stride)) * description.stride
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, description.bands, 6, 6, generator=generator)
    fine = torch.randn(count, description.bands, side, side, generator=generator)
    blobs = nn.functional.interpolate(coarse, size=(side, side), mode="bicubic") + 0.2 * fine
    return model.mean.cpu() + model.std.cpu() * blobs


def _by_input(layer: nn.Module, change: Tensor) -> Scores:
    """Sum what a layer's weights (of the weight's shape) bring about by the channel that they read."""
    groups = layer.groups if isinstance(layer, _ConvNd) else 1
    if isinstance(layer, _ConvTransposeNd):
        summed = change.flatten(1).sum(dim=1)
    else:
        summed = change.reshape(groups, change.shape[0] // groups, change.shape[1], -1).sum(dim=(1, 3)).flatten()
    return np.asarray(summed.cpu().double().numpy())
