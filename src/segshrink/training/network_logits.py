"""The logits of any network that is trained."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from segshrink.errors import ModelError
from segshrink.losses.shapes import resized
from segshrink.models import SegmentationModel
from segshrink.models.outputs import chosen_output


def logits_of(network: nn.Module, images: Tensor) -> Tensor:
    """Return a network's logits (N, C, H, W), float32, at the images' size.

    Args:
        network: As ``SegmentationTask`` takes it; what is no ``SegmentationModel`` gets the images in float32.
        images: (N, bands, H, W).

    Raises:
        ModelError: The network gives something else.
    """
    if isinstance(network, SegmentationModel):
        logits: Tensor = network(images)
        return logits
    name = type(network).__name__
    scores = chosen_output(network(images.float()), name=name).float()
    if scores.ndim != 4:
        raise ModelError(f"{name} gives {tuple(scores.shape)}, but logits (N, classes, H, W) are trained")
    if scores.shape[1] == 1:
        scores = torch.cat([torch.zeros_like(scores), scores], dim=1)
    return resized(scores, (images.shape[2], images.shape[3]))
