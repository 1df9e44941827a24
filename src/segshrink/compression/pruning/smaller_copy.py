"""Removing channels from a network's layers, and what a network must still do afterwards."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from segshrink.compression.pruning.channels import Axis, Block, Numbers, axes_by_layer, channels_of, is_depthwise
from segshrink.errors import ModelError
from segshrink.models import SegmentationModel, build_model
from segshrink.models.structure import describe_structure, set_sizes, size_names


def cut(network: nn.Module, blocks: Iterable[Block], kept: Sequence[Numbers]) -> None:
    """Remove all units of blocks but those kept; the others keep their order and their weights.

    Args:
        network: The network, which is changed.
        blocks: Its blocks.
        kept: Numbers of the units of each block that stay.
    """
    removed: dict[Axis, list[Numbers]] = {}
    for block, units in zip(blocks, kept, strict=True):
        gone = np.setdiff1d(np.arange(block.units), units)
        if len(gone):
            for axis, numbers in block.members.items():
                removed.setdefault(axis, []).append(numbers[gone].ravel())
    for path, axes in axes_by_layer(removed):
        gone_by_side = {axis.side: np.concatenate(removed[axis]) for axis in axes}
        if any(side.isdigit() for side in gone_by_side):
            _cut_parameter(network, path, gone_by_side)
        else:
            _cut_layer(network.get_submodule(path), gone_by_side)


def restructured(model: SegmentationModel) -> SegmentationModel:
    """Return a model around the same network whose description says how the network was changed."""
    description = model.description
    with torch.random.fork_rng(devices=[]):
        built = build_model(
            description.id,
            description.classes,
            bands=description.bands,
            options=description.options,
            sigmoid=description.sigmoid,
        )
    structure = describe_structure(model.network, built.network)
    return SegmentationModel(model.network, replace(description, structure=structure)).train(model.training)


def check_runs(model: SegmentationModel) -> None:
    """Run a model forward and backward on a small image.

    Raises:
        ModelError: It fails; names the layer.
    """
    running: list[str] = []

    def leave(*_: Any) -> None:
        running.pop()

    handles = []
    for path, module in model.network.named_modules():
        handles.append(module.register_forward_pre_hook(lambda *_, path=path: running.append(path)))
        handles.append(module.register_forward_hook(leave))
    was_training = model.training
    model.eval()
    try:
        side = 2 * model.description.stride
        with torch.enable_grad():
            model(torch.zeros(2, model.description.bands, side, side)).sum().backward()
    except Exception as error:  # anything may go wrong in a foreign network
        told = " ".join(str(error).split())[:200]
        where = f"the layer '{running[-1]}'" if running and running[-1] else "the network itself"
        raise ModelError(
            f"'{model.description.id}' can't be made smaller: {where} doesn't follow when others lose channels "
            f"({told}); distil it into another network"
        ) from error
    finally:
        for handle in handles:
            handle.remove()
        model.train(was_training)
        model.zero_grad(set_to_none=True)


def _cut_layer(layer: nn.Module, removed: Mapping[str, Numbers]) -> None:
    stay = {
        side: torch.from_numpy(np.setdiff1d(np.arange(channels_of(layer, side)), gone))
        for side, gone in removed.items()
    }
    if not isinstance(layer, _ConvNd | nn.Linear) or is_depthwise(layer):
        for name, value in _tensors(layer):
            _put(layer, name, value, {0: stay["out"]})
        names = size_names(layer)
        count = len(stay["out"])
        sizes = {"normalized_shape": [count]} if isinstance(layer, nn.LayerNorm) else {names[0]: count}
        set_sizes(layer, dict.fromkeys(names, count) if isinstance(layer, _ConvNd) else sizes)
        return
    groups = layer.groups if isinstance(layer, _ConvNd) else 1
    turned = isinstance(layer, _ConvTransposeNd)
    # The weight's second axis holds the channels of one group; all groups lose the same ones.
    second = "out" if turned else "in"
    for name, value in _tensors(layer):
        if name != "weight":
            _put(layer, name, value, {0: stay["out"]} if "out" in stay else {})
            continue
        chosen = {}
        for side, numbers in stay.items():
            whole = groups == 1 or side != second
            chosen[int(side == second)] = numbers if whole else numbers[: len(numbers) // groups]
        _put(layer, name, value, chosen)
    inputs, outputs = size_names(layer)[:2]
    set_sizes(layer, {{"in": inputs, "out": outputs}[side]: len(numbers) for side, numbers in stay.items()})


def _cut_parameter(network: nn.Module, path: str, removed: Mapping[str, Numbers]) -> None:
    owner, _, name = path.rpartition(".")
    value = network.get_parameter(path)
    stay = {
        int(side): torch.from_numpy(np.setdiff1d(np.arange(value.shape[int(side)]), gone))
        for side, gone in removed.items()
    }
    _put(network.get_submodule(owner), name, value, stay)


def _tensors(layer: nn.Module) -> list[tuple[str, Tensor]]:
    """List a layer's parameters and the buffers that have a value a channel."""
    buffers = [(name, value) for name, value in layer.named_buffers(recurse=False) if value.ndim]
    return [*layer.named_parameters(recurse=False), *buffers]


def _put(owner: nn.Module, name: str, value: Tensor, stay: Mapping[int, Tensor]) -> None:
    chosen = value.detach()
    for axis, numbers in stay.items():
        chosen = chosen.index_select(axis, numbers.to(value.device))
    if isinstance(value, nn.Parameter):
        chosen = nn.Parameter(chosen.clone(), requires_grad=value.requires_grad)
    setattr(owner, name, chosen)
