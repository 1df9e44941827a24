"""How far two models predict the same, from the predictions their evaluations stored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segshrink.classes import IGNORE_INDEX, ClassMap
from segshrink.errors import DataError, FileError
from segshrink.evaluation.confusion import Confusion
from segshrink.imagery import read_mask
from segshrink.run_folder import RunFolder
from segshrink.run_records import AgreementRecord


def agreement_between(run: str | Path, reference: str | Path) -> AgreementRecord:
    """Compare the stored predictions of two evaluated run folders; runs no model.

    Args:
        run: Run folder with ``evaluation.json`` and ``evaluation/predictions/NAME.png``.
        reference: The same of the reference, evaluated on the same images.

    Raises:
        FileError: A folder wasn't evaluated, or a stored prediction is damaged.
        DataError: The two were evaluated on other classes or images.
    """
    first, second = RunFolder(run), RunFolder(reference)
    names, reference_names = first.evaluation().class_names, second.evaluation().class_names
    if names != reference_names:
        raise DataError(
            f"{run} and {reference} were evaluated on different classes ({', '.join(names)}; "
            f"{', '.join(reference_names)}); evaluate both on one data set"
        )
    scenes, reference_scenes = _stored_names(first), _stored_names(second)
    if scenes != reference_scenes:
        raise DataError(
            f"{run} and {reference} were evaluated on different images ({len(scenes)} and {len(reference_scenes)}, "
            f"{len(scenes & reference_scenes)} in common); evaluate both on one split"
        )
    confusion = Confusion(len(names))
    for scene in sorted(scenes):
        prediction = read_prediction(first, scene, num_classes=len(names))
        other = read_prediction(second, scene, num_classes=len(names))
        if prediction.shape != other.shape:
            raise DataError(
                f"predictions of image '{scene}' differ in size in {run} {prediction.shape} and {reference} "
                f"{other.shape}; evaluate both on one split"
            )
        confusion.update(prediction, other)
    return agreement_of(confusion, reference_name(second), images=len(scenes))


def agreement_of(confusion: Confusion, reference: str, *, images: int) -> AgreementRecord:
    """Return the agreement from a confusion matrix of [reference, prediction]."""
    scores = confusion.scores()
    return AgreementRecord(reference=reference, accuracy=scores.accuracy, mean_iou=scores.mean_iou, images=images)


def read_prediction(run: RunFolder, scene: str, *, num_classes: int) -> NDArray[np.uint8]:
    """Read the stored class indices (H, W) of one scene.

    Raises:
        FileError: The run holds no prediction of that scene.
    """
    path = run.predictions / f"{scene}.png"
    if not path.is_file():
        raise FileError(f"{run.path} holds no stored prediction of image '{scene}'; evaluate it on this split first")
    names = tuple(str(position) for position in range(num_classes))
    colors = tuple((0, 0, position) for position in range(num_classes))
    plain = ClassMap(names, colors, values=tuple(range(num_classes)), ignored_values=(IGNORE_INDEX,))
    return read_mask(path, plain)


def reference_name(run: RunFolder) -> str:
    """Return the model name of an evaluated run folder, or the folder's name."""
    return run.evaluation().model.name or run.path.resolve().name


def _stored_names(run: RunFolder) -> frozenset[str]:
    """Return the names of the scenes whose predictions a run folder holds."""
    names = frozenset(path.stem for path in run.predictions.glob("*.png"))
    if not names:
        raise FileError(f"{run.path} holds no stored predictions; run `segshrink evaluate` on it first")
    return names
