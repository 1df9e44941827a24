"""Logits enlarged by a convolution, where a network ends in a bilinear resize.

Enlarging by a whole factor f gives each of the f × f pixels that a small pixel becomes a fixed mixture of its 3 × 3
neighbours: a convolution to f² channels a class, whose channels are then spread over the pixels (Shi 2016, DOI
10.1109/CVPR.2016.207). Runtimes do that quicker than a resize, and choose classes before they spread them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from segshrink.export.tracing import LOGITS

# Prefix of everything here; quantisation leaves it alone. The values before they are spread are called PHASES.
PREFIX = "enlarging/"
PHASES = f"{PREFIX}phases"
# The convolution mixes all classes with all: of more classes that costs more than it saves, and for large factors its
# weights (classes² · factor² · 9) make the file large.
_MOST_CLASSES, _MOST_CLASSES_TIMES_FACTOR = 12, 48


def enlarge_by_convolution(model: Any, *, factor: int, classes: int) -> bool:
    """Replace the resize that gives ``logits``, where there is one and few classes.

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
    if last is None or factor < 2 or not _is_bilinear(last):
        return False
    if classes > _MOST_CLASSES or classes * factor > _MOST_CLASSES_TIMES_FACTOR:
        return False
    constants: dict[str, NDArray[Any]] = {
        "weights": _mixtures(factor, classes),
        "pads": np.array([1, 1, 1, 1], np.int64),
        "sides": np.array([2, 3], np.int64),
    }
    graph.initializer.extend(numpy_helper.from_array(value, f"{PREFIX}{name}") for name, value in constants.items())
    edged = f"{PREFIX}edged"
    nodes = [
        helper.make_node("Pad", [last.input[0], f"{PREFIX}pads", "", f"{PREFIX}sides"], [edged], mode="edge"),
        helper.make_node("Conv", [edged, f"{PREFIX}weights"], [PHASES], kernel_shape=[3, 3]),
        spread(PHASES, LOGITS, factor=factor),
    ]
    place = list(graph.node).index(last)
    kept = [*graph.node[:place], *nodes, *graph.node[place + 1 :]]
    del graph.node[:]
    graph.node.extend(kept)
    return True


def spread(value: str, output: str, *, factor: int) -> Any:
    """Return the node that spreads f² channels over f × f pixels."""
    from onnx import helper

    return helper.make_node(
        "DepthToSpace", [value], [output], name=f"{PREFIX}spread/{output}", blocksize=factor, mode="CRD"
    )


def factor_of(model: Any) -> int | None:
    """Return by how much PHASES are to be enlarged; None where there are none."""
    node = next((node for node in model.graph.node if PHASES in node.input), None)
    return None if node is None else int(next(one.i for one in node.attribute if one.name == "blocksize"))


def _is_bilinear(node: Any) -> bool:
    from onnx import helper

    if node.op_type != "Resize":
        return False
    options = {one.name: helper.get_attribute_value(one) for one in node.attribute}
    places = options.get("coordinate_transformation_mode", b"half_pixel")
    return options.get("mode") == b"linear" and places in (b"half_pixel", b"pytorch_half_pixel")


def _mixtures(factor: int, classes: int) -> NDArray[np.float32]:
    """Return the weights (C·f², C, 3, 3): phase p of a class is a mixture of that class's neighbours."""
    position = (np.arange(factor) + 0.5) / factor - 0.5  # of the new pixels, around the small one's middle
    taps = np.stack([np.maximum(-position, 0), 1 - np.abs(position), np.maximum(position, 0)], axis=1)
    phases = np.einsum("ay,bx->abyx", taps, taps).reshape(factor**2, 3, 3)
    weights = np.zeros((classes, factor**2, classes, 3, 3), np.float32)
    for number in range(classes):
        weights[number, :, number] = phases
    return weights.reshape(classes * factor**2, classes, 3, 3)
