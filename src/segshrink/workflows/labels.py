"""Which labels of a data set are probably wrong: what teachers that haven't seen them contradict, as polygons."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from segshrink.classes import ClassMap
from segshrink.config import DatasetDescription, load_dataset
from segshrink.data import SceneStore, open_dataset, scenes
from segshrink.data.sources import Sample
from segshrink.errors import ConfigError, FileError, UsageError
from segshrink.evaluation.evaluate import SPLITS
from segshrink.evaluation.label_errors import SelfConfidence, contradicted_regions
from segshrink.files import writing
from segshrink.imagery.label_regions import CLASS, SUFFIXES, regions_of, write_label_regions
from segshrink.imagery.polygons import require_vector_extra
from segshrink.teachers import Teacher, open_out_of_fold
from segshrink.training.hardware import use_free_threads
from segshrink.training.run import cached_answers
from segshrink.workflows.progress import Progress, silent


@dataclass(frozen=True)
class LabelError:
    """A region of an image whose label is probably wrong.

    Attributes:
        image: Name of the image.
        label: What the mask says.
        suggestion: What teachers that haven't seen the image say.
        pixels: How many.
        score: How much likelier they find the suggestion than the label, mean over the pixels, in (0, 1].
        polygon: Its outline as a shapely polygon in pixels: x is the column, y the row.
    """

    image: str
    label: str
    suggestion: str
    pixels: int
    score: float
    polygon: Any

    @property
    def gain(self) -> float:
        """Pixels of which the label is expected to become right when the suggestion is accepted."""
        return self.score * self.pixels


@dataclass(frozen=True)
class LabelErrors:
    """The probable label errors of a data set.

    Attributes:
        data: Name of the data set.
        images: How many images were examined.
        seen: Names of images that weren't, because every teacher has seen their ground.
        errors: By falling expected gain.
    """

    data: str
    images: int
    seen: tuple[str, ...]
    errors: tuple[LabelError, ...]

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values, without the outlines."""
        errors = [
            {name: value for name, value in vars(error).items() if name != "polygon"} | {"gain": error.gain}
            for error in self.errors
        ]
        return {"data": self.data, "images": self.images, "seen": list(self.seen), "errors": errors}


def find_label_errors(
    data: DatasetDescription | str | Path,
    bank: str | Path | Sequence[str | Path],
    *,
    out: str | Path | None = None,
    split: str = "train",
    border: int = 3,
    vectors: Literal["geojson", "gpkg"] = "geojson",
    overwrite: bool = False,
    progress: Progress = silent,
) -> LabelErrors:
    """Find regions whose labels are confidently contradicted by teachers that haven't seen them.

    A pixel is contradicted where another class than its label is the likeliest of those whose probability reaches the
    mean that the class gets where it is the label (confident learning, Northcutt et al. 2021). Connected pixels of one
    label and one suggestion are a region. They are ranked by the gain in probability, summed over their pixels: how
    many labels accepting the suggestion is expected to put right.

    Args:
        data: The data set's description, or its file.
        bank: Run folder of a bank with ``folds``, or run folders of several banks or single teachers.
        out: Folder that gets the regions of each image, ``NAME.geojson`` or ``NAME.gpkg``, to decide about in QGIS;
            ``label_errors`` in the description reads the decisions. None writes nothing.
        split: The part whose labels are examined.
        border: Regions nowhere wider than twice so many pixels are left out, because annotators differ by a few pixels
            along borders.
        vectors: Format of the files; ``gpkg`` needs images that say where they lie.
        overwrite: Replace files of an earlier call, with the decisions in them.
        progress: Told how far it has come.

    Raises:
        UsageError: The split is unknown, or ``border`` isn't positive.
        ConfigError: Every teacher has seen every image, or the split cuts images into patches.
        FileError: A file of regions is there already, a run's data set isn't, or a file is missing.
        ModelError: A teacher is damaged, or knows no class of the data set.
        DataError: ``gpkg`` is asked for and an image doesn't say where it lies.
        MissingExtraError: What writes polygons isn't installed.
    """
    if split not in SPLITS or border < 1:
        raise UsageError(f"split is one of {', '.join(SPLITS)} and border at least 1, found '{split}' and {border}")
    dataset = open_dataset(data if isinstance(data, DatasetDescription) else load_dataset(Path(data)))
    if dataset.leaking:
        raise ConfigError("'split.patches' shows every teacher a part of every image; choose another split")
    samples: tuple[Sample, ...] = getattr(dataset, split)
    if out is not None:
        require_vector_extra(Path(f"regions.{vectors}"))
        if not overwrite:
            _refuse_regions(Path(out), samples)
    teacher, kept = open_out_of_fold([bank] if isinstance(bank, str | Path) else bank, dataset, samples)
    use_free_threads()
    store = SceneStore(kept, dataset.classes)
    answers = cached_answers(teacher, [store], True, partial(progress, "ask the teachers"))
    errors = tuple(sorted(_errors(answers, store, border, progress), key=lambda error: -error.gain))
    if out is not None:
        with writing(Path(out)):
            _write(errors, Path(out), samples, dataset.classes, suffix=f".{vectors}")
    examined = {sample.name for sample in kept}
    seen = tuple(sample.name for sample in samples if sample.name not in examined)
    return LabelErrors(dataset.description.name, len(kept), seen, errors)


def _errors(answers: Teacher, store: SceneStore, border: int, progress: Progress) -> Iterator[LabelError]:
    """Look at every scene twice: first how sure the teachers are of each class, then where they contradict."""
    names, steps = store.classes.names, 2 * len(store)
    confidence = SelfConfidence(len(names))
    for number, scene in enumerate(scenes(store), start=1):
        confidence.update(answers.predict_scene(scene).probabilities, scene.target)
        progress("compare labels", number, steps)
    thresholds = confidence.thresholds()
    for number, scene in enumerate(scenes(store), start=len(store) + 1):
        probabilities = answers.predict_scene(scene).probabilities
        for suggestion, found in contradicted_regions(probabilities, scene.target, thresholds, width=border):
            for polygon, label, total, count in zip(
                found.polygons, found.classes.tolist(), found.totals.tolist(), found.counts.tolist(), strict=True
            ):
                yield LabelError(scene.name, names[label], names[suggestion], count, total / count, polygon)
        progress("compare labels", number, steps)


def _refuse_regions(out: Path, samples: Sequence[Sample]) -> None:
    """Refuse a folder with regions of these images."""
    if path := next(filter(None, (regions_of(out, sample.name) for sample in samples)), None):
        raise FileError(
            f"{path} is there already and may hold decisions; choose another folder, or replace it with "
            "--overwrite (overwrite=True)"
        )


def _write(errors: Sequence[LabelError], out: Path, samples: Sequence[Sample], classes: ClassMap, suffix: str) -> None:
    """Write the regions of each image that has some; then remove those of an earlier call that none replaced."""
    written = set()
    for sample in samples:
        ranked = [(rank, error) for rank, error in enumerate(errors, start=1) if error.image == sample.name]
        if not ranked:
            continue
        columns = {
            CLASS: np.array([error.suggestion for _, error in ranked], object),
            "class_index": [classes.names.index(error.suggestion) for _, error in ranked],
            "label": np.array([error.label for _, error in ranked], object),
            "rank": [rank for rank, _ in ranked],
            "score": [round(error.score, 4) for _, error in ranked],
            "gain": [round(error.gain, 1) for _, error in ranked],
        }
        polygons = np.array([error.polygon for _, error in ranked], object)
        path = out / f"{sample.name}{suffix}"
        write_label_regions(path, sample.image, classes, polygons, columns)
        written.add(path)
    for path in {out / f"{sample.name}{ending}" for sample in samples for ending in SUFFIXES} - written:
        path.unlink(missing_ok=True)
