"""Writing a model as one self-contained ONNX file: raw pixels of any size in, logits out."""

from __future__ import annotations

import copy
import json
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from segshrink.errors import MissingExtraError, ModelError
from segshrink.files import replacing
from segshrink.models import SegmentationModel
from segshrink.prediction.onnx_backend import METADATA_KEY, OnnxBackend

INPUT, OUTPUT = "images", "logits"
TOLERANCE = 1e-3  # of the largest logit; what was measured is 1e-5 and less
SMALLEST_DIFFERENCE = 1e-6  # below it logits are equal, however small they all are


def export_onnx(model: SegmentationModel, path: str | Path) -> Path:
    """Write a model as ONNX and prove that ONNX Runtime gives what PyTorch gives.

    The file takes ``images`` (N, bands, H, W), raw uint8 pixel values (float32 for models of other pixel types), with
    any N, H and W, and gives ``logits`` (N, C, H, W) float32. Normalisation, padding to the network's stride and
    cropping back are part of the graph. The metadata entry "segshrink" holds the model's description as JSON.

    Before the file gets its name it runs in ONNX Runtime at four sizes, among them odd ones and one smaller than the
    stride, and is compared with the model.

    Args:
        model: Left as it is, whatever its device and mode.
        path: File to write, ending in ``.onnx``.

    Returns:
        The path.

    Raises:
        ModelError: The network can't be expressed in ONNX, or differs from PyTorch by more than a thousandth of the
            largest logit. No file is left then.
        FileError: The file can't be written.
        MissingExtraError: onnx or onnxscript isn't installed.
    """
    path = Path(path)
    if path.suffix.lower() != ".onnx":
        raise ModelError(f"{path} must end in .onnx, so that it is recognised when it is opened")
    reference = copy.deepcopy(model).cpu().eval()
    graph = _to_onnx(reference)
    with replacing(path) as temporary:
        temporary.write_bytes(graph.SerializeToString())
        _compare(reference, temporary, final=path)
    return path


class _Aligned(nn.Module):
    """The part that is traced: normalisation and network, for sizes that are multiples of the stride."""

    def __init__(self, model: SegmentationModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.model.forward_aligned(images)


def _to_onnx(model: SegmentationModel) -> Any:
    """Return an ``onnx.ModelProto``."""
    try:
        import onnx
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("exporting to ONNX", "train") from error
    description = model.description
    any_size = torch.export.Dim.AUTO
    pixels = torch.uint8 if description.dtype == "uint8" else torch.float32
    # At least two of everything, and unlike, or the exporter takes a size for a constant or two sizes for one.
    example = torch.zeros(2, description.bands, 2 * description.stride, 3 * description.stride, dtype=pixels)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter's talk about its own insides
            program = torch.onnx.export(
                _Aligned(model).eval(),
                (example,),
                dynamo=True,
                dynamic_shapes=({0: any_size, 2: any_size, 3: any_size},),
                input_names=[INPUT],
                output_names=[OUTPUT],
                verbose=False,
            )
    except Exception as error:  # the exporter raises what the network's operators raise
        reason = _reason(error)
        raise ModelError(
            f"model '{description.id}' can't be expressed in ONNX ({reason}); choose another model"
        ) from error
    if program is None:
        raise ModelError(f"model '{description.id}' can't be expressed in ONNX; choose another model")
    graph = program.model_proto
    _strip(graph)
    _pad_inside(graph, stride=description.stride, classes=len(description.classes.names))
    onnx.helper.set_model_props(graph, {METADATA_KEY: json.dumps(description.to_dict())})
    onnx.checker.check_model(graph)
    return graph


def _reason(error: BaseException) -> str:
    """Return the first line of what lies at the bottom of an exporter's error, without terminal colours."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip()
    return text.splitlines()[0].rstrip(".") if text else type(error).__name__


def _strip(model: Any) -> None:
    """Remove what tells about the exporting machine (stack traces with paths) and the sizes of inner values."""
    graph = model.graph
    del graph.value_info[:]
    for item in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer, *model.functions):
        del item.metadata_props[:]
        item.doc_string = ""


def _pad_inside(model: Any, *, stride: int, classes: int) -> None:
    """Repeat the right and bottom edge before the graph and crop back after it, as ``SegmentationModel`` does.

    To a multiple of ``stride``, and to twice the stride at least. Written in ONNX by hand: torch's exporter can't prove
    that sizes which depend on a remainder fit where a network joins its branches.
    """
    from onnx import TensorProto, helper, numpy_helper

    graph = model.graph
    _rename(graph, {INPUT: "padded_images", OUTPUT: "padded_logits"})
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
    after = helper.make_node("Slice", ["padded_logits", "nothing", "size", "rows_and_columns"], [OUTPUT])
    nodes = [*before, *graph.node, after]
    del graph.node[:]
    graph.node.extend(nodes)
    pixels = graph.input[0].type.tensor_type.elem_type
    bands = graph.input[0].type.tensor_type.shape.dim[1].dim_value
    del graph.input[:], graph.output[:]
    graph.input.append(helper.make_tensor_value_info(INPUT, pixels, ["batch", bands, "height", "width"]))
    shape: Sequence[str | int] = ["batch", classes, "height", "width"]
    graph.output.append(helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, shape))


def _rename(graph: Any, names: dict[str, str]) -> None:
    for node in graph.node:
        for values in (node.input, node.output):
            values[:] = [names.get(value, value) for value in values]


def _compare(model: SegmentationModel, file: Path, *, final: Path) -> None:
    """Raise ``ModelError`` where ONNX Runtime and PyTorch differ by more than the tolerance."""
    bands, stride = model.description.bands, model.description.stride
    sizes = ((1, 2 * stride, 2 * stride), (2, 3 * stride, 4 * stride), (1, 2 * stride + 1, 3 * stride - 1), (3, 5, 7))
    backend = OnnxBackend(file, threads=torch.get_num_threads())
    generator = np.random.default_rng(0)
    for count, height, width in sizes:
        images = generator.integers(0, 256, (count, height, width, bands), dtype=np.uint8)
        with torch.inference_mode():
            expected = model(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
        found = backend.run(images)
        difference = float(np.abs(found - expected).max()) if found.shape == expected.shape else float("inf")
        if not difference <= max(TOLERANCE * float(np.abs(expected).max()), SMALLEST_DIFFERENCE):
            raise ModelError(
                f"{final} was not written: at {count} x {height} x {width} pixels ONNX Runtime's logits differ from "
                f"PyTorch's by {difference:.3g}; choose another model or report this one ('{model.description.id}')"
            )
