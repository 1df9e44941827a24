"""Networks whose layers were made smaller or taken out, told apart from the network that their id builds.

A structure is plain data: sizes of layers and paths of blocks. Applying it makes layers smaller and never larger, so
that a stranger's can neither run code nor ask for more memory than the network as built.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from segshrink.errors import ModelError

# Kind of layer -> the attributes that say its size.
_SIZES: tuple[tuple[type[nn.Module], tuple[str, ...]], ...] = (
    (_ConvNd, ("in_channels", "out_channels", "groups")),
    (nn.Linear, ("in_features", "out_features")),
    (_NormBase, ("num_features",)),
    (nn.LayerNorm, ("normalized_shape",)),
    (nn.GroupNorm, ("num_channels", "num_groups")),
    (nn.PReLU, ("num_parameters",)),
)


class RemovedBlock(nn.Identity):
    """Stands where a residual block was; takes whatever the block took and gives its first input."""

    def forward(self, input: Tensor, *others: Any, **keywords: Any) -> Tensor:
        """Return the first input."""
        return input


def size_names(layer: nn.Module) -> tuple[str, ...]:
    """Return the attributes that say a layer's size; none for a layer that can't be made smaller."""
    return next((names for kind, names in _SIZES if isinstance(layer, kind)), ())


def describe_structure(network: nn.Module, reference: nn.Module) -> dict[str, Any] | None:
    """Say how a network differs from the one that its id builds.

    Args:
        network: The network, with layers made smaller or replaced by ``RemovedBlock``.
        reference: The network as built.

    Returns:
        JSON-able: ``layers``, path -> attribute -> size, where they differ; ``parameters``, path -> shape, of
        parameters outside such layers; ``removed``, paths of blocks. None: no difference.

    Raises:
        ModelError: They differ by something else.
    """
    built = dict(reference.named_modules())
    removed = [path for path, module in network.named_modules() if isinstance(module, RemovedBlock)]
    layers: dict[str, dict[str, Any]] = {}
    for path, module in network.named_modules():
        if path in removed:
            continue
        if path not in built or size_names(module) != size_names(built[path]):
            raise ModelError(f"the network's '{path}' is no layer that its id builds; only sizes of layers may change")
        sizes = {name: _plain(getattr(module, name)) for name in size_names(module)}
        changed = {name: size for name, size in sizes.items() if size != _plain(getattr(built[path], name))}
        if changed:
            layers[path] = changed
    network_parameters = dict(network.named_parameters())
    parameters = {
        path: list(network_parameters[path].shape)
        for path, value in reference.named_parameters()
        if path in network_parameters and network_parameters[path].shape != value.shape and not _is_sized(built, path)
    }
    structure = {"layers": layers, "parameters": parameters, "removed": removed}
    return structure if any(structure.values()) else None


def apply_structure(network: nn.Module, structure: Mapping[str, Any]) -> None:
    """Give a network as built the sizes of another; the tensors of layers that change hold no values yet.

    Raises:
        ModelError: The structure is damaged: it isn't what ``describe_structure`` gives, names what the network hasn't,
            or asks for layers that are larger.
    """
    parts = {"layers": dict, "parameters": dict, "removed": list}
    if unknown := sorted(set(structure) - set(parts)):
        raise ModelError(f"the structure is damaged: unknown part '{unknown[0]}'; save the model again")
    for name, kind in parts.items():
        if not isinstance(structure.get(name, kind()), kind):
            raise ModelError(f"the structure is damaged: '{name}' is a {type(structure[name]).__name__}; save it again")
    for path in structure.get("removed", []):
        remove_block(network, path)
    modules = dict(network.named_modules())
    for path, sizes in structure.get("layers", {}).items():
        layer = modules.get(path)
        if layer is None or not isinstance(sizes, Mapping):
            raise ModelError(f"the structure is damaged: the network has no layer '{path}'; save the model again")
        _shrink_layer(layer, path, sizes)
    parameters = dict(network.named_parameters())
    for path, shape in structure.get("parameters", {}).items():
        value = parameters.get(path)
        if value is None or not _is_smaller(shape, list(value.shape)):
            raise ModelError(f"the structure is damaged: parameter '{path}' can't be {shape!r}; save the model again")
        owner, _, name = path.rpartition(".")
        setattr(network.get_submodule(owner), name, _like(value, *shape))


def remove_block(network: nn.Module, path: str) -> None:
    """Put a ``RemovedBlock`` in the place of a module.

    Raises:
        ModelError: There is no such module.
    """
    owner, _, name = str(path).rpartition(".")
    try:
        parent = network.get_submodule(owner)
    except AttributeError:
        parent = None
    if parent is None or not isinstance(path, str) or name not in dict(parent.named_children()):
        raise ModelError(f"the structure is damaged: the network has no block {path!r}; save the model again")
    setattr(parent, name, RemovedBlock())


def set_sizes(layer: nn.Module, sizes: Mapping[str, Any]) -> None:
    """Set attributes of a layer's size; its tensors are left as they are."""
    for name, size in sizes.items():
        setattr(layer, name, tuple(size) if name == "normalized_shape" else size)


def _shrink_layer(layer: nn.Module, path: str, sizes: Mapping[str, Any]) -> None:
    """Check sizes against a layer as built, and give it empty tensors of these."""
    for name, size in sizes.items():
        if name not in size_names(layer):
            raise ModelError(
                f"the structure is damaged: '{path}' ({type(layer).__name__}) has no size '{name}'; save it again"
            )
        present = _plain(getattr(layer, name))
        if isinstance(size, list) != isinstance(present, list) or not _is_smaller(_listed(size), _listed(present)):
            raise ModelError(
                f"the structure is damaged: '{name}' of '{path}' can't be {size!r}, the network has {present}; save it "
                "again"
            )
    set_sizes(layer, sizes)
    if isinstance(layer, _ConvNd) and (layer.in_channels % layer.groups or layer.out_channels % layer.groups):
        raise ModelError(
            f"the structure is damaged: '{path}' can't divide {layer.in_channels} channels in and {layer.out_channels} "
            f"out among {layer.groups} groups; save the model again"
        )
    # Fewer groups make a convolution's weight larger.
    if any(math.prod(_shape(layer, name)) > value.numel() for name, value in layer.named_parameters(recurse=False)):
        raise ModelError(
            f"the structure is damaged: '{path}' would have more weights than it had; save the model again"
        )
    for name, parameter in list(layer.named_parameters(recurse=False)):
        setattr(layer, name, _like(parameter, *_shape(layer, name)))
    for name, value in list(layer.named_buffers(recurse=False)):
        if value.ndim:
            setattr(layer, name, _like(value, *_shape(layer, name)))


def _shape(layer: nn.Module, name: str) -> tuple[int, ...]:
    """Return the shape of a layer's parameter or buffer by the layer's sizes."""
    if isinstance(layer, _ConvNd):
        if name != "weight":
            return (layer.out_channels,)
        channels = (layer.out_channels, layer.in_channels // layer.groups)
        if isinstance(layer, _ConvTransposeNd):
            channels = (layer.in_channels, layer.out_channels // layer.groups)
        return (*channels, *layer.kernel_size)
    if isinstance(layer, nn.Linear):
        return (layer.out_features, layer.in_features) if name == "weight" else (layer.out_features,)
    if isinstance(layer, nn.LayerNorm):
        return tuple(layer.normalized_shape)
    size: int = getattr(layer, size_names(layer)[0])
    return (size,)


def _like(value: Tensor, *shape: int) -> Tensor:
    empty = torch.zeros(shape, dtype=value.dtype, device=value.device)
    return nn.Parameter(empty, requires_grad=value.requires_grad) if isinstance(value, nn.Parameter) else empty


def _is_sized(modules: Mapping[str, nn.Module], path: str) -> bool:
    """Tell whether a parameter belongs to a layer that has sizes."""
    return bool(size_names(modules[path.rpartition(".")[0]]))


def _is_smaller(shape: Any, built: list[int]) -> bool:
    """Tell whether a shape is one of whole numbers, none larger than in the network as built."""
    if not isinstance(shape, list) or len(shape) != len(built) or math.prod(built) < 1:
        return False
    return all(type(size) is int and 1 <= size <= limit for size, limit in zip(shape, built, strict=True))


def _plain(size: Any) -> Any:
    return list(size) if isinstance(size, tuple) else size


def _listed(size: Any) -> list[Any]:
    return size if isinstance(size, list) else [size]
