"""Logits enlarged by a convolution, where a network ends in a bilinear resize.

Enlarging by a whole factor f gives each of the f × f pixels that a small pixel becomes a fixed mixture of its 3 × 3
neighbors: a convolution of each class to f² channels, its phases, which are then spread over the pixels (Shi 2016, DOI
10.1109/CVPR.2016.207). Runtimes do that faster than a resize, and choose classes before they spread them. Doubling has
too few phases for a convolution of each class; there one convolution mixes all classes with all, most weights 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from segshrink.export.tracing import LOGITS

# Prefix of all names here; quantization leaves these nodes alone. The phases of all classes, one after the other.
PREFIX = "enlarging/"
PHASES = f"{PREFIX}phases"
# Doubling more classes costs more than it saves (benchmarks/results/enlarging.md).
_MOST_DOUBLED = 12


def enlarge_by_convolution(model: Any, *, factor: int, classes: int) -> bool:
    """Replace the resize that gives ``logits``, where there is one and a convolution is faster.

    Args:
        model: An ``onnx.ModelProto`` from ``trace``; changed in place.
        factor: How much larger the image is than the network's own logits, on both sides.
        classes: How many logits a pixel has.

    Returns:
        Whether it was replaced.
    """
    from onnx import helper, numpy_helper

    graph = model.graph
    last = next((node for node in graph.node if LOGITS in node.output), None)
    if last is None or factor < 2 or not _is_bilinear(last) or (factor == 2 and classes > _MOST_DOUBLED):
        return False
    weights = _mixtures(factor) if factor > 2 else _block_diagonal(_mixtures(factor), classes)
    constants: dict[str, NDArray[Any]] = {
        f"{PREFIX}weights": weights,
        f"{PREFIX}pads": np.array([1, 1, 1, 1], np.int64),
        f"{PREFIX}sides": np.array([2, 3], np.int64),
    }
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    padded, phases = f"{PREFIX}padded", phases_of_classes(classes)

    def convolve(value: str, output: str) -> Any:
        return helper.make_node("Conv", [value, f"{PREFIX}weights"], [output], name=output, kernel_shape=[3, 3])

    def split(value: str, parts: list[str]) -> Any:
        return helper.make_node("Split", [value], parts, name=f"{value}/Split", axis=1, num_outputs=classes)

    if factor > 2:
        logits = [f"{padded}/{number}" for number in range(classes)]
        together = helper.make_node("Concat", phases, [PHASES], axis=1)
        mixing = [split(padded, logits), *map(convolve, logits, phases), together]
    else:
        mixing = [convolve(padded, PHASES), split(PHASES, phases)]
    nodes = [
        helper.make_node("Pad", [last.input[0], f"{PREFIX}pads", "", f"{PREFIX}sides"], [padded], mode="edge"),
        *mixing,
        depth_to_space(PHASES, LOGITS, factor=factor),
    ]
    place = list(graph.node).index(last)
    all_nodes = [*graph.node[:place], *nodes, *graph.node[place + 1 :]]
    del graph.node[:]
    graph.node.extend(all_nodes)
    return True


def phases_of_classes(classes: int) -> list[str]:
    """Return the names of the phases of each class."""
    return [f"{PHASES}/{number}" for number in range(classes)]


def depth_to_space(value: str, output: str, *, factor: int) -> Any:
    """Return the node that spreads f² channels over f × f pixels."""
    from onnx import helper

    name = f"{PREFIX}spread/{output}"
    return helper.make_node("DepthToSpace", [value], [output], name=name, blocksize=factor, mode="CRD")


def factor_of(model: Any) -> int | None:
    """Return by how much PHASES are to be enlarged; None where there are none."""
    spreading = (node for node in model.graph.node if PHASES in node.input and node.op_type == "DepthToSpace")
    options = (option for node in spreading for option in node.attribute)
    return next((int(option.i) for option in options if option.name == "blocksize"), None)


def _is_bilinear(node: Any) -> bool:
    from onnx import helper

    options = {option.name: helper.get_attribute_value(option) for option in node.attribute}
    places = options.get("coordinate_transformation_mode", b"half_pixel")
    return (
        node.op_type == "Resize"
        and options.get("mode") == b"linear"
        and places in (b"half_pixel", b"pytorch_half_pixel")
    )


def _mixtures(factor: int) -> NDArray[np.float32]:
    """Return the weights (f², 1, 3, 3): each phase is a mixture of a small pixel's neighbors."""
    position = (np.arange(factor) + 0.5) / factor - 0.5  # of the new pixels, from the center of the small one
    taps = np.stack([np.maximum(-position, 0), 1 - np.abs(position), np.maximum(position, 0)], axis=1)
    return np.asarray(np.einsum("ay,bx->abyx", taps, taps).reshape(factor**2, 1, 3, 3), np.float32)


def _block_diagonal(mixtures: NDArray[np.float32], classes: int) -> NDArray[np.float32]:
    """Return the weights (C·f², C, 3, 3) that apply mixtures (f², 1, 3, 3) to each class and to no other."""
    weights = np.einsum("cd,pyx->cpdyx", np.eye(classes, dtype=np.float32), mixtures[:, 0])
    return np.asarray(weights.reshape(-1, classes, 3, 3), np.float32)
