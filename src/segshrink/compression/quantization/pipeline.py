"""``quantize``: int8 files for several runtimes, measured beside float32 on the user's own data."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from numpy.typing import NDArray

from segshrink.compression.quantization.mixed_precision import INT8_FILES, Attempts, Int8File, Progress
from segshrink.compression.quantization.result import (
    Precision,
    QuantizationResult,
    QuantizationRow,
    Refusal,
    choose,
    judge_rows,
)
from segshrink.compression.quantization.scoring import Judge, Score
from segshrink.config import DatasetDescription, Recipe
from segshrink.data import Dataset, calibration_tiles, open_dataset, refuse_other_bands
from segshrink.errors import ModelError, UsageError, nearest
from segshrink.export import export_onnx
from segshrink.export.int8_graph import require_nncf
from segshrink.files import FolderKind, refuse_foreign, replacing, scratch_folder, write_json
from segshrink.folder_lock import claimed
from segshrink.models import SegmentationModel
from segshrink.prediction import open_backend
from segshrink.prediction.isolated import check_isolated
from segshrink.profiling import Job, Measurement, measure

RUNTIMES = tuple(INT8_FILES)
RECORD = "quantization.json"
FLOAT_FILE = "fp32.onnx"
QUANTIZATION = FolderKind("a quantisation", (RECORD, FLOAT_FILE, *INT8_FILES.values(), "int8.bin", "model"))
DEFAULT_TILES = 64
# Timed runs of each file.
RUNS = 15


def quantize(
    model: SegmentationModel,
    data: DatasetDescription,
    *,
    out: Path,
    runtimes: Sequence[str] = RUNTIMES,
    max_drop: float = 1.0,
    images: int = DEFAULT_TILES,
    recipe: Recipe | None = None,
    aware: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> QuantizationResult:
    """Turn a model into 8-bit files and measure each beside float32.

    Weights and activations become 8-bit integers after training, calibrated on tiles of the training and unlabelled
    images. Where that costs more than ``max_drop``, the layers that bear it worst stay in higher precision, few at a
    time; where that doesn't suffice and a recipe says how to train, the float32 model teaches a copy whose numbers are
    rounded, and the copy is quantised.

    Every file is opened and run in a process of its own before it is judged: a runtime that fails there, or ends the
    process, is named in the result and left out, and the others go on.

    ``out`` gets ``fp32.onnx``, ``int8.onnx``, ``int8.xml`` with ``int8.bin``, ``quantization.json``, and ``model/``
    when weights were trained; as a whole or not at all.

    Args:
        model: The model; it is left as it is.
        data: The data set; its validation split judges.
        out: Folder to write; an earlier quantisation in it is replaced.
        runtimes: Some of "onnxruntime" and "openvino".
        max_drop: Points of mIoU (hundredths) that int8 may lose.
        images: Calibration tiles of 512 x 512 pixels.
        recipe: How to train; allows quantisation-aware distillation.
        aware: Distil in any case; without a recipe with its defaults.
        overwrite: Replace files of these names in ``out`` that this program did not write.
        progress: Called with (steps done, steps in all, what is being done); every stage counts its own steps.

    Returns:
        What was measured, and the file to use.

    Raises:
        ConfigError: An unknown runtime, a number out of range, or a data set without images to calibrate or judge with.
        ModelError: The model's classes or bands aren't the data set's, it can't be exported, or it can't be quantized
            and run in any of the runtimes on this machine.
        FileError: ``out`` holds something else, or can't be written.
        MissingExtraError: A package that a runtime needs isn't installed.
    """
    out = Path(out)
    _check(runtimes, max_drop)
    refuse_foreign(out, overwrite=overwrite, kind=QUANTIZATION)
    dataset = open_dataset(data, model=model.description)
    _check_fit(model, dataset)
    tell = progress or _silent
    tiles = calibration_tiles(dataset, count=images)
    put = replacing(out, overwrite=overwrite, kind=QUANTIZATION)
    with claimed(out), put as folder, scratch_folder() as scratch:
        folder.mkdir()
        judge = Judge(dataset, scratch, progress=lambda done, total: tell(done, total, "validation scenes"))
        export_onnx(model, folder / FLOAT_FILE)
        work = _Quantization(folder, scratch, judge, tiles, max_drop=max_drop, progress=tell)
        floats = work.float32(runtimes)
        found = work.int8(folder / FLOAT_FILE, floats)
        if aware or (recipe is not None and any(file.drop > max_drop for file in found.values())):
            found = work.distilled(model, data, recipe, found, floats)
        rows = work.rows(floats, found)
        chosen = choose(rows, max_drop=max_drop)
        measured = {(row.runtime, row.precision) for row in rows}
        refused = tuple(refusal for place, refusal in work.refused.items() if place not in measured)
        verdict = judge_rows(rows, max_drop=max_drop, refused=refused)
        result = QuantizationResult(chosen.file, chosen.runtime, tuple(rows), verdict, max_drop, len(tiles), refused)
        write_json(folder / RECORD, result.to_dict(), overwrite=False)
    return result.moved(out)


class _Quantization:
    """One run of ``quantize``: what it writes to, and what it knows so far."""

    def __init__(
        self,
        folder: Path,
        scratch: Path,
        judge: Judge,
        tiles: Sequence[NDArray[Any]],
        *,
        max_drop: float,
        progress: Progress,
    ) -> None:
        self.folder = folder
        self.scratch = scratch
        self.judge = judge
        self.tiles = tiles
        self.max_drop = max_drop
        self.progress = progress
        self.refused: dict[tuple[str, str], Refusal] = {}

    def float32(self, runtimes: Sequence[str]) -> dict[str, Score]:
        """Score the float32 file in every runtime that can be used here.

        Raises:
            ModelError: None can.
        """
        file = self.folder / FLOAT_FILE
        scores = {}
        for runtime in dict.fromkeys(runtimes):
            with self._refusing(runtime, "fp32"):
                check_isolated(file, runtime=runtime, precision="32")
                scores[runtime] = self.judge.score(open_backend(file, runtime=runtime, precision="32"))
        return scores or self._nothing()

    def int8(self, source: Path, floats: Mapping[str, Score], *, distilled: bool = False) -> dict[str, Int8File]:
        """Return the best int8 file of a float32 file for each runtime that can be used here.

        Raises:
            ModelError: None can.
        """
        attempts = Attempts(
            source,
            self.tiles,
            self.scratch / source.stem,
            self.judge,
            reference=next(iter(floats.values())).mean_iou,
            max_drop=self.max_drop,
            distilled=distilled,
            progress=self.progress,
        )
        found = {}
        for runtime in floats:
            with self._refusing(runtime, "int8"):
                found[runtime] = attempts.best(runtime)
        return found or self._nothing()

    @contextmanager
    def _refusing(self, runtime: str, precision: Precision) -> Iterator[None]:
        """Keep in mind that a runtime fails, so that the others go on."""
        try:
            yield
        except ModelError as error:
            self.refused[runtime, precision] = Refusal(runtime, precision, str(error))

    def _nothing(self) -> NoReturn:
        raise ModelError("; ".join(refusal.reason for refusal in self.refused.values()))

    def distilled(
        self,
        model: SegmentationModel,
        data: DatasetDescription,
        recipe: Recipe | None,
        found: Mapping[str, Int8File],
        floats: Mapping[str, Score],
    ) -> dict[str, Int8File]:
        """Return for each runtime the better of what was found and what a model that learned to be rounded gives."""
        from segshrink.compression.quantization.qat import distill_rounded

        trained = distill_rounded(model, data, recipe=recipe, progress=self.progress)
        source = export_onnx(trained, self.scratch / "distilled.onnx")
        new: dict[str, Int8File] = {}
        with suppress(ModelError):  # what was found before is better than nothing
            new = self.int8(source, floats, distilled=True)
        better = {
            runtime: min((files[runtime] for files in (found, new) if runtime in files), key=lambda file: file.drop)
            for runtime in {**found, **new}
        }
        if any(file.distilled for file in better.values()):
            trained.save(self.folder / "model")
        return better

    def rows(self, floats: Mapping[str, Score], found: Mapping[str, Int8File]) -> list[QuantizationRow]:
        """Put the int8 files into the folder, time all, and describe them; for each runtime float32 first."""
        rows = []
        for runtime, score in floats.items():
            rows.append(_row(runtime, "fp32", self.folder / FLOAT_FILE, score, 0.0))
            if (int8 := found.get(runtime)) is None:
                continue
            for file in int8.files:
                shutil.copyfile(file, self.folder / file.name)
            row = _row(runtime, "int8", self.folder / int8.path.name, int8.score, int8.drop)
            rows.append(replace(row, float_layers=int8.float_layers, distilled=int8.distilled))
        jobs = []
        for row in rows:
            precision = "32" if row.precision == "fp32" else "auto"
            backend = open_backend(row.file, runtime=row.runtime, precision=precision, threads=1)
            jobs.append(Job(row.file, row.runtime, precision, threads=1, backend=backend))
        times = measure(jobs, runs=RUNS, progress=self.progress)
        return [_timed(row, one) for row, one in zip(rows, times, strict=True)]


def _row(runtime: str, precision: Precision, file: Path, score: Score, drop: float) -> QuantizationRow:
    weights = file.with_suffix(".bin")
    size = file.stat().st_size + (weights.stat().st_size if file.suffix == ".xml" else 0)
    return QuantizationRow(runtime, precision, file, score.mean_iou, drop, score.agreement, size, latency_ms=0.0)


def _timed(row: QuantizationRow, measured: Measurement) -> QuantizationRow:
    if measured.latency_ms is None:
        raise ModelError(f"{row.file.name} can't be timed: {measured.error}")
    return replace(row, latency_ms=measured.latency_ms["median"], load=measured.load)


def _check(runtimes: Sequence[str], max_drop: float) -> None:
    if not runtimes:
        raise UsageError(f"no runtime is named; give some of {', '.join(RUNTIMES)}")
    for runtime in runtimes:
        if runtime not in RUNTIMES:
            raise UsageError(f"can't quantise for runtime '{runtime}'{nearest(runtime, RUNTIMES)}")
    if not (math.isfinite(max_drop) and max_drop >= 0):
        raise UsageError(f"max_drop must be a number of points of at least 0, found {max_drop}")
    if "openvino" in runtimes:
        require_nncf()


def _check_fit(model: SegmentationModel, dataset: Dataset) -> None:
    description, name = model.description, dataset.description.name
    if description.classes.names != dataset.classes.names:
        raise ModelError(
            f"the model's classes ({', '.join(description.classes.names)}) are not those of data set '{name}' "
            f"({', '.join(dataset.classes.names)}); name them alike and in the same order"
        )
    refuse_other_bands(description, dataset)


def _silent(done: int, total: int, text: str) -> None:
    """Report nothing."""
