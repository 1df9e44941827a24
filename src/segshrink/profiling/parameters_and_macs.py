"""What a model costs on any machine: its parameters and multiply-accumulates."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.utils.flop_counter import FlopCounterMode

    from segshrink.models import SegmentationModel


def count_macs(model: SegmentationModel, *, size: int) -> int:
    """Return the multiply-accumulates of one image of ``size`` x ``size`` pixels (half of torch's FLOP count).

    Convolutions, matrix products and attention count; element-wise operations don't, as is usual in the field.
    """
    return int(count_flops(model, size=size).get_total_flops()) // 2


def count_flops(model: SegmentationModel, *, size: int) -> FlopCounterMode:
    """Run a model on one image of ``size`` x ``size`` pixels, in eval mode, and return torch's counter of its FLOPs."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    device = next(model.parameters()).device
    image = torch.zeros(1, model.description.bands, size, size, dtype=torch.uint8, device=device)
    counter = FlopCounterMode(display=False)
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), counter:
            model(image)
    finally:
        model.train(was_training)
    return counter


def count_file_parameters(file: Path) -> int | None:
    """Return how many weights an exported file holds; None where nothing here can read it.

    Batch normalization is folded into convolutions by an export, so there may be fewer than the network has.
    """
    count = {".onnx": _count_onnx, ".xml": _count_openvino}.get(file.suffix.lower())
    try:
        return None if count is None else count(file)
    except Exception:  # a file that can't be read fails, with its reason, where it is run
        return None


def _count_onnx(file: Path) -> int:
    """Count the elements of number tensors; scales and zero points of a quantized file are no parameters."""
    import onnx

    model = onnx.load(str(file), load_external_data=False)
    kinds = onnx.TensorProto
    weights = {kinds.FLOAT, kinds.FLOAT16, kinds.BFLOAT16, kinds.DOUBLE, kinds.INT8, kinds.UINT8, kinds.INT32}
    scales: set[str] = set()
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            scales.update(node.input[1:])
    return sum(
        math.prod(tensor.dims)
        for tensor in model.graph.initializer
        if tensor.data_type in weights and tensor.name not in scales
    )


def _count_openvino(file: Path) -> int:
    """Count the elements of constants that are numbers, not shapes or axes."""
    import openvino

    model: Any = openvino.Core().read_model(str(file))
    weights = ("f32", "f16", "bf16", "f64", "i8", "u8", "i4", "u4")
    return sum(
        math.prod(tuple(operation.get_output_shape(0)))
        for operation in model.get_ops()
        if operation.get_type_name() == "Constant" and operation.get_output_element_type(0).get_type_name() in weights
    )
