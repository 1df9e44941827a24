"""The two ends of an exported ONNX graph: images of any size go in; logits, probabilities and classes come out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from segshrink.errors import UsageError, nearest
from segshrink.export.enlarging import depth_to_space, factor_of, phases_of_classes
from segshrink.export.graph_builder import GraphBuilder
from segshrink.export.tracing import INPUT, LOGITS
from segshrink.prediction.exported import OUTPUTS
from segshrink.working_size import LONGEST, Resize, halvings, share

PROBABILITIES, CLASSES = "probabilities", "classes"
# Begins the names of all that resizes images and logits.
_RESIZE = "resize/"
# What a Slice takes beside the value that it crops to the image's size.
_CROP = ("nothing", "size", "rows_and_columns")


def check_outputs(outputs: Sequence[str]) -> tuple[str, ...]:
    """Return the outputs in a fixed order, each once.

    Raises:
        UsageError: There is none, or one is unknown.
    """
    for name in outputs:
        if name not in OUTPUTS:
            raise UsageError(f"unknown output '{name}'{nearest(name, OUTPUTS)}")
    if not outputs:
        raise UsageError(f"a file must give something; choose among {', '.join(OUTPUTS)}")
    return tuple(name for name in OUTPUTS if name in outputs)


def pad_inside(model: Any, *, stride: int) -> None:
    """Repeat the right and bottom edge before the graph and crop back after it, as ``SegmentationModel`` does.

    To a multiple of ``stride``, and to twice the stride at least. Written in ONNX by hand: torch's exporter can't prove
    that sizes which depend on a remainder fit where a network joins its branches.

    Args:
        model: An ``onnx.ModelProto`` from ``trace``; changed in place, its only output is ``logits`` afterwards.
        stride: The model's stride.
    """
    from onnx import helper, numpy_helper

    graph = model.graph
    _rename_ends(graph, images="padded_images", logits="padded_logits")
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
    after = helper.make_node("Slice", ["padded_logits", *_CROP], [LOGITS], name="crop")
    nodes = [*before, *graph.node, after]
    del graph.node[:]
    graph.node.extend(nodes)
    images = graph.input[0].type.tensor_type
    shape = ["batch", images.shape.dim[1].dim_value, "height", "width"]
    graph.input[0].CopyFrom(helper.make_tensor_value_info(INPUT, images.elem_type, shape))


def resize_inside(model: Any, resize: Resize, *, takes_bytes: bool) -> None:
    """Bring images to the working size before the graph, and logits back after it, as ``SegmentationModel`` does.

    Args:
        model: An ``onnx.ModelProto`` after ``pad_inside`` that takes float32; changed in place.
        resize: The model's.
        takes_bytes: Whether the graph is to take uint8 pixels.
    """
    from onnx import TensorProto

    graph = model.graph
    small_images, small_logits = f"{_RESIZE}images", f"{_RESIZE}logits"
    _rename_ends(graph, images=small_images, logits=small_logits)
    inner = list(graph.node)
    del graph.node[:]
    build = GraphBuilder(graph, _RESIZE)
    one, two = build.constant([1]), build.constant([2])

    def resized(value: str, size: str, output: str | None = None) -> str:
        shape = build.node("Concat", build.node("Shape", value, start=0, end=2), size, axis=0)
        how = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
        return build.node("Resize", value, "", "", shape, output=output, **how)

    size = build.node("Shape", INPUT, start=2, end=4)
    if isinstance(resize, tuple):
        working = build.constant(resize)
    else:  # rounded as working_size rounds
        numerator, denominator = share(resize) if isinstance(resize, float) else (resize[LONGEST], 0)
        whole = build.constant([denominator]) if denominator else build.node("ReduceMax", size, keepdims=1)
        doubled = build.node("Add", build.node("Mul", size, build.constant([2 * numerator])), whole)
        working = build.node("Max", build.node("Div", doubled, build.node("Mul", whole, two)), one)
    images, half = build.node("Cast", INPUT, to=TensorProto.FLOAT), size
    for _ in range(halvings(resize)):
        half = build.node("Max", build.node("Div", build.node("Add", half, one), two), working)
        images = resized(images, half)
    resized(images, working, small_images)
    graph.node.extend(inner)
    resized(small_logits, size, LOGITS)
    if takes_bytes:
        graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8


def _rename_ends(graph: Any, *, images: str, logits: str) -> None:
    """Give what a graph takes and gives other names inside it."""
    renamed = {INPUT: images, LOGITS: logits}
    for node in graph.node:
        for values in (node.input, node.output):
            values[:] = [renamed.get(value, value) for value in values]


def give(model: Any, outputs: Sequence[str], *, classes: int) -> None:
    """Let a graph that computes ``logits`` give ``outputs``.

    ``probabilities`` (N, C, H, W) float32 is the softmax, ``classes`` (N, H, W) uint8 the most likely class, the first
    of equals.

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
        _give_most_likely(graph, classes, factor_of(model))
    for_each_class: Sequence[str | int] = ["batch", classes, "height", "width"]
    infos = {
        LOGITS: (TensorProto.FLOAT, for_each_class),
        PROBABILITIES: (TensorProto.FLOAT, for_each_class),
        CLASSES: (TensorProto.UINT8, ["batch", "height", "width"]),
    }
    del graph.output[:]
    graph.output.extend(helper.make_tensor_value_info(name, *infos[name]) for name in outputs)


def _give_most_likely(graph: Any, classes: int, factor: int | None) -> None:
    """Add a running maximum over the classes of logits, or of their phases, which are spread when they are bytes.

    Over the channels, logit by logit: ONNX Runtime takes half of ArgMax's time for it and a fifth of TopK's, and
    OpenVINO turns it into one loop.
    """
    from onnx import TensorProto, helper

    build = GraphBuilder(graph, f"{CLASSES}/")
    if classes == 1:
        build.node("Cast", build.node("ArgMax", LOGITS, axis=1, keepdims=0), output=CLASSES, to=TensorProto.UINT8)
        return
    if factor is not None:
        logits = phases_of_classes(classes)
    else:
        logits = [f"{CLASSES}/logit{number}" for number in range(classes)]
        graph.node.append(
            helper.make_node("Split", [LOGITS], logits, name=f"{CLASSES}/Split", axis=1, num_outputs=classes)
        )
    best, index = logits[0], build.constant(0, np.uint8)
    for number in range(1, classes):
        better = build.node("Greater", logits[number], best)
        index = build.node("Where", better, build.constant(number, np.uint8), index)
        if number + 1 < classes:
            best = build.node("Max", best, logits[number])
    if factor is not None:
        graph.node.append(depth_to_space(index, f"{CLASSES}/padded", factor=factor))
        index = build.node("Slice", f"{CLASSES}/padded", *_CROP)
    build.node("Squeeze", index, build.constant([1]), output=CLASSES)
