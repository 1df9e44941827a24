"""Copies of a model that lose channels: what they begin as, and what they must still do afterwards."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.module_tracker import ModuleTracker

from segshrink.compression.pruning.channels import ChannelGraph
from segshrink.errors import ModelError
from segshrink.model_description import CUSTOM
from segshrink.models import SegmentationModel, build_model
from segshrink.models.structure import describe_structure

# Images at once when running averages are taken.
_BATCH = 4


def thawed_copy(model: SegmentationModel) -> SegmentationModel:
    """Return a copy on the CPU in eval mode whose weights all take gradients.

    Raises:
        ModelError: Channels of such a network can't be removed.
    """
    if model.description.id.startswith("hf:"):
        raise ModelError(
            f"'{model.description.id}' is a network of transformers, whose layers can't be made smaller one by one; "
            "distill it into another network"
        )
    if model.description.id.startswith(CUSTOM):
        raise ModelError(
            f"'{model.description.id}' is a network of somebody's own code that nothing can build again when it is "
            "smaller; make it by a function: build_model('module:function', classes)"
        )
    return deepcopy(model).to("cpu").requires_grad_().eval()


def channel_graph(model: SegmentationModel) -> ChannelGraph:
    """Follow the channels of a model's network; see ``ChannelGraph`` for what it raises."""
    side = max(64, 2 * model.description.stride)
    return ChannelGraph(model.network, torch.zeros(1, model.description.bands, side, side))


def finished(smaller: SegmentationModel, original: SegmentationModel, images: Tensor | None) -> SegmentationModel:
    """Return a model that was made smaller with its description and running averages, where and as the original is.

    Args:
        smaller: The model that was made smaller.
        original: What it is a copy of.
        images: Raw pixels (N, bands, H, W) that the running averages are taken over; None leaves these.
    """
    if images is not None:
        reestimate_statistics(smaller, images)
    description = smaller.description
    with torch.random.fork_rng(devices=[]):
        built = build_model(
            description.id,
            description.classes,
            bands=description.bands,
            options=description.options,
            sigmoid=description.sigmoid,
        )
    description = replace(description, structure=describe_structure(smaller.network, built.network))
    weight = next(original.parameters())
    return SegmentationModel(smaller.network, description).to(weight.device).train(original.training)


def check_runs(model: SegmentationModel) -> None:
    """Run a model in eval mode forward and backward on a small image.

    Raises:
        ModelError: It fails; names the layer.
    """
    tracker = ModuleTracker()
    side = 2 * model.description.stride
    try:
        with tracker, torch.enable_grad():
            model(torch.zeros(2, model.description.bands, side, side)).sum().backward()
    except Exception as error:  # anything may go wrong in a foreign network
        reason = " ".join(str(error).split())[:200]
        _, _, layer = max(tracker.parents, key=len).partition(".network.")
        place = f"the layer '{layer}'" if layer else "the network itself"
        raise ModelError(
            f"'{model.description.id}' can't be made smaller: {place} doesn't follow when others lose channels "
            f"({reason}); distill it into another network"
        ) from error
    model.zero_grad(set_to_none=True)


def reestimate_statistics(model: SegmentationModel, images: Tensor) -> None:
    """Average each batch normalization's mean and variance over images, all of them counting alike.

    As ``torch.optim.swa_utils.update_bn``, but with everything else in eval mode, so that dropout doesn't add to the
    variance.

    Args:
        model: The model, which is changed.
        images: Raw pixels (N, bands, H, W).
    """
    modes: list[tuple[Any, bool]] = [(module, module.training) for module in model.modules()]
    layers = [layer for layer in model.modules() if isinstance(layer, _BatchNorm) and layer.track_running_stats]
    momenta = [layer.momentum for layer in layers]
    model.eval()
    for layer in layers:
        layer.reset_running_stats()
        layer.train()
    try:
        with torch.no_grad():
            averaged = 0
            for batch in torch.split(images, _BATCH) if layers else ():
                averaged += len(batch)
                for layer in layers:
                    layer.momentum = len(batch) / averaged
                model(batch if len(batch) > 1 else batch.repeat(2, 1, 1, 1))
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
        for module, training in modes:
            module.training = training
