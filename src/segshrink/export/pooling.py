"""Adaptive average pooling in ONNX, which has no operator for it, at any size of the image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch


def pooling_translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Return how ``torch.onnx.export`` is to write adaptive average pooling, for its ``custom_translation_table``.

    The exporter's own way holds for the size of its example alone. Pooling to fixed numbers of cells is a product with
    two matrices of averages, one for rows and one for columns, which the graph makes from the size that it meets.
    """
    return {
        torch.ops.aten._adaptive_avg_pool2d.default: _pool,
        torch.ops.aten.adaptive_avg_pool2d.default: _pool,
    }


def _pool(self: Any, output_size: Sequence[int]) -> Any:
    """Average (N, C, H, W) over ``output_size`` cells; the argument names are those of PyTorch's operator."""
    from onnxscript import opset18

    op: Any = opset18  # whose types know tensors of constants only
    if tuple(output_size) == (1, 1):
        return op.GlobalAveragePool(self)
    rows = _averages(op.Shape(self, start=2, end=3), output_size[0])
    columns = _averages(op.Shape(self, start=3, end=4), output_size[1])
    return op.MatMul(op.MatMul(rows, self), op.Transpose(columns, perm=[1, 0]))


def _averages(size: Any, cells: int) -> Any:
    """Return the matrix (cells, size) by which a side is averaged: cell i holds floor(i·size/cells) to ceil(...)."""
    from onnx import TensorProto
    from onnxscript import opset18

    op: Any = opset18
    zero, one, count = (op.Constant(value_int=number) for number in (0, 1, cells))
    length = op.Squeeze(size)
    pixel = op.Unsqueeze(op.Range(zero, length, one), op.Constant(value_ints=[0]))
    cell = op.Unsqueeze(op.Range(zero, count, one), op.Constant(value_ints=[1]))
    start = op.Div(op.Mul(cell, length), count)
    end = op.Div(op.Add(op.Mul(op.Add(cell, one), length), op.Sub(count, one)), count)
    inside = op.And(op.GreaterOrEqual(pixel, start), op.Less(pixel, end))
    return op.Div(op.Cast(inside, to=TensorProto.FLOAT), op.Cast(op.Sub(end, start), to=TensorProto.FLOAT))
