"""Exporting, quantising and measuring the files of a candidate: where a search meets the rooms that do this."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from segshrink.compression.quantization import quantize
from segshrink.compression.quantization.onnx_int8 import OnnxQuantizer
from segshrink.compression.quantization.openvino_int8 import write_openvino_int8
from segshrink.compression.search.records import MeasuredFile, Reference
from segshrink.compression.search.tools import Advance, Settings
from segshrink.config import Recipe
from segshrink.errors import ModelError
from segshrink.export import export_onnx, export_openvino
from segshrink.models import SegmentationModel
from segshrink.profiling.jobs import Job
from segshrink.profiling.measuring import measure

# A ranking needs fewer runs than what is published.
QUICK_RUNS, QUICK_ROUNDS = 9, 3
RUNS, ROUNDS = 30, 5
# Side of the noise that untrained candidates are calibrated with.
_NOISE = 128


@dataclass(frozen=True)
class Exported:
    """A file of a model."""

    runtime: str
    precision: str
    path: Path

    @property
    def size_bytes(self) -> int:
        """Of the file, with the weights that OpenVINO keeps in one of their own."""
        parts = [self.path, self.path.with_suffix(".bin")] if self.path.suffix == ".xml" else [self.path]
        return sum(part.stat().st_size for part in parts)


def export_float(model: SegmentationModel, folder: Path, runtime: str) -> Exported:
    """Export a model as it is for a runtime."""
    if runtime == "openvino":
        return Exported(runtime, "fp32", export_openvino(model, folder / "fp32.xml"))
    return Exported(runtime, "fp32", export_onnx(model, folder / "fp32.onnx"))


def export_untrained(
    model: SegmentationModel, folder: Path, runtimes: Sequence[str]
) -> tuple[list[Exported], list[str]]:
    """Export a model with random weights for each runtime, in fp32 and in int8 calibrated with noise.

    Latency, size and memory don't depend on what the weights are, as long as no bias is 0: runtimes leave those out,
    which trained networks don't have.

    Returns:
        The files, and why one in int8 is missing.

    Raises:
        ModelError: The network can't be exported.
        MissingExtraError: What a runtime needs isn't installed.
    """
    _draw_biases(model)
    noise = np.random.default_rng(0)
    tiles = [noise.integers(0, 256, (model.description.bands, _NOISE, _NOISE), dtype=np.uint8) for _ in range(2)]
    found = [export_float(model, folder, runtime) for runtime in runtimes]
    plain = next((one.path for one in found if one.path.suffix == ".onnx"), None)
    path = folder / "int8.onnx"
    quantizer = OnnxQuantizer((plain or export_onnx(model, folder / "fp32.onnx")).read_bytes(), tiles)
    refused: list[str] = []
    try:
        path.write_bytes(quantizer.serialized())
    except ModelError as error:
        refused.append(str(error))
        if "openvino" not in runtimes:
            return found, refused
        path, runtimes = folder / "int8.xml", ("openvino",)
        write_openvino_int8(quantizer.model, path, tiles, nodes=quantizer.nodes)
    return found + [Exported(runtime, "int8", path) for runtime in runtimes], refused


def _draw_biases(model: SegmentationModel) -> None:
    """Give the layers biases that aren't 0."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in model.network.named_parameters():
            if name.endswith("bias") and not value.any():
                value.copy_(0.1 * torch.randn(value.shape, generator=generator))


def build_files(
    model: SegmentationModel,
    recipe: Recipe,
    folder: Path,
    runtimes: Sequence[str],
    *,
    max_drop: float,
    progress: Advance | None = None,
) -> tuple[list[Exported], list[str]]:
    """Export a trained model for each runtime, in fp32 and in int8.

    One int8 file serves all runtimes: OpenVINO runs the ONNX file as fast as one of its own, which is larger by far,
    and is made where ONNX Runtime can't be used with its file on this machine.

    Args:
        model: The model.
        recipe: How it was trained, its teachers named; where int8 costs too much, it learns on in int8.
        folder: Existing or new folder.
        runtimes: What it will run on.
        max_drop: Points of mIoU that int8 may cost.
        progress: Told how far it is.

    Returns:
        The files, and why one in int8 is missing.

    Raises:
        ModelError: The network can't be exported.
        MissingExtraError: What a runtime needs isn't installed.
    """
    found = [export_float(model, folder, runtime) for runtime in runtimes]
    refused = []
    for maker in dict.fromkeys(("onnxruntime", *runtimes)):
        try:
            result = quantize(
                model,
                recipe.data,
                out=folder / f"quantized-{maker}",
                runtimes=(maker,),
                max_drop=max_drop,
                recipe=recipe,
                progress=progress,
            )
        except ModelError as error:
            refused.append(str(error))
            continue
        path = result.row(maker, "int8").file
        able = runtimes if maker == "onnxruntime" else (maker,)
        return found + [Exported(runtime, "int8", path) for runtime in able], refused
    return found, refused


def measure_files(
    files: Sequence[Exported], settings: Settings, *, quick: bool = False, reference: Reference | None = None,
    progress: Advance | None = None,
) -> tuple[list[MeasuredFile | str], Reference | None]:  # fmt: skip
    """Measure files beside each other, and the teacher in PyTorch fp32 among them; once more on a busy machine.

    Args:
        files: The files.
        settings: Size and threads.
        quick: Fewer runs.
        reference: The teacher; one without a source is not measured.
        progress: Told how far it is.

    Returns:
        For each file what it costs, or why it can't be run here; and the teacher with what it costs, where that could
        be measured.
    """
    jobs = [Job(file.path, file.runtime, size=settings.size, threads=settings.threads) for file in files]
    timed = reference is not None and reference.source is not None
    if reference is not None and reference.source is not None:
        source = Path(reference.source)
        jobs.append(Job(source, "torch", precision="32", size=settings.size, threads=settings.threads))
    runs, rounds = (QUICK_RUNS, QUICK_ROUNDS) if quick else (RUNS, ROUNDS)
    measured = measure(jobs, runs=runs, rounds=rounds, repeat=True, progress=progress)
    results: list[MeasuredFile | str] = []
    for file, one in zip(files, measured, strict=False):
        if (latency := one.latency_ms) is None:
            results.append(str(one.error))
            continue
        results.append(
            MeasuredFile(
                runtime=file.runtime,
                precision=file.precision,
                size_bytes=file.size_bytes,
                latency_ms=latency["median"],
                latency_p95_ms=latency["p95"],
                memory_mb=one.peak_memory_mb or 0.0,
                path=str(file.path),
                load=one.load.share,
            )
        )
    if timed and reference is not None and (latency := measured[-1].latency_ms) is not None:
        reference = replace(
            reference,
            latency_ms=latency["median"],
            latency_p95_ms=latency["p95"],
            memory_mb=measured[-1].peak_memory_mb,
            load=measured[-1].load.share,
        )
    return results, reference
