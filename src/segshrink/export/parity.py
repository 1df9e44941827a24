"""Proof that an exported file gives what PyTorch gives."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from segshrink.errors import ModelError
from segshrink.models import SegmentationModel
from segshrink.prediction.exported import ExportedModel
from segshrink.prediction.logits import log_probabilities

TOLERANCE = 1e-3  # of the largest logit; what was measured is 1e-5 and less
SMALLEST_DIFFERENCE = 1e-6  # below it logits are equal, however small they all are
_RUNTIMES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO", "litert": "LiteRT"}


def check_parity(
    model: SegmentationModel,
    backend: ExportedModel,
    *,
    final: Path,
    tolerance: float = TOLERANCE,
    sizes: Sequence[tuple[int, int, int]] | None = None,
) -> None:
    """Run a file at several sizes and compare all that it gives.

    Args:
        model: In evaluation mode, on the CPU, in fp32.
        backend: The file, in a runtime that computes in fp32.
        final: The name that the file is to get, for the error.
        tolerance: Largest difference of logits, as a share of the largest logit.
        sizes: Numbers, heights and widths of images; by default four, odd ones and one below the stride among them.

    Raises:
        ModelError: Logits or probabilities differ by more than the tolerance, or a pixel's class is not one of those
            that PyTorch finds most likely within the tolerance.
    """
    side = model.description.stride
    sizes = sizes or ((1, 2 * side, 2 * side), (2, 3 * side, 4 * side), (1, 2 * side + 1, 3 * side - 1), (3, 5, 7))
    generator = np.random.default_rng(0)
    for count, height, width in sizes:
        images = generator.integers(0, 256, (count, height, width, model.description.bands), dtype=np.uint8)
        with torch.inference_mode():
            expected = model(torch.from_numpy(images).permute(0, 3, 1, 2))
        difference = _difference(backend, images, expected, tolerance)
        if difference is not None:
            raise ModelError(
                f"{final} was not written: at {count} x {height} x {width} pixels {_RUNTIMES[backend.runtime]}'s "
                f"{difference}; choose another model or report this one ('{model.description.id}')"
            )


def _difference(
    backend: ExportedModel, images: npt.NDArray[np.uint8], expected: torch.Tensor, tolerance: float
) -> str | None:
    """Return in what a file differs from the expected logits (N, C, H, W); None where it doesn't."""
    logits = expected.numpy()
    allowed = max(tolerance * float(np.abs(logits).max()), SMALLEST_DIFFERENCE)
    if backend.outputs != ("classes",):
        actual = backend.run(images)
        reference = logits if "logits" in backend.outputs else log_probabilities(expected.softmax(dim=1).numpy())
        difference = float(np.abs(actual - reference).max()) if actual.shape == reference.shape else float("inf")
        if not difference <= allowed:
            return f"logits differ from PyTorch's by {difference:.3g}"
    if "classes" in backend.outputs:
        classes = backend.classify(images)
        if classes.shape != (len(images), *logits.shape[2:]):
            return f"classes have the shape {classes.shape}"
        chosen = np.take_along_axis(logits, classes[:, np.newaxis].astype(np.intp), axis=1)[:, 0]
        # Where two logits are as near as the runtimes are, either class is right.
        wrong = int((logits.max(axis=1) - chosen > 2 * allowed).sum())
        if wrong:
            return f"classes differ from PyTorch's at {wrong} pixels"
    return None
