"""How far two models predict the same, from the predictions their evaluations stored."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segshrink.classes import IGNORE_INDEX, ClassMap
from segshrink.errors import DataError, FileError
from segshrink.evaluation.confusion import Confusion
from segshrink.imagery import read_mask
from segshrink.records import Section

PREDICTIONS = Path("evaluation") / "predictions"


@dataclass(frozen=True)
class Agreement:
    """Agreement of a model with a reference, over every pixel of the images, labelled or not.

    Attributes:
        reference: Name of the reference.
        accuracy: Share of pixels predicted the same.
        mean_iou: mIoU of the predictions, with the reference's as truth.
        images: Images compared.
    """

    reference: str
    accuracy: float
    mean_iou: float
    images: int

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able dictionary."""
        return {
            "with": self.reference,
            "accuracy": self.accuracy,
            "mean_iou": self.mean_iou,
            "images": self.images,
        }


def agreement_between(run: Path, reference: Path) -> Agreement:
    """Compare the stored predictions of two evaluated run folders; runs no model.

    Args:
        run: Run folder with ``evaluation.json`` and ``evaluation/predictions/NAME.png``.
        reference: The same of the reference, evaluated on the same images.

    Raises:
        FileError: A folder wasn't evaluated, or a stored prediction is damaged.
        DataError: The two were evaluated on other classes or images.
    """
    run, reference = Path(run), Path(reference)
    names, reference_names = class_names(run), class_names(reference)
    if names != reference_names:
        raise DataError(
            f"{run} and {reference} were evaluated on different classes ({', '.join(names)}; "
            f"{', '.join(reference_names)}); evaluate both on one data set"
        )
    scenes, reference_scenes = stored_names(run), stored_names(reference)
    if scenes != reference_scenes:
        raise DataError(
            f"{run} and {reference} were evaluated on different images ({len(scenes)} and {len(reference_scenes)}, "
            f"{len(scenes & reference_scenes)} in common); evaluate both on one split"
        )
    confusion = Confusion(len(names))
    for scene in sorted(scenes):
        prediction = read_prediction(run, scene, num_classes=len(names))
        other = read_prediction(reference, scene, num_classes=len(names))
        if prediction.shape != other.shape:
            raise DataError(
                f"predictions of image '{scene}' differ in size in {run} {prediction.shape} and {reference} "
                f"{other.shape}; evaluate both on one split"
            )
        confusion.update(prediction, other)
    return agreement_of(confusion, reference_name(reference), images=len(scenes))


def agreement_of(confusion: Confusion, reference: str, *, images: int) -> Agreement:
    """Return the agreement from a confusion matrix of [reference, prediction]."""
    scores = confusion.scores()
    return Agreement(reference, scores.accuracy, scores.mean_iou, images)


def read_prediction(run: Path, scene: str, *, num_classes: int) -> NDArray[np.uint8]:
    """Read the stored class indices (H, W) of one scene.

    Raises:
        FileError: The run holds no prediction of that scene.
    """
    path = Path(run) / PREDICTIONS / f"{scene}.png"
    if not path.is_file():
        raise FileError(f"{run} holds no stored prediction of image '{scene}'; evaluate it on this split first")
    names = tuple(str(position) for position in range(num_classes))
    colors = tuple((0, 0, position) for position in range(num_classes))
    plain = ClassMap(names, colors, values=tuple(range(num_classes)), ignored_values=(IGNORE_INDEX,))
    return read_mask(path, plain)


def reference_name(run: Path) -> str:
    """Return the model name of an evaluated run folder, or the folder's name."""
    model = _evaluation(run).section("model")
    return (model and model.path("name")) or Path(run).resolve().name


def class_names(run: Path) -> tuple[str, ...]:
    """Return the class names of an evaluated run folder."""
    return tuple(entry.known_text("name") for entry in _evaluation(run).sections("classes"))


def stored_names(run: Path) -> frozenset[str]:
    """Return the names of the scenes whose predictions a run folder holds."""
    names = frozenset(path.stem for path in (Path(run) / PREDICTIONS).glob("*.png"))
    if not names:
        raise FileError(f"{run} holds no stored predictions; run `segshrink evaluate` on it first")
    return names


def stored_mean_iou(run: Path) -> float:
    """Return the mIoU, in [0, 1], that the ``evaluation.json`` of a run folder holds.

    Raises:
        FileError: There is none, or it isn't JSON.
        DataError: It holds no such number.
    """
    return _evaluation(run).known_section("scores").known_number("mean_iou")


def _evaluation(run: Path) -> Section:
    path = Path(run) / "evaluation.json"
    if not path.is_file():
        raise FileError(f"{run} holds no evaluation.json; run `segshrink evaluate` on it first")
    return Section.open(path)
