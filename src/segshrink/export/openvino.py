"""Writing a model for OpenVINO: raw pixels of any size in, logits and classes out."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from segshrink.errors import ModelError
from segshrink.export.onnx import DEFAULT_OUTPUTS, to_onnx
from segshrink.export.parity import TOLERANCE, check_parity
from segshrink.files import replacing, resolved, scratch_folder
from segshrink.model_file import ModelFile
from segshrink.models import SegmentationModel
from segshrink.prediction.exported import METADATA_KEY
from segshrink.prediction.runtimes.openvino import OpenVinoBackend, openvino_reason, require_openvino

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
        raise ModelError(f"{path} must end in .xml, so that it is recognized when it is opened")
    reference = copy.deepcopy(model).cpu().eval()
    graph = to_openvino(to_onnx(reference, outputs=outputs), name=f"model '{model.description.id}'")
    _, weights = ModelFile(path).parts
    with replacing(weights, overwrite=overwrite) as new_weights, replacing(path, overwrite=overwrite) as new_path:
        save_openvino(graph, new_path, description=json.dumps(reference.description.to_dict()), half=half)
        backend = OpenVinoBackend(new_path, precision="32", threads=torch.get_num_threads())
        check_parity(reference, backend, final=path, tolerance=HALF_TOLERANCE if half else TOLERANCE)
        ModelFile(new_path).parts[1].rename(new_weights)
        resolved(weights).unlink(missing_ok=True)  # a killed process must not leave the new graph beside old weights
    return path


def to_openvino(graph: Any, *, name: str) -> Any:
    """Convert an ``onnx.ModelProto`` to an ``openvino.Model``.

    Args:
        graph: The ONNX graph.
        name: How the error calls it.

    Raises:
        ModelError: OpenVINO lacks an operator.
        MissingExtraError: OpenVINO isn't installed.
    """
    openvino = require_openvino()
    with scratch_folder() as scratch:
        file = scratch / "graph.onnx"
        file.write_bytes(graph.SerializeToString())
        try:
            return openvino.convert_model(file)  # folds what read_model leaves in hundreds of small operations
        except Exception as error:  # the front end's exceptions have no common public base
            reason = openvino_reason(error)
            raise ModelError(
                f"{name} can't be expressed in OpenVINO ({reason}); choose another model, or ONNX"
            ) from error


def save_openvino(graph: Any, path: Path, *, description: str, half: bool = False) -> None:
    """Write an ``openvino.Model`` with a model's description and nothing that tells about this machine.

    Args:
        graph: The ``openvino.Model``; changed in place.
        path: The ``.xml`` to write.
        description: The model's description as JSON.
        half: Store weights in 16 bits.
    """
    for entry in list(graph.get_rt_info()):
        del graph.rt_info[entry]
    graph.set_rt_info(description, METADATA_KEY)
    require_openvino().save_model(graph, path, compress_to_fp16=half)
