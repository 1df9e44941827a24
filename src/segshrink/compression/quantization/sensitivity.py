"""Which layers bear 8 bits badly, and keeping those in higher precision."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from segshrink.compression.quantization.onnx_int8 import OnnxQuantizer

# These pass on the numbers they get: they are in 8 bits where what feeds them is.
_PASSIVE = frozenset(
    (
        "Clip",
        "Flatten",
        "LeakyRelu",
        "MaxPool",
        "Relu",
        "Reshape",
        "Resize",
        "Split",
        "Squeeze",
        "Transpose",
        "Unsqueeze",
    )
)
# More layers than this share of all in higher precision leave little of int8.
LARGEST_SHARE = 0.5


def rank_by_noise(quantizer: OnnxQuantizer, *, progress: Callable[[int, int], None] | None = None) -> list[str]:
    """Return the names of the nodes by the noise in the logits when each alone is in 8 bits, the noisiest first.

    A tensor whose range is bad makes both the layer that gives it and the layer that takes it noisy, so they stand
    beside each other in the ranking.

    Args:
        quantizer: Knows the model and the calibration tiles.
        progress: Called after every node with (nodes done, nodes in all).
    """
    operators = {node.name: node.op_type for node in quantizer.model.graph.node}
    active = [name for name in quantizer.nodes if operators[name] not in _PASSIVE]
    noise = {}
    for number, name in enumerate(active, start=1):
        noise[name] = quantizer.noise([name])
        if progress is not None:
            progress(number, len(active))
    return sorted(active, key=noise.__getitem__, reverse=True)


def counts_to_try(nodes: int) -> Iterator[int]:
    """Yield how many layers to keep in higher precision, a few more each time: 1, 2, 4, ... up to half of ``nodes``."""
    count = 1
    while count <= LARGEST_SHARE * nodes:
        yield count
        count *= 2
