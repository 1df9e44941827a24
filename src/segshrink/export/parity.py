"""Proof that an exported file gives what PyTorch gives."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from segshrink.errors import ModelError
from segshrink.models import SegmentationModel
from segshrink.prediction.exported import ExportedModel
from segshrink.prediction.logits import log_probabilities

TOLERANCE = 1e-3  # of the largest logit; what was measured is 1e-5 and less
SMALLEST_DIFFERENCE = 1e-6  # below it logits are equal, however small they all are


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
    bands, stride = model.description.bands, model.description.stride
    sizes = sizes or (
        (1, 2 * stride, 2 * stride),
        (2, 3 * stride, 4 * stride),
        (1, 2 * stride + 1, 3 * stride - 1),
        (3, 5, 7),
    )
    generator = np.random.default_rng(0)
    for count, height, width in sizes:
        images = generator.integers(0, 256, (count, height, width, bands), dtype=np.uint8)
        with torch.inference_mode():
            expected = model(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
        allowed = max(tolerance * float(np.abs(expected).max()), SMALLEST_DIFFERENCE)
        trouble = _trouble(backend, images, expected, allowed)
        if trouble:
            raise ModelError(
                f"{final} was not written: at {count} x {height} x {width} pixels {trouble}; choose another model or "
                f"report this one ('{model.description.id}')"
            )


def _trouble(
    backend: ExportedModel, images: npt.NDArray[np.uint8], expected: npt.NDArray[np.float32], allowed: float
) -> str | None:
    runtime = _RUNTIMES[backend.runtime]
    if backend.outputs != ("classes",):
        found = backend.run(images)
        if "logits" not in backend.outputs:
            expected = log_probabilities(_softmax(expected))
        difference = float(np.abs(found - expected).max()) if found.shape == expected.shape else float("inf")
        if not difference <= allowed:
            return f"{runtime}'s logits differ from PyTorch's by {difference:.3g}"
    if "classes" not in backend.outputs:
        return None
    classes = backend.classify(images)
    if classes.shape != (len(images), *expected.shape[2:]):
        return f"{runtime}'s classes have the shape {classes.shape}"
    chosen = np.take_along_axis(expected, classes[:, np.newaxis].astype(np.intp), axis=1)[:, 0]
    # Where two logits are as near as the runtimes are, either class is right.
    wrong = int((expected.max(axis=1) - chosen > 2 * allowed).sum())
    return f"{runtime}'s classes differ from PyTorch's at {wrong} pixels" if wrong else None


_RUNTIMES: dict[str, Any] = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO", "litert": "LiteRT"}


def _softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    probabilities: npt.NDArray[np.float32] = torch.from_numpy(logits).softmax(dim=1).numpy()
    return probabilities
