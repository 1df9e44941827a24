"""``quantize``: int8 files for several runtimes, measured beside float32 on the user's own data."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from segshrink.compression.quantization.litert_int8 import require_quantizer, write_litert_int8
from segshrink.compression.quantization.mixed_precision import INT8_FILES, MixedPrecision, Progress
from segshrink.compression.quantization.result import (
    Precision,
    QuantizationResult,
    QuantizationRow,
    Refusal,
    choose,
    verdict,
)
from segshrink.config import DatasetDescription, Recipe
from segshrink.data import Dataset, calibration_tiles, open_dataset, refuse_other_bands, refuse_other_classes
from segshrink.errors import ModelError, UsageError, nearest
from segshrink.evaluation import evaluate
from segshrink.export import export_onnx, export_tflite
from segshrink.export.foreign_onnx import as_our_onnx
from segshrink.export.int8_graph import require_nncf
from segshrink.files import FolderKind, refuse_foreign, replacing, scratch_folder, write_json
from segshrink.folder_lock import claimed
from segshrink.model_file import ModelFile
from segshrink.models import SegmentationModel
from segshrink.prediction.backends import Backend, open_backend
from segshrink.prediction.isolated import check_isolated
from segshrink.profiling import Job, measure

# Those that are written unless others are asked for.
RUNTIMES = tuple(INT8_FILES)
LITERT = "litert"
_ALL = (*RUNTIMES, LITERT)
RECORD = "quantization.json"
FLOAT_FILE, LITERT_FILES = "fp32.onnx", ("fp32.tflite", "int8.tflite")
_NAMES = (FLOAT_FILE, *INT8_FILES.values(), *LITERT_FILES)
_FILES = [part.name for name in _NAMES for part in ModelFile(Path(name)).parts]
QUANTIZATION = FolderKind("a quantization", (RECORD, *_FILES, "model"))
DEFAULT_TILES = 64
# Timed runs of each file.
RUNS = 15
# What a runtime computes in where the file is of this precision.
_RUNTIME_PRECISION: dict[Precision, str] = {"fp32": "32", "int8": "auto"}


def quantize(
    model: SegmentationModel | Path,
    data: Dataset | DatasetDescription,
    *,
    out: Path,
    runtimes: Sequence[str] = RUNTIMES,
    max_drop: float = 1.0,
    images: int = DEFAULT_TILES,
    recipe: Recipe | None = None,
    quantization_aware_distillation: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> QuantizationResult:
    """Turn a model into 8-bit files and measure each beside float32.

    Weights and activations become 8-bit integers after training, calibrated on tiles of the training and unlabeled
    images. Where that costs more than ``max_drop``, the most sensitive layers stay in float, few at a time; where that
    doesn't suffice and a recipe says how to train, the float32 model teaches a copy with simulated int8
    (quantization-aware distillation), and the copy is quantized.

    Every file is opened and run in a process of its own before it is scored: a runtime that fails there, or ends the
    process, is named in the result and left out, and the others go on.

    ``out`` gets ``fp32.onnx``, ``int8.onnx``, ``int8.xml`` with its weights, for LiteRT ``fp32.tflite`` and
    ``int8.tflite``, which is in integers from end to end, ``quantization.json``, and ``model/`` when weights were
    trained; as a whole or not at all.

    Args:
        model: The model, which is left as it is; or an ``.onnx`` file of anybody, whose weights aren't trained.
        data: The data set; files are scored on its validation split.
        out: Folder to write; an earlier quantization in it is replaced.
        runtimes: Some of "onnxruntime", "openvino" and "litert".
        max_drop: Points of mIoU (hundredths) that int8 may lose.
        images: Calibration tiles of 512 x 512 pixels.
        recipe: How to train; allows quantization-aware distillation.
        quantization_aware_distillation: Distill in any case; without a recipe with its defaults.
        overwrite: Replace files of these names in ``out`` that this program did not write.
        progress: Called with (steps done, steps in all, what is being done); every stage counts its own steps.

    Returns:
        What was measured, and the file to use.

    Raises:
        ConfigError: An unknown runtime, a number out of range, or a data set without images to calibrate or score with.
        ModelError: The model's classes or bands aren't the data set's, it can't be exported, or it can't be quantized
            and run in any of the runtimes on this machine.
        FileError: ``out`` holds something else, or can't be written.
        MissingExtraError: A package that a runtime needs isn't installed.
    """
    out = Path(out)
    _check(runtimes, max_drop)
    refuse_foreign(out, overwrite=overwrite, kind=QUANTIZATION)
    classes = data.classes if isinstance(data, Dataset) else data.class_map()
    source = model if isinstance(model, SegmentationModel) else open_backend(model, classes=classes)
    if quantization_aware_distillation and not isinstance(source, SegmentationModel):
        raise UsageError(f"{model} is a file, whose weights can't be trained; give the model it was made from")
    description = source.description
    dataset = data if isinstance(data, Dataset) else open_dataset(data, model=description)
    if description is not None:
        refuse_other_classes(description, dataset)
        refuse_other_bands(description, dataset)
    tiles = calibration_tiles(dataset, count=images, resize=None if description is None else description.resize)
    replaced = replacing(out, overwrite=overwrite, kind=QUANTIZATION)
    with claimed(out), replaced as folder, scratch_folder() as scratch:
        folder.mkdir()
        files = _float_files(source, folder, runtimes)
        work = _Quantization(out, folder, scratch, dataset, tiles, max_drop, progress or (lambda *_: None))
        floats = work.float32(files)
        int8 = work.int8({runtime: files[runtime] for runtime in floats}, scratch / "calibrated")
        too_bad = any(row.drop > max_drop for row in int8.values())
        trains = quantization_aware_distillation or (recipe is not None and too_bad)
        if isinstance(source, SegmentationModel) and trains:
            int8 = work.distilled(source, recipe, list(floats), int8)
        rows = work.timed(floats, int8)
        measured = {(row.runtime, row.precision) for row in rows}
        refused = tuple(refusal for place, refusal in work.refused.items() if place not in measured)
        chosen = choose(rows, max_drop=max_drop)
        text = verdict(rows, max_drop=max_drop, refused=refused)
        result = QuantizationResult(chosen.file, chosen.runtime, tuple(rows), text, max_drop, len(tiles), refused)
        write_json(folder / RECORD, result.to_dict(), overwrite=False)
    return result


@dataclass
class _Quantization:
    """One run of ``quantize``.

    Attributes:
        out: The folder that was asked for.
        folder: The one that becomes it in the end.
        scratch: An empty folder.
        dataset: The data set.
        tiles: Calibration tiles.
        max_drop: Points of mIoU that int8 may lose.
        progress: As in ``quantize``.
        refused: Why a file can't be used here, by runtime and precision.
        reference: The row of the first file that was scored, the float32 one.
    """

    out: Path
    folder: Path
    scratch: Path
    dataset: Dataset
    tiles: Sequence[NDArray[Any]]
    max_drop: float
    progress: Progress
    refused: dict[tuple[str, str], Refusal] = field(default_factory=dict)
    reference: QuantizationRow | None = None

    def float32(self, files: Mapping[str, Path]) -> dict[str, QuantizationRow]:
        """Score the float32 file of every runtime that can be used here; raises ModelError where none can."""
        return self._usable(files, "fp32", lambda runtime: self._score(files[runtime], runtime, precision="fp32"))

    def int8(self, files: Mapping[str, Path], folder: Path) -> dict[str, QuantizationRow]:
        """Return the best int8 file of each runtime's float32 file that can be used; raises ModelError for none.

        They are written into ``folder``, which may be there.
        """
        folder.mkdir(exist_ok=True)

        @cache
        def mixed(source: Path) -> MixedPrecision:  # runtimes of one file share its calibration
            return MixedPrecision(source, self.tiles, folder, self._score, self.max_drop, self.progress)

        def best(runtime: str) -> QuantizationRow:
            if runtime != LITERT:
                return mixed(files[runtime]).best(runtime)
            path = folder / LITERT_FILES[1]
            write_litert_int8(files[runtime], path, self.tiles)
            return self._score(path, runtime)

        return self._usable(files, "int8", best)

    def distilled(
        self,
        model: SegmentationModel,
        recipe: Recipe | None,
        runtimes: Sequence[str],
        rows: dict[str, QuantizationRow],
    ) -> dict[str, QuantizationRow]:
        """Return for each runtime the better of its row and that of a model which was trained for 8 bits."""
        from segshrink.compression.quantization.qat import quantization_aware_distillation

        trained = quantization_aware_distillation(model, self.dataset, recipe=recipe, progress=self.progress)
        folder = self.scratch / "distilled"
        folder.mkdir()
        files = _float_files(trained, folder, runtimes)
        best = dict(rows)
        with suppress(ModelError):  # the files before are better than nothing
            for runtime, row in self.int8(files, folder).items():
                candidate = replace(row, distilled=True)
                best[runtime] = min(rows.get(runtime, candidate), candidate, key=lambda row: row.drop)
        if any(row.distilled for row in best.values()):
            trained.save(self.folder / "model")
        return best

    def timed(self, floats: dict[str, QuantizationRow], int8: dict[str, QuantizationRow]) -> list[QuantizationRow]:
        """Put the int8 files into the folder and time all; for each runtime float32 first."""
        rows = []
        for runtime, row in floats.items():
            rows.append(row)
            if runtime in int8:
                for part in ModelFile(int8[runtime].file).parts:
                    shutil.copyfile(part, self.folder / part.name)
                rows.append(replace(int8[runtime], file=self.folder / int8[runtime].file.name))
        jobs = [Job(row.file, row.runtime, _RUNTIME_PRECISION[row.precision], threads=1) for row in rows]
        timed = []
        for row, measurement in zip(rows, measure(jobs, runs=RUNS, progress=self.progress), strict=True):
            if measurement.latency_ms is None:
                raise ModelError(f"{row.file.name} can't be timed: {measurement.error}")
            latency = measurement.latency_ms["median"]
            timed.append(replace(row, file=self.out / row.file.name, latency_ms=latency, load=measurement.load))
        return timed

    def _score(
        self, file: Path, runtime: str, float_layers: tuple[str, ...] = (), *, precision: Precision = "int8"
    ) -> QuantizationRow:
        """Score a file that runs in a process of its own; the first is the float32 file that others are compared with.

        Raises:
            ModelError: It can't be used with the runtime on this machine.
        """
        check_isolated(file, runtime=runtime, precision=_RUNTIME_PRECISION[precision])
        predictions, reference = self.scratch / "float32", self.reference
        evaluation = evaluate(
            file,
            self.dataset,
            runtime=runtime,
            precision=_RUNTIME_PRECISION[precision],
            out=predictions if reference is None else None,
            pictures=0,
            reference=None if reference is None else predictions,
            progress=lambda done, total: self.progress(done, total, "validation scenes"),
        )
        mean_iou = float(evaluation.scores.mean_iou)
        drop = 0.0 if reference is None or precision == "fp32" else 100 * (reference.mean_iou - mean_iou)
        agreement = (evaluation.agreement.accuracy or 0.0) if evaluation.agreement else 1.0
        size = ModelFile(file).size_bytes
        row = QuantizationRow(runtime, precision, file, mean_iou, drop, agreement, size, float_layers=float_layers)
        self.reference = reference or row
        return row

    def _usable(
        self, runtimes: Iterable[str], precision: Precision, make: Callable[[str], QuantizationRow]
    ) -> dict[str, QuantizationRow]:
        """Return a row for each runtime that can be used here; raise the reasons of all where none can."""
        rows = {}
        for runtime in dict.fromkeys(runtimes):
            try:
                rows[runtime] = make(runtime)
            except ModelError as error:
                self.refused[runtime, precision] = Refusal(runtime, precision, str(error))
        if not rows:
            raise ModelError("; ".join(refusal.reason for refusal in self.refused.values()))
        return rows


def _check(runtimes: Sequence[str], max_drop: float) -> None:
    if not runtimes:
        raise UsageError(f"no runtime is named; give some of {', '.join(RUNTIMES)}")
    for runtime in runtimes:
        if runtime not in _ALL:
            raise UsageError(f"can't quantize for runtime '{runtime}'{nearest(runtime, _ALL)}")
    if not (math.isfinite(max_drop) and max_drop >= 0):
        raise UsageError(f"max_drop must be a number of points of at least 0, found {max_drop}")
    if "openvino" in runtimes:
        require_nncf()
    if LITERT in runtimes:
        require_quantizer()


def _float_files(model: SegmentationModel | Backend, folder: Path, runtimes: Iterable[str]) -> dict[str, Path]:
    """Write the float32 files, and return that of each runtime."""
    path = folder / FLOAT_FILE
    exported = export_onnx(model, path) if isinstance(model, SegmentationModel) else as_our_onnx(model, path)
    return {runtime: _litert_file(model, folder) if runtime == LITERT else exported for runtime in runtimes}


def _litert_file(model: SegmentationModel | Backend, folder: Path) -> Path:
    """Write the float TFLite file that is quantized from end to end.

    Raises:
        UsageError: The model isn't one of torch, or takes other pixels than bytes.
        ModelError: It can't be expressed in TFLite.
    """
    if not isinstance(model, SegmentationModel) or model.description.dtype != "uint8":
        raise UsageError(f"runtime '{LITERT}' takes a model of torch for 8-bit images; leave it out of the runtimes")
    return export_tflite(model, folder / LITERT_FILES[0], float_pixels=True)
