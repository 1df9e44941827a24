"""Writing a model as one self-contained ONNX file: raw pixels of any size in, logits and classes out."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from segshrink.errors import ModelError
from segshrink.export.enlarging import enlarge_by_convolution
from segshrink.export.graph_interface import check_outputs, give, pad_inside, resize_inside
from segshrink.export.metadata import describe_onnx
from segshrink.export.parity import check_parity
from segshrink.export.tracing import enlargement, require_onnx, trace
from segshrink.files import replacing
from segshrink.models import SegmentationModel
from segshrink.prediction.runtimes.onnx import OnnxBackend

DEFAULT_OUTPUTS: tuple[str, ...] = ("logits", "classes")


def export_onnx(
    model: SegmentationModel,
    path: str | Path,
    *,
    outputs: Sequence[str] = DEFAULT_OUTPUTS,
    float_pixels: bool = False,
    overwrite: bool = False,
) -> Path:
    """Write a model as ONNX and prove that ONNX Runtime gives what PyTorch gives.

    The file takes ``images`` (N, bands, H, W), raw uint8 pixel values (float32 for models of other pixel types), with
    any N, H and W, and gives ``logits`` (N, C, H, W) float32, ``probabilities`` (N, C, H, W) float32, and ``classes``
    (N, H, W) uint8. Resizing to the working size, normalization, padding to the network's stride and the ways back are
    part of the graph. The metadata entry "segshrink" holds the model's description as JSON; others serve the plugin
    Deepness of QGIS.

    Before the file gets its name it runs in ONNX Runtime at four sizes, among them odd ones and one smaller than the
    stride, and is compared with the model.

    Args:
        model: Left as it is, whatever its device and mode.
        path: File to write, ending in ``.onnx``.
        outputs: What the file gives: some of "logits", "probabilities" and "classes".
        float_pixels: Take float32 pixel values, still raw ones, from a program that can't give bytes. Deepness is one;
            it also needs ``outputs=("probabilities",)``.
        overwrite: Replace a file that this program did not write.

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
        raise ModelError(f"{path} must end in .onnx, so that it is recognized when it is opened")
    reference = copy.deepcopy(model).cpu().eval()
    graph = to_onnx(reference, outputs=outputs, float_pixels=float_pixels)
    with replacing(path, overwrite=overwrite) as temporary:
        temporary.write_bytes(graph.SerializeToString())
        check_parity(reference, OnnxBackend(temporary, threads=torch.get_num_threads()), final=path)
    return path


def to_onnx(model: SegmentationModel, *, outputs: Sequence[str] = DEFAULT_OUTPUTS, float_pixels: bool = False) -> Any:
    """Return the ``onnx.ModelProto`` that ``export_onnx`` writes, without the comparison.

    Args:
        model: In evaluation mode, on the CPU.
        outputs: As in ``export_onnx``.
        float_pixels: As in ``export_onnx``.

    Raises:
        ModelError: The network can't be expressed in ONNX, or an output is unknown.
        MissingExtraError: onnx or onnxscript isn't installed.
    """
    outputs = check_outputs(outputs)
    require_onnx()
    import onnx

    description, resize = model.description, model.description.resize
    takes_bytes = description.dtype == "uint8" and not float_pixels
    graph = trace(model, pixels=torch.uint8 if takes_bytes and resize is None else torch.float32)
    classes = len(description.classes.names)
    if resize is None and (factor := enlargement(model)) is not None:
        enlarge_by_convolution(graph, factor=factor, classes=classes)
    pad_inside(graph, stride=description.stride)
    if resize is not None:
        resize_inside(graph, resize, takes_bytes=takes_bytes)
    give(graph, outputs, classes=classes)
    onnx.helper.set_model_props(graph, describe_onnx(description, takes_bytes=takes_bytes))
    onnx.checker.check_model(graph)
    return graph
