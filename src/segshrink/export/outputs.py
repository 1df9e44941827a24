"""What a file answers beside logits, computed inside its graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from segshrink.errors import UsageError, nearest
from segshrink.export.enlarging import factor_of, phases_of_classes, spread
from segshrink.export.padding import CROP
from segshrink.export.tracing import LOGITS
from segshrink.prediction.exported import OUTPUTS

PROBABILITIES, CLASSES = "probabilities", "classes"


def check_outputs(outputs: Sequence[str]) -> tuple[str, ...]:
    """Return the outputs in a fixed order, each once.

    Raises:
        ModelError: There is none, or one is unknown.
    """
    for name in outputs:
        if name not in OUTPUTS:
            raise UsageError(f"unknown output '{name}'{nearest(name, OUTPUTS)}")
    if not outputs:
        raise UsageError(f"a file must give something; choose among {', '.join(OUTPUTS)}")
    return tuple(name for name in OUTPUTS if name in outputs)


def give(model: Any, outputs: Sequence[str], *, classes: int) -> None:
    """Let a graph whose only output is ``logits`` give ``outputs``.

    ``probabilities`` (N, C, H, W) float32 is the softmax, ``classes`` (N, H, W) uint8 the most likely class, the first
    of equals. The latter is a running maximum over the channels, band of logits by band of logits: ONNX Runtime takes
    half of ArgMax's time for it and a fifth of TopK's, and OpenVINO turns it into one loop.

    Args:
        model: An ``onnx.ModelProto``; changed in place.
        outputs: As from ``check_outputs``.
        classes: How many logits a pixel has.
    """
    from onnx import TensorProto, helper

    graph = model.graph
    if PROBABILITIES in outputs:
        graph.node.append(helper.make_node("Softmax", [LOGITS], [PROBABILITIES], name="probabilities/softmax", axis=1))
    if CLASSES in outputs:
        _most_likely(graph, classes, factor_of(model))
    shape: Sequence[str | int] = ["batch", classes, "height", "width"]
    infos = {
        LOGITS: (TensorProto.FLOAT, shape),
        PROBABILITIES: (TensorProto.FLOAT, shape),
        CLASSES: (TensorProto.UINT8, ["batch", "height", "width"]),
    }
    del graph.output[:]
    graph.output.extend(helper.make_tensor_value_info(name, *infos[name]) for name in outputs)


def _most_likely(graph: Any, classes: int, factor: int | None) -> None:
    """Add a running maximum over the classes of logits, or of their phases, which are spread when they are bytes."""
    from onnx import TensorProto, helper, numpy_helper

    if classes == 1:
        index = f"{CLASSES}/index"
        graph.node.append(helper.make_node("ArgMax", [LOGITS], [index], axis=1, keepdims=0))
        graph.node.append(helper.make_node("Cast", [index], [CLASSES], to=TensorProto.UINT8))
        return
    phases = phases_of_classes(classes)
    whole = (LOGITS, *phases, *CROP)

    def node(kind: str, takes: list[str], gives: list[str], **options: Any) -> None:
        names = [f"{CLASSES}/{name}" if name not in whole else name for name in takes]
        made = [f"{CLASSES}/{name}" for name in gives]
        graph.node.append(helper.make_node(kind, names, made, name=f"{made[0]}/{kind}", **options))

    numbers = [numpy_helper.from_array(np.array(number, np.uint8), f"{CLASSES}/{number}") for number in range(classes)]
    axis = numpy_helper.from_array(np.array([1], np.int64), f"{CLASSES}/axis")
    graph.initializer.extend([*numbers, axis])
    parts = phases
    if factor is None:
        parts = [f"logit{number}" for number in range(classes)]
        node("Split", [LOGITS], parts, axis=1, num_outputs=classes)
    best, index = parts[0], "0"
    for number in range(1, classes):
        node("Greater", [parts[number], best], [f"better{number}"])
        node("Where", [f"better{number}", str(number), index], [f"index{number}"])
        if number + 1 < classes:
            node("Max", [best, parts[number]], [f"best{number}"])
        best, index = f"best{number}", f"index{number}"
    if factor is not None:
        graph.node.append(spread(f"{CLASSES}/{index}", f"{CLASSES}/padded", factor=factor))
        node("Slice", ["padded", *CROP], ["cropped"])
        index = "cropped"
    graph.node.append(
        helper.make_node("Squeeze", [f"{CLASSES}/{index}", f"{CLASSES}/axis"], [CLASSES], name=f"{CLASSES}/Squeeze")
    )
