"""Padding inside an ONNX graph, so that a file takes images of any size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from segshrink.export.tracing import INPUT, LOGITS

# What a Slice takes beside the value that it crops to the image's size.
CROP = ("nothing", "size", "rows_and_columns")


def pad_inside(model: Any, *, stride: int, classes: int) -> None:
    """Repeat the right and bottom edge before the graph and crop back after it, as ``SegmentationModel`` does.

    To a multiple of ``stride``, and to twice the stride at least. Written in ONNX by hand: torch's exporter can't prove
    that sizes which depend on a remainder fit where a network joins its branches.

    Args:
        model: An ``onnx.ModelProto`` from ``trace``; changed in place.
        stride: The model's stride.
        classes: Number of its classes.
    """
    from onnx import TensorProto, helper, numpy_helper

    graph = model.graph
    _rename(graph, {INPUT: "padded_images", LOGITS: "padded_logits"})
    constants = {
        "stride": [stride, stride],
        "least_size": [2 * stride, 2 * stride],
        "nothing": [0, 0],
        "rows_and_columns": [2, 3],
    }
    graph.initializer.extend(
        numpy_helper.from_array(np.array(value, np.int64), name) for name, value in constants.items()
    )
    before = [
        helper.make_node("Shape", [INPUT], ["size"], start=2, end=4),
        helper.make_node("Neg", ["size"], ["negative_size"]),
        helper.make_node("Mod", ["negative_size", "stride"], ["to_multiple"]),  # takes the sign of the stride
        helper.make_node("Sub", ["least_size", "size"], ["to_least_size"]),
        helper.make_node("Max", ["to_multiple", "to_least_size"], ["missing"]),
        helper.make_node("Concat", ["nothing", "missing"], ["pads"], axis=0),
        helper.make_node("Pad", [INPUT, "pads", "", "rows_and_columns"], ["padded_images"], mode="edge"),
    ]
    after = helper.make_node("Slice", ["padded_logits", *CROP], [LOGITS], name="crop")
    nodes = [*before, *graph.node, after]
    del graph.node[:]
    graph.node.extend(nodes)
    pixels = graph.input[0].type.tensor_type.elem_type
    bands = graph.input[0].type.tensor_type.shape.dim[1].dim_value
    del graph.input[:], graph.output[:]
    graph.input.append(helper.make_tensor_value_info(INPUT, pixels, ["batch", bands, "height", "width"]))
    shape: Sequence[str | int] = ["batch", classes, "height", "width"]
    graph.output.append(helper.make_tensor_value_info(LOGITS, TensorProto.FLOAT, shape))


def _rename(graph: Any, names: dict[str, str]) -> None:
    for node in graph.node:
        for values in (node.input, node.output):
            values[:] = [names.get(value, value) for value in values]
