"""What a model file is worth: its mIoU, and how often it decides as the float32 model does."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segshrink.data import Dataset, SceneStore
from segshrink.errors import ConfigError, DataError
from segshrink.evaluation import Confusion
from segshrink.prediction import Backend, Predictor
from segshrink.prediction.logits import most_likely

WARM_UP = 3
ROUNDS = 15
SIZE = 512

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


def latencies(backends: Sequence[Backend], *, dtype: str) -> list[float]:
    """Return each model's median milliseconds for one image of 512 x 512 pixels, raw pixels in, classes out.

    The models take turns, so that a machine's drift is none's advantage. How many threads each uses is its own.

    Args:
        backends: The models; they take the same images.
        dtype: Kind of the raw pixel values.
    """
    image = np.random.default_rng(0).integers(0, 256, (1, SIZE, SIZE, backends[0].bands)).astype(dtype)
    for backend in backends:
        for _ in range(WARM_UP):
            backend.classify(image)
    seconds = np.empty((ROUNDS, len(backends)))
    for turn in range(ROUNDS):
        for position, backend in enumerate(backends):
            start = time.perf_counter()
            backend.classify(image)
            seconds[turn, position] = time.perf_counter() - start
    return [round(1000 * float(median), 3) for median in np.median(seconds, axis=0)]
