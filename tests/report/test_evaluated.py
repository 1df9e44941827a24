"""The report of what segshrink.evaluation itself writes: the two agree on the file format."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from segshrink.classes import ClassMap
from segshrink.evaluation import score_scenes
from segshrink.prediction import Prediction
from segshrink.report import collect
from segshrink.report import report as write_report
from segshrink.report.pictures import examples


@dataclass(frozen=True)
class Scene:
    name: str
    image: np.ndarray
    target: np.ndarray


class Brightest:
    """Takes the brightest band for the class."""

    def predict_array(self, image: np.ndarray) -> Prediction:
        logits = np.moveaxis(image.astype(np.float32) / 40, -1, 0)
        exponentials = np.exp(logits - logits.max(axis=0))
        return Prediction(logits.argmax(axis=0).astype(np.uint8), exponentials / exponentials.sum(axis=0))


def scene(number: int) -> Scene:
    rng = np.random.default_rng(number)
    image = rng.integers(0, 256, size=(40, 50, 3), dtype=np.uint8)
    target = np.where(rng.random((40, 50)) < 0.7, image.argmax(axis=-1), rng.integers(0, 2, size=(40, 50)))
    target[:, :4] = 255
    return Scene(f"scene_{number}", image, target.astype(np.uint8))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    classes = ClassMap.build(entries=[("red", "#aa0000", None), ("green", "#00aa00", None), ("blue", "#0000aa", None)])
    out = tmp_path_factory.mktemp("evaluated")
    score_scenes(
        Brightest(),
        [scene(number) for number in range(4)],
        classes=classes,
        split="val",
        data_name="noise",
        leaking=False,
        model_name="brightest",
        parameters=0,
        out=out,
    )
    return out


def test_scores_agree_with_a_direct_count(folder: Path) -> None:
    (run,) = collect([folder])
    evaluation = run.evaluation
    assert evaluation is not None
    truth = np.concatenate([scene(number).target.ravel() for number in range(4)])
    found = np.concatenate([scene(number).image.argmax(axis=-1).ravel() for number in range(4)])
    valid = truth != 255
    assert evaluation.scores.accuracy == pytest.approx((truth == found)[valid].mean())
    assert evaluation.pixels == valid.sum()
    assert run.interval is not None
    assert run.interval[0] <= evaluation.scores.mean_iou <= run.interval[1]
    assert len(evaluation.curves) == 3
    assert evaluation.calibration.bins


def test_every_picture_is_shown(folder: Path) -> None:
    rows, notes = examples(collect([folder]))
    assert notes == []
    assert len(rows) == 4
    assert all([tile.kind for tile in row.tiles] == ["image", "map", "map", "errors"] for row in rows)


def test_page_is_built(folder: Path) -> None:
    assert "noise" in write_report([folder]).read_text()
