"""Networks built without memory for their weights, as a stranger's description may ask for any size."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.utils._python_dispatch import TorchDispatchMode

from segshrink.errors import ModelError

# Numbers in a tensor that a constructor fills, such as the table of positions of a transformer.
_LARGEST_TENSOR = 1 << 24
# Steps of a range, one for each block or position.
_LONGEST_RANGE = 1 << 17
_TOO_LARGE = "it describes a network that is far larger than its weights"


@contextmanager
def empty_parameters(*, most_tensors: int) -> Iterator[None]:
    """Give the parameters of networks that are built in the block shapes only (device "meta"); buffers keep values.

    Args:
        most_tensors: Parameters that may be registered in the block.

    Raises:
        ModelError: The network wants more parameters, or a tensor too large to be filled.
    """
    thread = threading.get_ident()
    registered = 0

    def empty(module: nn.Module, name: str, parameter: nn.Parameter | None) -> nn.Parameter | None:
        nonlocal registered
        if parameter is None or threading.get_ident() != thread:
            return None
        registered += 1
        if registered > most_tensors:
            raise ModelError(_TOO_LARGE)
        return nn.Parameter(torch.empty_like(parameter, device="meta"), requires_grad=parameter.requires_grad)

    hook = register_module_parameter_registration_hook(empty)  # type: ignore[arg-type]  # it may return a parameter
    try:
        with _SmallTensors():  # type: ignore[no-untyped-call]
            yield
    finally:
        hook.remove()


def fill_parameters(network: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Give a network with empty parameters memory, and the values of ``tensors``, which has all of its names."""
    replaced: dict[nn.Parameter, nn.Parameter] = {}
    for module in network.modules():
        for name, value in list(module.named_parameters(recurse=False)):
            if value.is_meta and value not in replaced:
                replaced[value] = nn.Parameter(torch.empty_like(value, device="cpu"), requires_grad=value.requires_grad)
            setattr(module, name, replaced.get(value, value))
    network.load_state_dict(tensors)


class _SmallTensors(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Refuses to fill large tensors; memory that is merely reserved costs nothing."""

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        keywords = {} if kwargs is None else kwargs
        name = str(func)
        empty = name.startswith("aten.empty") or any(
            isinstance(argument, Tensor) and argument.is_meta for argument in args
        )
        ranged = name.startswith(("aten.arange", "aten.linspace"))
        if not empty and (
            _elements(args) > _LARGEST_TENSOR
            or (ranged and any(isinstance(argument, int | float) and argument > _LONGEST_RANGE for argument in args))
        ):
            raise ModelError(_TOO_LARGE)
        return func(*args, **keywords)


def _elements(args: tuple[Any, ...]) -> int:
    """Return how many numbers an operator's result has at most, by the shapes that it is given."""
    shapes = [tuple(argument.shape) for argument in args if isinstance(argument, Tensor)]
    shapes += [
        tuple(argument)
        for argument in args
        if isinstance(argument, list | tuple) and all(type(side) is int for side in argument)
    ]
    sides = max(map(len, shapes), default=0)
    padded = [(1,) * (sides - len(shape)) + shape for shape in shapes]
    return math.prod(max(column) for column in zip(*padded, strict=True))
