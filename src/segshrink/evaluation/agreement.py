"""How far two models predict the same, from the predictions that an evaluation of the reference stored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segshrink.classes import IGNORE_INDEX, ClassMap
from segshrink.errors import DataError, FileError
from segshrink.evaluation.confusion import Confusion
from segshrink.evaluation_records import AgreementRecord
from segshrink.formatting import printable
from segshrink.imagery import read_mask
from segshrink.run_folder import RunFolder


class Comparison:
    """Counts where a reference predicts the same, over every pixel that has a value, labeled or not.

    Args:
        reference: Run folder of the reference, evaluated on the same scenes.
        classes: The classes of both.

    Raises:
        FileError: The reference wasn't evaluated.
        DataError: It was evaluated on other classes.
    """

    def __init__(self, reference: str | Path, classes: ClassMap) -> None:
        self._run = RunFolder(reference)
        evaluation = self._run.evaluation()
        if evaluation.class_names != tuple(map(printable, classes.names)):
            raise DataError(
                f"{reference} was evaluated on the classes {', '.join(evaluation.class_names)}, this evaluation has "
                f"{', '.join(classes.names)}; evaluate both on one data set"
            )
        self._name = evaluation.model.name or self._run.path.resolve().name
        self._confusion = Confusion(len(classes))
        self._images = 0

    def count(self, scene: str, index: NDArray[np.uint8]) -> None:
        """Compare predicted classes (H, W) of a scene, 255 where the image has no value.

        Raises:
            FileError: The reference stored no prediction of it, or it is damaged.
            DataError: The stored one has another size.
        """
        stored = self._stored(scene)
        if stored.shape == index.shape:
            stored = np.where(index == IGNORE_INDEX, index, stored)
        try:
            self._confusion.update(index, stored)
        except DataError as error:
            raise DataError(f"can't compare with the prediction of {self._name}: {error}") from error
        self._images += 1

    def agreement(self) -> AgreementRecord:
        """Return the agreement over everything counted so far."""
        scores, images = self._confusion.scores(), self._images
        return AgreementRecord(reference=self._name, accuracy=scores.accuracy, mean_iou=scores.mean_iou, images=images)

    def _stored(self, scene: str) -> NDArray[np.uint8]:
        path = self._run.predictions / f"{scene}.png"
        if not path.is_file():
            raise FileError(
                f"{self._run.path} holds no stored prediction of image '{scene}'; evaluate it on this split first"
            )
        indices = tuple(range(self._confusion.num_classes))
        names, colors = tuple(map(str, indices)), tuple((0, 0, index) for index in indices)
        return read_mask(path, ClassMap(names, colors, values=indices, ignored_values=(IGNORE_INDEX,)))
