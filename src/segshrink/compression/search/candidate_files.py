"""Files of a candidate: exported, quantized, measured, and the chosen one described."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from segshrink.compression.quantization import quantize
from segshrink.compression.quantization.onnx_int8 import OnnxQuantizer
from segshrink.compression.quantization.openvino_int8 import write_openvino_int8
from segshrink.compression.quantization.pipeline import FLOAT_FILE
from segshrink.compression.search.candidates import CandidateFile
from segshrink.compression.search.results import FILE_COLUMNS, file_cells
from segshrink.compression.search.search import Advance, Outcome, Settings
from segshrink.config import Recipe
from segshrink.data import Dataset
from segshrink.errors import ModelError
from segshrink.export import export_onnx
from segshrink.export.card import model_card
from segshrink.export.metadata import ExportedFile
from segshrink.export.stac import stac_items
from segshrink.files import write_json, write_text
from segshrink.model_file import ModelFile
from segshrink.models import SegmentationModel
from segshrink.prediction import open_backend
from segshrink.profiling.latency import Job, measure
from segshrink.profiling.load import is_busy
from segshrink.run_folder import RunFolder

# Runs and rounds: a ranking needs fewer than what is published.
_QUICK, _FINAL = (9, 3), (30, 5)
# Side of the noise that untrained candidates are calibrated with.
_NOISE = 128


def export_untrained(
    model: SegmentationModel, folder: Path, runtimes: Sequence[str]
) -> tuple[list[CandidateFile], list[str]]:
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
    plain = export_onnx(model, folder / FLOAT_FILE)
    files = _exported(plain, runtimes, "fp32")
    quantizer = OnnxQuantizer(plain.read_bytes(), tiles)
    path = folder / "int8.onnx"
    refused: list[str] = []
    try:
        path.write_bytes(quantizer.serialized())
    except ModelError as error:
        refused.append(str(error))
        if "openvino" not in runtimes:
            return files, refused
        path, runtimes = folder / "int8.xml", ("openvino",)
        write_openvino_int8(quantizer.model, path, tiles, nodes=quantizer.nodes)
    return files + _exported(path, runtimes, "int8"), refused


def export_trained(
    model: SegmentationModel,
    recipe: Recipe,
    dataset: Dataset,
    folder: Path,
    runtimes: Sequence[str],
    *,
    max_drop: float,
    progress: Advance | None = None,
) -> tuple[list[CandidateFile], list[str]]:
    """Export a trained model for each runtime, in fp32 and in int8.

    One file serves all runtimes: OpenVINO runs an ONNX file as fast as one of its own. In int8 that would be larger by
    far, and is made where ONNX Runtime can't be used with its file on this machine.

    Args:
        model: The model.
        recipe: How it was trained, its teachers named; where int8 costs too much, it learns on in int8.
        dataset: Its data set.
        folder: Existing or new folder.
        runtimes: What it will run on.
        max_drop: Points of mIoU that int8 may cost.
        progress: Called with (steps done, steps in all, what is being done).

    Returns:
        The files, and why one in int8 is missing.

    Raises:
        ModelError: The network can't be exported.
        MissingExtraError: What a runtime needs isn't installed.
    """
    refused = []
    for maker in dict.fromkeys(("onnxruntime", *runtimes)):
        try:
            result = quantize(
                model,
                dataset,
                out=folder / f"quantized-{maker}",
                runtimes=(maker,),
                max_drop=max_drop,
                recipe=recipe,
                progress=progress,
            )
        except ModelError as error:
            refused.append(str(error))
            continue
        plain, small = (result.row(maker, precision).file for precision in ("fp32", "int8"))
        served = runtimes if maker == "onnxruntime" else (maker,)
        return _exported(plain, runtimes, "fp32") + _exported(small, served, "int8"), refused
    return _exported(export_onnx(model, folder / FLOAT_FILE), runtimes, "fp32"), refused


def measure_files(
    files: Sequence[CandidateFile], settings: Settings, *, quick: bool = False, progress: Advance | None = None
) -> list[CandidateFile | str]:
    """Measure files in turns; once more on a busy machine.

    Args:
        files: The files; one for torch, a model folder, is measured in fp32.
        settings: Size and threads.
        quick: Fewer runs.
        progress: Called with (steps done, steps in all, what is being done).

    Returns:
        Each file with what it costs, or why it can't be run here.
    """
    jobs = [
        Job(
            Path(file.path or ""),
            file.runtime,
            precision="32" if file.runtime == "torch" else "auto",
            size=settings.size,
            threads=settings.threads,
        )
        for file in files
    ]
    runs, rounds = _QUICK if quick else _FINAL
    measured: list[CandidateFile | str] = []
    for file, cost in zip(files, measure(jobs, runs=runs, rounds=rounds, repeat=True, progress=progress), strict=True):
        if cost.latency_ms is None:
            measured.append(str(cost.error))
            continue
        costs = replace(file, latency_ms=cost.latency_ms["median"], latency_p95_ms=cost.latency_ms["p95"])
        measured.append(replace(costs, memory_mb=cost.peak_memory_mb or 0.0, load=cost.load.share))
    return measured


def write_model_card(outcome: Outcome) -> list[Path]:
    """Write ``model.md``, with the numbers of the chosen file, and ``model.stac.json`` beside the chosen model.

    Raises:
        FileError: One can't be written, or the run's numbers can't be read.
        ModelError: The file doesn't say what model it is.
    """
    chosen, model, content = outcome.chosen, outcome.model, outcome.content
    description = open_backend(model, runtime=outcome.file.runtime).description
    if description is None:
        raise ModelError(f"{model} doesn't say what model it is; search again")
    files = [ExportedFile(model)]
    run = RunFolder(chosen.run) if chosen.run else None
    card = model_card(
        description,
        files,
        name=chosen.name,
        parameters=chosen.parameters,
        evaluation=run.evaluation() if run and run.has_evaluation else None,
        profile=run.profile() if run and run.has_profile else None,
        checked=content["machine"]["cpu"],
    )
    (item,) = stac_items(description, files, name=chosen.name, parameters=chosen.parameters).values()
    busy = ", which was so much that the latency is too long" if is_busy(outcome.file.load) else ""
    section = [
        "\n## This file\n",
        f"Made for the budget `{content['budget']}`. Latency and memory (of the whole process) are those of one image "
        f"of {content['size']} × {content['size']}; load: other programs' share of the cores meanwhile{busy}.\n",
        "| | |",
        "|---|---|",
        *(f"| {name} | {cell} |" for name, cell in zip(FILE_COLUMNS, file_cells(content["chosen"]), strict=True)),
    ]
    page, record = model.with_suffix(".md"), model.with_suffix(".stac.json")
    write_text(page, card + "\n".join(section) + "\n", overwrite=False)
    write_json(record, item, overwrite=False)
    return [page, record]


def _exported(path: Path, runtimes: Sequence[str], precision: str) -> list[CandidateFile]:
    """Return a file as each runtime runs it."""
    size = ModelFile(path).size_bytes
    return [CandidateFile(runtime, precision, size, path=str(path)) for runtime in runtimes]


def _draw_biases(model: SegmentationModel) -> None:
    """Give the layers biases that aren't 0."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in model.network.named_parameters():
            if name.endswith("bias") and not value.any():
                value.copy_(0.1 * torch.randn(value.shape, generator=generator))
