"""Writing a model for OpenVINO: raw pixels of any size in, logits and classes out."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from segshrink.errors import ModelError
from segshrink.export.onnx import DEFAULT_OUTPUTS, to_onnx
from segshrink.export.parity import TOLERANCE, check_parity
from segshrink.files import replacing
from segshrink.models import SegmentationModel
from segshrink.prediction.exported import METADATA_KEY
from segshrink.prediction.openvino_backend import OpenVinoBackend
from segshrink.prediction.openvino_graphs import require_openvino

HALF_TOLERANCE = 1e-2  # of the largest logit, with weights of 11 significant bits


def export_openvino(
    model: SegmentationModel,
    path: str | Path,
    *,
    outputs: Sequence[str] = DEFAULT_OUTPUTS,
    half: bool = False,
    overwrite: bool = False,
) -> Path:
    """Write a model as an OpenVINO file, ``.xml`` with its ``.bin``, and prove that it gives what PyTorch gives.

    Made from the graph that ``export_onnx`` writes, so inputs, outputs and any size are the same. The entry "segshrink"
    of the file's ``rt_info`` holds the model's description as JSON. The comparison runs in fp32, to which OpenVINO is
    told to keep; left to itself it computes in bf16 where the processor does.

    Args:
        model: Left as it is, whatever its device and mode.
        path: File to write, ending in ``.xml``; the weights go beside it.
        outputs: What the file gives: some of "logits", "probabilities" and "classes".
        half: Store weights in 16 bits, which halves the file; OpenVINO still computes in what its user asks for.
        overwrite: Replace files that this program did not write.

    Returns:
        The path of the ``.xml``.

    Raises:
        ModelError: The network can't be expressed, or differs from PyTorch by more than a thousandth of the largest
            logit (a hundredth with ``half``). No file is left then.
        FileError: The files can't be written.
        MissingExtraError: OpenVINO, onnx or onnxscript isn't installed.
    """
    path = Path(path)
    if path.suffix.lower() != ".xml":
        raise ModelError(f"{path} must end in .xml, so that it is recognised when it is opened")
    openvino = require_openvino()
    reference = copy.deepcopy(model).cpu().eval()
    graph = to_onnx(reference, outputs=outputs)
    both = partial(replacing, overwrite=overwrite)
    with both(path.with_suffix(".bin")) as weights, both(path) as temporary:
        (weights.parent / "graph.onnx").write_bytes(graph.SerializeToString())
        save_openvino(openvino, weights.parent / "graph.onnx", temporary, reference, half=half)
        backend = OpenVinoBackend(temporary, precision="32", threads=torch.get_num_threads())
        check_parity(reference, backend, final=path, tolerance=HALF_TOLERANCE if half else TOLERANCE)
        temporary.with_suffix(".bin").rename(weights)
    return path


def save_openvino(openvino: Any, source: Path, path: Path, model: SegmentationModel, *, half: bool) -> None:
    """Convert an ONNX file of ours to OpenVINO's files, unproven.

    Args:
        openvino: The module.
        source: The ONNX file.
        path: The ``.xml`` to write.
        model: Whose description the file carries.
        half: Store weights in 16 bits.

    Raises:
        ModelError: OpenVINO lacks an operator.
    """
    try:
        converted = openvino.convert_model(source)
    except Exception as error:  # the front end's exceptions have no common public base
        lines = [line for line in str(error).splitlines() if line.strip() and not line.startswith("Exception from")]
        reason = (lines or [type(error).__name__])[0].strip().rstrip(".")
        raise ModelError(
            f"model '{model.description.id}' can't be expressed in OpenVINO ({reason}); choose another model, or ONNX"
        ) from error
    converted.set_rt_info(json.dumps(model.description.to_dict()), [METADATA_KEY])
    openvino.save_model(converted, path, compress_to_fp16=half)
