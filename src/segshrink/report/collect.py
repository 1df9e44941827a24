"""Reads run folders (run.json, metrics.csv, profile.json, evaluation.json) into plain dataclasses."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from segshrink.errors import DataError, FileError
from segshrink.records import Section

FILES = ("run.json", "evaluation.json", "profile.json", "metrics.csv")
ROLES = ("teacher", "control", "student", "model")
# Where the companions of a student's run stand, and the role they have when their run.json is missing.
COMPANIONS = ("teacher", "control")
GREY = "#808080"


@dataclass(frozen=True)
class ClassColor:
    """A class as the evaluation names it; ``color`` is ``#rrggbb``."""

    name: str
    color: str


@dataclass(frozen=True)
class Pictures:
    """Files of one evaluated image, all of the same size; truth and prediction hold class indices."""

    image: Path
    truth: Path
    prediction: Path


@dataclass(frozen=True)
class ImageScore:
    """Scores of one image, 0 to 1; None where no pixel was judged."""

    name: str
    mean_iou: float | None
    accuracy: float | None
    pixels: int
    pictures: Pictures | None


@dataclass(frozen=True)
class Curve:
    """One-vs-rest precision-recall curve of a class."""

    name: str
    average_precision: float | None
    precision: tuple[float, ...]
    recall: tuple[float, ...]


@dataclass(frozen=True)
class CalibrationBin:
    """Pixels whose largest probability falls into one bin: mean confidence, share that is right, how many."""

    confidence: float
    accuracy: float
    count: int


@dataclass(frozen=True)
class Evaluation:
    """``evaluation.json``; shares are 0 to 1, ``confusion`` is (C, C) pixel counts [true, predicted]."""

    date: str | None
    data: str
    split: str
    leaking: bool
    model: str | None
    parameters: int | None
    classes: tuple[ClassColor, ...]
    images: int
    pixels: int
    scores: dict[str, float | None]
    iou: tuple[float | None, ...]
    confusion: npt.NDArray[np.float64]
    interval: tuple[float, float] | None
    level: float
    calibration_error: float | None
    bins: tuple[CalibrationBin, ...]
    curves: tuple[Curve, ...]
    per_image: tuple[ImageScore, ...]
    agreement: dict[str, float | None]
    agreement_with: str | None
    never_predicted: tuple[str, ...]


@dataclass(frozen=True)
class Profile:
    """``profile.json``; memory in MB, latency in milliseconds for one input of shape ``input``."""

    parameters: int | None
    macs: float | None
    input: tuple[int, ...]
    file_bytes: int | None
    latency_median: float | None
    latency_p95: float | None
    threads: int | None
    peak_memory: float | None
    # What the measuring process took before it loaded the model.
    baseline_memory: float | None
    machine: str | None
    # What other programs took of the cores while it was timed (0 to 1), and whether that spoils the times.
    load: float | None = None
    busy: bool = False
    # Equal for models that were timed in turns.
    session: str | None = None


@dataclass(frozen=True)
class Run:
    """One run folder; what its files don't tell is None."""

    folder: Path
    role: str
    name: str
    data: str | None = None
    status: str | None = None
    created: str | None = None
    seed: int | None = None
    steps: int | None = None
    epochs: int | None = None
    seconds: float | None = None
    labeled: int | None = None
    unlabeled: int | None = None
    machine: dict[str, str] = field(default_factory=dict)
    evaluation: Evaluation | None = None
    profile: Profile | None = None
    # Column of metrics.csv → (epochs, values) where it was measured.
    metrics: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = field(default_factory=dict)

    @property
    def parameters(self) -> int | None:
        """Number of weights, from the profile or else from the evaluation."""
        if self.profile and self.profile.parameters is not None:
            return self.profile.parameters
        return self.evaluation.parameters if self.evaluation else None


def collect(folders: Sequence[Path]) -> list[Run]:
    """Read run folders, each with its ``teacher`` and ``control`` when it has them, in the order teacher to student.

    Raises:
        FileError: A folder is missing or is no run folder, or a file in it is unreadable.
        DataError: A file holds something else than it should.
    """
    if not folders:
        raise FileError("no run folder is given; name at least one")
    runs: list[Run] = []
    seen: set[Path] = set()
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise FileError(f"{folder} is not a folder; give the folder of a run")
        if not _holds_run(folder):
            raise FileError(f"{folder} holds none of {', '.join(FILES)}; give the folder that a run wrote")
        for place, fallback in [*((folder / name, name) for name in COMPANIONS), (folder, "model")]:
            if _holds_run(place) and place.resolve() not in seen:
                seen.add(place.resolve())
                runs.append(read_run(place, fallback))
    return sorted(_without_copies(runs), key=lambda run: ROLES.index(run.role))


def read_run(folder: Path, fallback_role: str = "model") -> Run:
    """Read one folder's files; ``fallback_role`` is the role when run.json doesn't tell."""
    section = Section.read(folder / "run.json") or Section(folder / "run.json", {})
    role = section.text("role")
    images = section.section("images") or Section(folder / "run.json", {})
    return Run(
        folder=folder,
        role=role if role in ROLES else fallback_role,
        name=section.text("name") or folder.resolve().name,
        data=section.text("data"),
        status=section.text("status"),
        created=section.text("created"),
        seed=section.count("seed"),
        steps=section.count("steps"),
        epochs=section.count("epochs"),
        seconds=section.number("seconds"),
        labeled=images.count("labeled"),
        unlabeled=images.count("unlabeled"),
        machine=_read_machine(section.section("machine")),
        evaluation=_read_evaluation(folder),
        profile=_read_profile(folder),
        metrics=_read_metrics(folder / "metrics.csv"),
    )


def _read_machine(section: Section | None) -> dict[str, str]:
    if section is None:
        return {}
    keys = ("cpu", "cores", "threads", "device", "precision", "torch", "python")
    found = {key: text for key in keys if (text := section.text(key))}
    memory = section.number("memory_gb")
    return found if memory is None else {**found, "memory_gb": f"{memory:.0f}"}


def _holds_run(folder: Path) -> bool:
    return any((folder / name).is_file() for name in FILES)


def _without_copies(runs: list[Run]) -> list[Run]:
    """Drop further copies of a teacher: student runs of several seeds each carry the same one."""
    kept: list[Run] = []
    teachers: set[tuple[object, ...]] = set()
    for run in runs:
        if run.role == "teacher":
            matrix = run.evaluation.confusion.tobytes() if run.evaluation else b""
            key = (run.name, run.seed, run.created, matrix)
            if key in teachers:
                continue
            teachers.add(key)
        kept.append(run)
    return kept


def _read_evaluation(folder: Path) -> Evaluation | None:
    section = Section.read(folder / "evaluation.json")
    if section is None:
        return None
    classes = tuple(ClassColor(c.text("name") or "?", _color(c.text("color"))) for c in section.sections("classes"))
    matrix = np.array(section.table("confusion"), dtype=np.float64)
    scores = section.section("scores")
    if not classes or scores is None:
        raise section.missing("classes" if not classes else "scores")
    if matrix.shape != (len(classes), len(classes)):
        raise DataError(
            f"{folder / 'evaluation.json'}: 'confusion' must be {len(classes)} lists of {len(classes)} numbers, "
            f"found shape {matrix.shape}; evaluate the model again"
        )
    names = ("mean_iou", "mean_accuracy", "accuracy", "frequency_weighted_iou", "kappa")
    iou = scores.numbers("iou")
    interval = section.section("interval")
    bounds = interval.numbers("mean_iou") if interval else ()
    low, high = bounds if len(bounds) == 2 else (None, None)
    calibration = section.section("calibration")
    agreement = section.section("agreement")
    model = section.section("model")
    return Evaluation(
        date=section.text("date"),
        data=section.text("data") or "?",
        split=section.text("split") or "val",
        leaking=section.flag("leaking"),
        model=model.text("name") if model else None,
        parameters=model.count("parameters") if model else None,
        classes=classes,
        images=section.count("images") or 0,
        pixels=section.count("pixels") or 0,
        scores={name: scores.number(name) for name in names},
        iou=iou if len(iou) == len(classes) else (None,) * len(classes),
        confusion=matrix,
        interval=(low, high) if low is not None and high is not None else None,
        level=(interval.number("level") if interval else None) or 0.95,
        calibration_error=calibration.number("expected_calibration_error") if calibration else None,
        bins=_read_bins(calibration),
        curves=tuple(_read_curve(curve) for curve in section.sections("curves")),
        per_image=tuple(_read_image(image, folder) for image in section.sections("per_image")),
        agreement={key: agreement.number(key) for key in ("accuracy", "mean_iou")} if agreement else {},
        agreement_with=agreement.text("with") if agreement else None,
        never_predicted=section.texts("never_predicted"),
    )


def _color(text: str | None) -> str:
    """Return ``text`` if it is ``#rrggbb``, else grey: it goes into the page's style sheet."""
    return text.lower() if text and re.fullmatch(r"#[0-9A-Fa-f]{6}", text) else GREY


def _read_bins(calibration: Section | None) -> tuple[CalibrationBin, ...]:
    bins = []
    for one in calibration.sections("bins") if calibration else []:
        confidence, accuracy, count = one.number("confidence"), one.number("accuracy"), one.count("count")
        if confidence is not None and accuracy is not None and count:
            bins.append(CalibrationBin(confidence, accuracy, count))
    return tuple(bins)


def _read_curve(section: Section) -> Curve:
    pairs = zip(section.numbers("precision"), section.numbers("recall"), strict=False)
    points = [(p, r) for p, r in pairs if p is not None and r is not None]
    return Curve(
        section.text("class") or "?",
        section.number("average_precision"),
        tuple(precision for precision, _ in points),
        tuple(recall for _, recall in points),
    )


def _read_image(section: Section, folder: Path) -> ImageScore:
    pictures = section.section("pictures")
    files = [_inside(folder, pictures.path(key)) for key in ("image", "truth", "prediction")] if pictures else []
    complete = [path for path in files if path is not None]
    return ImageScore(
        name=section.text("name") or "?",
        mean_iou=section.number("mean_iou"),
        accuracy=section.number("accuracy"),
        pixels=section.count("pixels") or 0,
        pictures=Pictures(*complete) if len(complete) == 3 else None,
    )


def _inside(folder: Path, relative: str | None) -> Path | None:
    """Return the file at ``relative`` if it exists and lies inside ``folder``: other paths are not followed."""
    if not relative:
        return None
    path = folder / relative
    try:
        inside = path.resolve().is_relative_to(folder.resolve()) and path.is_file()
    except (OSError, ValueError):
        return None
    return path if inside else None


def _read_profile(folder: Path) -> Profile | None:
    section = Section.read(folder / "profile.json")
    if section is None:
        return None
    latency, machine, load = (section.section(key) for key in ("latency_ms", "machine", "load"))
    return Profile(
        parameters=section.count("parameters"),
        macs=section.number("macs"),
        input=tuple(round(size) for size in section.numbers("input") if size is not None),
        file_bytes=section.count("file_bytes"),
        latency_median=latency.number("median") if latency else None,
        latency_p95=latency.number("p95") if latency else None,
        threads=latency.count("threads") if latency else None,
        peak_memory=section.number("peak_memory_mb"),
        baseline_memory=section.number("baseline_memory_mb"),
        machine=machine.text("cpu") if machine else None,
        load=load.number("others") if load else None,
        busy=load is not None and load.flag("busy"),
        session=section.text("session"),
    )


def _read_metrics(path: Path) -> dict[str, tuple[tuple[float, ...], tuple[float, ...]]]:
    """Return every column with at least one measured value; a row without an epoch is left out."""
    if not path.is_file():
        return {}
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise FileError(f"can't read {path} ({error}); delete it to leave the curves out") from error
    columns: dict[str, tuple[list[float], list[float]]] = {}
    for row in rows:
        epoch = _measured(row.get("epoch"))
        for name, cell in row.items():
            value = _measured(cell)
            if name and name != "epoch" and epoch is not None and value is not None:
                epochs, values = columns.setdefault(name, ([], []))
                epochs.append(epoch)
                values.append(value)
    return {name: (tuple(epochs), tuple(values)) for name, (epochs, values) in columns.items()}


def _measured(cell: object) -> float | None:
    try:
        value = float(cell) if isinstance(cell, str) else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None
