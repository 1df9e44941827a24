"""From a model to an ONNX graph, for sizes that are multiples of its stride."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from segshrink.errors import ModelError
from segshrink.extras import needing, quiet_library
from segshrink.models import SegmentationModel

INPUT, LOGITS = "images", "logits"


def trace(model: SegmentationModel, *, pixels: torch.dtype) -> Any:
    """Return an ``onnx.ModelProto`` from ``images`` (N, bands, H, W) of raw pixels to ``logits`` (N, C, H, W).

    Args:
        model: In evaluation mode, on the CPU.
        pixels: Type of the raw pixels.

    Raises:
        ModelError: The network can't be expressed in ONNX.
        MissingExtraError: onnx or onnxscript isn't installed.
    """
    require_onnx()
    description = model.description
    any_size = torch.export.Dim.AUTO
    # At least two of everything, and unlike, or the exporter takes a size for a constant or two sizes for one.
    example = torch.zeros(2, description.bands, 2 * description.stride, 3 * description.stride, dtype=pixels)
    try:
        with quiet_library(), _constant_padding():
            program = torch.onnx.export(
                _Aligned(model).eval(),
                (example,),
                dynamo=True,
                dynamic_shapes=({0: any_size, 2: any_size, 3: any_size},),
                input_names=[INPUT],
                output_names=[LOGITS],
                verbose=False,
                custom_translation_table={
                    torch.ops.aten._adaptive_avg_pool2d.default: _adaptive_average_pool,
                    torch.ops.aten.adaptive_avg_pool2d.default: _adaptive_average_pool,
                },
            )
    except Exception as error:  # the exporter raises what the network's operators raise
        reason = _reason(error)
        layer = _layer(model, example, reason)
        where = f", layer '{layer}'" if layer else ""
        raise ModelError(
            f"model '{description.id}'{where} can't be expressed in ONNX ({reason}); choose another model"
        ) from error
    if program is None:
        raise ModelError(f"model '{description.id}' can't be expressed in ONNX; choose another model")
    graph = program.model_proto
    _strip(graph)
    return graph


def enlargement(model: SegmentationModel) -> int | None:
    """Return how many times as large as the network's own logits an image is; None unless it is one whole number."""
    side = 2 * model.description.stride
    with torch.inference_mode():
        height, width = model.network(torch.zeros(1, model.description.bands, side, side)).shape[-2:]
    return side // height if height == width and side % height == 0 else None


def require_onnx() -> None:
    """Raise ``MissingExtraError`` where onnx or onnxscript isn't installed."""
    with needing("exporting to ONNX", "train"):
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401


class _Aligned(nn.Module):
    """The part that is traced: normalization and network, for sizes that are multiples of the stride."""

    def __init__(self, model: SegmentationModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.model.forward_aligned(images)


@contextmanager
def _constant_padding() -> Iterator[None]:
    """Let timm's layers with TensorFlow's padding ("same") pad as they do where a side is a multiple of their stride.

    timm computes the padding from the size, and the exporter follows that as a formula, which grows with each layer:
    one EfficientNet takes it minutes.
    """
    padding: Any = sys.modules.get("timm.layers.padding")
    if padding is None:
        yield
        return
    original = padding.get_same_padding
    padding.get_same_padding = _same_padding
    try:
        yield
    finally:
        padding.get_same_padding = original


def _same_padding(side: Any, kernel_size: int, stride: int, dilation: int) -> int:
    """Return how much is put around a side that is a multiple of the stride, at both ends together."""
    return max((kernel_size - 1) * dilation + 1 - stride, 0)


def _adaptive_average_pool(self: Any, output_size: Sequence[Any]) -> Any:
    """Average (N, C, H, W) over ``output_size`` cells; the argument names are those of PyTorch's operator.

    ONNX has no such operator, and what the exporter writes holds for the size of its example alone. Pooling is a
    product with two matrices of averages, one for rows and one for columns, which the graph computes from the size of
    its input. A number of cells that depends on that is a value of the graph.
    """
    from onnxscript import opset18

    op: Any = opset18  # whose types know tensors of constants only
    if all(isinstance(cells, int) and cells == 1 for cells in output_size):
        return op.GlobalAveragePool(self)
    rows = _averages(op, op.Shape(self, start=2, end=3), output_size[0])
    columns = _averages(op, op.Shape(self, start=3, end=4), output_size[1])
    return op.MatMul(op.MatMul(rows, self), op.Transpose(columns, perm=[1, 0]))


def _averages(op: Any, size: Any, cells: Any) -> Any:
    """Return the matrix (cells, size) that averages a side: cell i holds floor(i·size/cells) to ceil((i+1)·...)."""
    from onnx import TensorProto

    zero, one = (op.Constant(value_int=number) for number in (0, 1))
    count = op.Constant(value_int=cells) if isinstance(cells, int) else cells
    length = op.Squeeze(size)
    pixel = op.Unsqueeze(op.Range(zero, length, one), op.Constant(value_ints=[0]))
    cell = op.Unsqueeze(op.Range(zero, count, one), op.Constant(value_ints=[1]))
    start = op.Div(op.Mul(cell, length), count)
    end = op.Div(op.Add(op.Mul(op.Add(cell, one), length), op.Sub(count, one)), count)
    inside = op.And(op.GreaterOrEqual(pixel, start), op.Less(pixel, end))
    return op.Div(op.Cast(inside, to=TensorProto.FLOAT), op.Cast(op.Sub(end, start), to=TensorProto.FLOAT))


def _reason(error: BaseException) -> str:
    """Return the first line of the innermost cause of an exporter's error, without terminal colors."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip()
    return text.splitlines()[0].rstrip(".") if text else type(error).__name__


def _layer(model: SegmentationModel, example: torch.Tensor, reason: str) -> str | None:
    """Return the name of the first layer that uses the operator which the exporter's message names."""
    operator = re.search(r"op='\w+\.(\w+)'", reason)
    if operator is None:
        return None
    program = torch.export.export(_Aligned(model).eval(), (example,))
    for node in program.graph.nodes:
        if operator[1] in str(node.target) and (stack := node.meta.get("nn_module_stack")):
            path = str(list(stack.values())[-1][0])
            return path.removeprefix("model.network").removeprefix(".") or None
    return None


def _strip(model: Any) -> None:
    """Remove what tells about the exporting machine (stack traces with paths) and the sizes of inner values."""
    graph = model.graph
    del graph.value_info[:]
    for item in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer, *model.functions):
        del item.metadata_props[:]
        item.doc_string = ""
