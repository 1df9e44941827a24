"""Running averages of batch normalisation, taken anew after the layers before it have changed."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from segshrink.models import SegmentationModel

_BATCH = 4


def reestimate_statistics(model: SegmentationModel, images: Tensor) -> None:
    """Average each batch normalisation's mean and variance over images, all of them counting alike.

    Args:
        model: The model, which is changed; everything but batch normalisation stays in eval mode.
        images: Raw pixels (N, bands, H, W).
    """
    layers = [layer for layer in model.modules() if isinstance(layer, _BatchNorm) and layer.track_running_stats]
    if not layers:
        return
    modes = [(module, module.training) for module in model.modules()]
    momenta = [layer.momentum for layer in layers]
    model.eval()
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # a plain average over batches
        layer.train()
    try:
        with torch.no_grad():
            for batch in torch.split(images, _BATCH):
                model(batch if len(batch) > 1 else batch.repeat(2, 1, 1, 1))
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
        for module, training in modes:
            module.training = training
