"""What the stages of a network cost: channels, parameters and multiply-accumulates by the features' resolution."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from torch import Tensor, nn

from segshrink.profiling.parameters_and_macs import count_flops
from segshrink.run_records import StageRecord

if TYPE_CHECKING:
    from torch.utils.flop_counter import FlopCounterMode

    from segshrink.models import SegmentationModel


@dataclass(frozen=True)
class _Layer:
    """What a module that holds weights or computes makes at which stride: the first time that it is run."""

    stride: int
    channels: int
    parameters: int
    macs: int


def count_stages(model: SegmentationModel, *, size: int) -> tuple[StageRecord, ...]:
    """Return the cost of each stage for an image of ``size`` x ``size`` pixels: down the encoder, up the decoder.

    A layer belongs to the stage of the features that it makes: "encoder" down to the last features at the largest
    stride, "decoder" after them. Multiply-accumulates count as in ``count_macs``.
    """
    made: dict[str, tuple[int, int]] = {}  # by module path: stride and channels, 0 where it makes no map

    def watch(path: str, module: nn.Module, _: object, output: object) -> None:
        if isinstance(output, Tensor) and output.dim() == 4 and output.shape[2] > 1:
            made.setdefault(path, (max(1, round(size / output.shape[2])), output.shape[1]))
        else:
            made.setdefault(path, (0, 0))

    modules = dict(model.network.named_modules())
    handles = [module.register_forward_hook(partial(watch, path)) for path, module in modules.items()]
    try:
        counter = count_flops(model, size=size)
    finally:
        for handle in handles:
            handle.remove()
    flops = _own_flops(counter, f"{type(model).__name__}.network", list(made))
    layers, stride = [], 1
    for path, (at, channels) in made.items():
        parameters = sum(weight.numel() for weight in modules[path].parameters(recurse=False))
        if parameters or flops[path]:
            stride = at or stride  # what is no map, such as pooled features, belongs to the map before it
            layers.append(_Layer(stride, channels, parameters, flops[path] // 2))
    return _grouped(layers)


def _own_flops(counter: FlopCounterMode, root: str, paths: list[str]) -> dict[str, int]:
    """Return what each module of a network computes itself, without the modules inside it that were run."""
    counts = counter.get_flop_counts()
    flops = {path: sum(counts.get(f"{root}.{path}" if path else root, {}).values()) for path in paths}
    own = dict(flops)
    for path in filter(None, paths):
        outer = path.rpartition(".")[0]
        while outer not in flops:
            outer = outer.rpartition(".")[0]
        own[outer] -= flops[path]
    return own


def _grouped(layers: list[_Layer]) -> tuple[StageRecord, ...]:
    deepest = max(layer.stride for layer in layers)
    last = max(place for place, layer in enumerate(layers) if layer.stride == deepest)
    stages: dict[tuple[str, int], list[_Layer]] = {}
    for place, layer in enumerate(layers):
        stages.setdefault(("encoder" if place <= last else "decoder", layer.stride), []).append(layer)
    return tuple(
        StageRecord(
            part=part,
            stride=stride,
            channels=next((layer.channels for layer in reversed(inside) if layer.channels), 0),
            parameters=sum(layer.parameters for layer in inside),
            macs=sum(layer.macs for layer in inside),
        )
        for (part, stride), inside in sorted(stages.items(), key=_down_and_up)
    )


def _down_and_up(stage: tuple[tuple[str, int], object]) -> tuple[bool, int]:
    part, stride = stage[0]
    return part == "decoder", stride if part == "encoder" else -stride
