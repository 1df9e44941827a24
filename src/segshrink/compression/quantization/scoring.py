"""What a model file is worth: its mIoU, and how often it decides as the float32 model does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segshrink.data import Dataset, SceneStore
from segshrink.errors import ConfigError, DataError
from segshrink.evaluation import Confusion
from segshrink.prediction import Backend, Predictor
from segshrink.prediction.logits import most_likely

ScenesDone = Callable[[int, int], None]


@dataclass(frozen=True)
class Score:
    """How good a model is on the validation split.

    Attributes:
        mean_iou: In [0, 1].
        agreement: Share of all pixels, labelled or not, on which it decides as the float32 model.
    """

    mean_iou: float
    agreement: float


class Judge:
    """Scores models on a data set's validation split, by the tiles that deployment uses.

    Args:
        dataset: The data set.
        scratch: Existing folder that holds the first model's predictions meanwhile.
        progress: Called after every scene with (scenes done, scenes in all).

    Raises:
        ConfigError: The validation split is empty.
    """

    def __init__(self, dataset: Dataset, scratch: Path, *, progress: ScenesDone | None = None) -> None:
        if not dataset.val:
            raise ConfigError(
                f"data set '{dataset.description.name}' has no images in its val split to measure what int8 costs; "
                "name some under 'split'"
            )
        self._store = SceneStore(dataset.val, dataset.classes)
        self._classes = len(dataset.classes)
        self._scratch = scratch
        self._progress = progress
        self._first = True

    def score(self, backend: Backend) -> Score:
        """Score a model; the first one to be scored is what others are compared with.

        Raises:
            DataError: No pixel of the split is labelled.
        """
        predictor = Predictor(backend)
        confusion = Confusion(self._classes)
        same = pixels = 0
        for number in range(len(self._store)):
            index = most_likely(predictor.predict_logits(self._store.image(number)))
            confusion.update(index, self._store.mask(number))
            path = self._scratch / f"{number}.npy"
            if self._first:
                np.save(path, index)
            same += int((np.load(path) == index).sum())
            pixels += index.size
            if self._progress is not None:
                self._progress(number + 1, len(self._store))
        self._first = False
        if not confusion.matrix.any():
            raise DataError("no validation scene has a labelled pixel; check the masks and the classes")
        return Score(float(confusion.scores().mean_iou), same / pixels)
