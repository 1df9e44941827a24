"""How good each measured model is: mean IoU through the very runtime that was timed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from segshrink.config import DatasetDescription, load_dataset
from segshrink.errors import ConfigError


@dataclass(frozen=True)
class Score:
    """Mean IoU, 0 to 1, and its bootstrap interval over images; None where it is not a number."""

    mean_iou: float | None
    interval: tuple[float, float] | None

    def to_dict(self) -> dict[str, Any]:
        """Return both, JSON-able."""
        return {"mean_iou": self.mean_iou, "mean_iou_interval": None if self.interval is None else list(self.interval)}


class Judge:
    """Scores models on one split of a data set, at native resolution, with overlapping tiles.

    Args:
        data: The data set, or its description's file.
        split: "train", "val" or "test".

    Raises:
        ConfigError: The description is wrong, or the split is empty.
        DataError: Images and masks contradict it.
    """

    def __init__(self, data: DatasetDescription | str | Path, *, split: str) -> None:
        from segshrink.data import SceneStore, open_dataset, scenes

        self.description = data if isinstance(data, DatasetDescription) else load_dataset(Path(data))
        self.split = split
        dataset = open_dataset(self.description)
        samples = getattr(dataset, split)
        if not samples:
            raise ConfigError(
                f"data set '{self.description.name}' has no images in its {split} split; choose another split"
            )
        self._classes = dataset.classes
        self._scenes = partial(scenes, SceneStore(samples, dataset.classes))

    def score(
        self, file: Path, *, runtime: str, precision: str, progress: Callable[[int, int], None] | None = None
    ) -> Score:
        """Score what lies in a file or folder.

        Args:
            file: What ``open_backend`` takes.
            runtime: What runs it.
            precision: "auto", "32" or "bf16".
            progress: Called after every scene with (scenes done, scenes in all).

        Raises:
            ModelError: It can't be opened, fails, or knows other classes or bands than the data set.
            DataError: A scene contradicts the classes.
        """
        from segshrink.evaluation import evaluate
        from segshrink.prediction import Predictor, open_backend
        from segshrink.prediction.isolated import check_isolated

        if file.is_file():  # a runtime that ends its process must not end this one
            check_isolated(file, runtime=runtime, precision=precision)
        result = evaluate(
            Predictor(open_backend(file, runtime=runtime, precision=precision)),
            self._scenes,
            classes=self._classes,
            split=self.split,
            data_name=self.description.name,
            leaking=self.description.split.leaking,
            model_name=file.name,
            parameters=None,
            out=None,
            progress=progress,
        )
        low, high = _finite(result.interval.low), _finite(result.interval.high)
        interval = None if low is None or high is None else (low, high)
        return Score(_finite(result.scores.mean_iou), interval)


def _finite(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
