"""Evaluation of whole scenes: one confusion matrix over all pixels, files as the report reads them."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pytest
import sklearn.metrics
from PIL import Image

from segshrink.classes import ClassMap
from segshrink.data import Scene
from segshrink.errors import DataError, FileError, ModelError
from segshrink.evaluation import score_scenes
from segshrink.evaluation.pictures import evenly_spaced
from segshrink.evaluation.score_scenes import Average
from segshrink.prediction import Prediction

CLASSES = ClassMap.build([("land", "#C08040", None), ("water", "#0000FF", None), ("road", "#303030", None)])


@dataclass(frozen=True)
class FakeScene:
    name: str
    image: np.ndarray
    target: np.ndarray


class FakePredictor:
    """Reads the class from the image's first band, right for all but a share of pixels."""

    def __init__(self, *, wrong=0.2, seed=0, only=None):
        self.wrong, self.seed, self.only, self.calls = wrong, seed, only, 0

    def predict_array(self, image):
        self.calls += 1
        rng = np.random.default_rng([self.seed, int(image.sum())])
        index = image[..., 0] // 80
        index = np.where(rng.random(index.shape) < self.wrong, rng.integers(0, 3, index.shape), index).astype(np.uint8)
        if self.only is not None:
            index[:] = self.only
        probabilities = np.full((3, *index.shape), 0.1, np.float32)
        np.put_along_axis(probabilities, index[None].astype(np.int64), np.float32(0.8), axis=0)
        return Prediction(index, probabilities)


def scene(number, *, height=20, width=31, dtype=np.uint8):
    rng = np.random.default_rng(number)
    target = rng.integers(0, 3, (height, width)).astype(np.uint8)
    image = np.stack([target * 80, *rng.integers(0, 255, (2, height, width))], axis=-1).astype(dtype)
    target[: number % 3] = 255
    image.setflags(write=False)
    target.setflags(write=False)
    return FakeScene(f"scene-{number:03d}", image, target)


@pytest.fixture
def scenes():
    return [scene(number) for number in range(5)]


def run(predictor, scenes, out=None, **changes):
    settings = {
        "classes": CLASSES,
        "split": "val",
        "data_name": "fake",
        "leaking": False,
        "model_name": "fake-model",
        "parameters": 7,
        "out": out,
    }
    return score_scenes(predictor, scenes, **(settings | changes))


def test_pixels_away_from_borders_are_scored_by_themselves():
    target = np.repeat([[0, 0, 0, 0, 1, 1, 1, 255]], 6, axis=0).astype(np.uint8)
    image = np.stack([target * 80] * 3, axis=-1)
    image[:, 4] = 0  # the predictor takes the border's pixels for class 0
    evaluation = run(FakePredictor(wrong=0), [FakeScene("a", image, target)], border=2)
    assert evaluation.confusion == ((24, 0, 0), (6, 12, 0), (0, 0, 0))
    assert evaluation.inner.confusion == ((12, 0, 0), (0, 6, 0), (0, 0, 0))
    assert (evaluation.inner.pixels, evaluation.inner.scores.mean_iou) == (18, 1.0)
    assert run(FakePredictor(), [FakeScene("a", image, target)]).inner is None


def test_scores_come_from_all_pixels_of_all_scenes(scenes):
    evaluation = run(FakePredictor(), scenes)
    truth = np.concatenate([item.target.ravel() for item in scenes])
    found = np.concatenate([FakePredictor().predict_array(item.image).index.ravel() for item in scenes])
    truth, found = truth[truth != 255], found[truth != 255]
    np.testing.assert_array_equal(evaluation.confusion, sklearn.metrics.confusion_matrix(truth, found))
    expected = sklearn.metrics.jaccard_score(truth, found, average="macro")
    assert evaluation.scores.mean_iou == pytest.approx(expected)
    assert evaluation.pixels == truth.size
    low, high = evaluation.interval.mean_iou
    assert low < expected < high
    assert [item.pixels for item in evaluation.per_image] == [int((item.target != 255).sum()) for item in scenes]
    confident_share = (truth == found).mean()
    assert evaluation.calibration.expected_calibration_error == pytest.approx(abs(0.8 - confident_share), abs=1e-6)


def test_writes_the_run_folder_of_the_contract(scenes, tmp_path):
    evaluation = run(FakePredictor(), scenes, tmp_path, leaking=True)
    content = json.loads((tmp_path / "evaluation.json").read_text())
    assert content == json.loads(json.dumps(evaluation.to_json(), allow_nan=False))
    assert list(content) == [
        *("segshrink", "date", "data", "split", "leaking", "truth", "model", "classes", "images", "pixels", "scores"),
        *("confusion", "interval", "areas", "calibration", "curves", "pooled_curve", "soft_answers", "per_image"),
        *("agreement", "inner", "never_predicted"),
    ]
    assert content["model"] == {"name": "fake-model", "parameters": 7}
    assert content["classes"][1] == {"name": "water", "color": "#0000FF"}
    assert content["leaking"] is True
    assert content["interval"].keys() == {"mean_iou", "accuracy", "level", "resamples"}
    assert [curve["class"] for curve in content["curves"]] == ["land", "water", "road"]
    assert content["agreement"] is None
    for item, source in zip(content["per_image"], scenes, strict=True):
        with Image.open(tmp_path / item["pictures"]["image"]) as picture:
            assert (picture.format, picture.size) == ("JPEG", (31, 20))
        with Image.open(tmp_path / item["pictures"]["truth"]) as picture:
            assert picture.mode == "P"
            np.testing.assert_array_equal(np.asarray(picture), source.target)
        index = FakePredictor().predict_array(source.image).index
        for path in (item["pictures"]["prediction"], f"evaluation/predictions/{source.name}.png"):
            with Image.open(tmp_path / path) as picture:
                np.testing.assert_array_equal(np.asarray(picture), index)


def test_several_models_are_judged_by_the_mean_of_their_probabilities(scenes):
    class Fixed:
        """Says the same of every pixel."""

        def __init__(self, *probabilities):
            self.probabilities = np.array(probabilities, np.float32)[:, None, None]

        def predict_array(self, image):
            answer = np.broadcast_to(self.probabilities, (3, *image.shape[:2])).copy()
            return Prediction(answer.argmax(0).astype(np.uint8), answer)

    prediction = Average([Fixed(0.6, 0.4, 0.0), Fixed(0.0, 0.5, 0.5), Fixed(0.3, 0.3, 0.4)]).predict_scene(scenes[0])
    assert prediction.probabilities[:, 0, 0].tolist() == pytest.approx([0.3, 0.4, 0.3])
    assert (prediction.index == 1).all()


def test_pictures_are_shrunk_by_nearest_pixel_and_predictions_are_not(tmp_path):
    large = scene(0, height=700, width=2048, dtype=np.uint16)
    run(FakePredictor(), [large], tmp_path)
    with Image.open(tmp_path / "evaluation" / "scene-000.jpg") as picture:
        assert picture.size == (1024, 350)
    with Image.open(tmp_path / "evaluation" / "scene-000.truth.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), large.target[1::2, 1::2])
    with Image.open(tmp_path / "evaluation" / "predictions" / "scene-000.png") as picture:
        assert picture.size == (2048, 700)


def test_shows_a_limited_number_of_scenes_evenly_spaced_by_name(tmp_path):
    many = [scene(number) for number in (3, 0, 7, 1, 9, 2, 8, 4, 6, 5)]
    evaluation = run(FakePredictor(), many, tmp_path, pictures=4)
    shown = [item.name for item in evaluation.per_image if item.pictures]
    assert sorted(shown) == ["scene-000", "scene-002", "scene-005", "scene-007"]
    assert len(list((tmp_path / "evaluation").glob("*.jpg"))) == 4
    assert len(list((tmp_path / "evaluation" / "predictions").glob("*.png"))) == 10
    assert evenly_spaced(reversed(["a", "b", "c"]), limit=3) == {"a", "b", "c"}
    assert evenly_spaced("abc", limit=0) == frozenset()


@pytest.mark.parametrize("kind", ["list", "generator", "callable"])
def test_takes_any_source_of_scenes_and_runs_the_model_once_each(scenes, kind):
    source = {"list": scenes, "generator": (item for item in scenes), "callable": lambda: iter(scenes)}[kind]
    predictor, steps = FakePredictor(), []
    evaluation = run(predictor, source, progress=lambda done, total: steps.append((done, total)))
    assert predictor.calls == len(evaluation.per_image) == 5
    assert steps == [(done, 5) for done in range(1, 6)]


def test_a_later_evaluation_replaces_the_earlier_one(scenes, tmp_path):
    run(FakePredictor(), scenes, tmp_path)
    run(FakePredictor(), scenes[:2], tmp_path)
    assert sorted(path.stem for path in (tmp_path / "evaluation").glob("*.jpg")) == ["scene-000", "scene-001"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evaluation", "evaluation.json"]


def test_a_failing_evaluation_leaves_the_earlier_one(scenes, tmp_path):
    run(FakePredictor(), scenes, tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    broken = FakeScene("broken", scenes[0].image, np.zeros((3, 3), np.uint8))
    with pytest.raises(DataError, match="scene 'broken'"):
        run(FakePredictor(), [*scenes, broken], tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_agreement_is_with_the_stored_predictions(scenes, tmp_path):
    run(FakePredictor(seed=1), scenes, tmp_path / "teacher", model_name="teacher")
    agreement = run(FakePredictor(seed=2), scenes, tmp_path / "student", reference=tmp_path / "teacher").agreement
    teacher, student = (
        np.concatenate([FakePredictor(seed=seed).predict_array(item.image).index.ravel() for item in scenes])
        for seed in (1, 2)
    )
    assert (agreement.reference, agreement.images) == ("teacher", 5)
    assert agreement.accuracy == pytest.approx((teacher == student).mean())
    assert agreement.mean_iou == pytest.approx(sklearn.metrics.jaccard_score(teacher, student, average="macro"))
    assert json.loads((tmp_path / "student" / "evaluation.json").read_text())["agreement"]["with"] == "teacher"


def test_agreement_with_itself_is_complete(scenes, tmp_path):
    run(FakePredictor(), scenes, tmp_path)
    agreement = run(FakePredictor(), scenes, reference=tmp_path).agreement
    assert agreement.accuracy == agreement.mean_iou == 1


def test_pixels_without_a_value_are_neither_mapped_nor_compared_nor_kept(scenes, tmp_path):
    run(FakePredictor(only=1), scenes, tmp_path / "earlier")  # as a version did that knew of no such pixels
    valid = np.arange(31) < 10
    partial = []
    for item in scenes:
        target = np.where(valid, item.target, np.uint8(255))
        partial.append(Scene(item.name, item.image, target, np.broadcast_to(valid, target.shape)))
    whole, half = FakePredictor(wrong=0), FakePredictor(wrong=0)
    half.predict_array = lambda image: Prediction(
        np.where(valid, 2 - whole.predict_array(image).index, 1).astype(np.uint8),
        whole.predict_array(image).probabilities,
    )
    found = np.concatenate([half.predict_array(item.image).index[:, :10].ravel() for item in scenes])
    for reference in ("earlier", "teacher"):
        run(FakePredictor(wrong=0, only=1), partial, tmp_path / "teacher")
        evaluation = run(half, partial, tmp_path / "student", reference=tmp_path / reference)
        shares = np.bincount(found, minlength=3) / found.size
        assert [area.mapped for area in evaluation.areas] == pytest.approx(shares.tolist())
        assert evaluation.agreement.accuracy == pytest.approx(shares[1])
    for path in sorted((tmp_path / "student" / "evaluation").rglob("scene-004*.png")):
        kept = np.asarray(Image.open(path))
        assert (kept[:, 10:] == 255).all(), path
        assert (kept[:, :10] != 255).any(), path


def test_agreement_refuses_what_does_not_compare(scenes, tmp_path):
    run(FakePredictor(), scenes[:3], tmp_path / "b")
    with pytest.raises(FileError, match="'scene-003'"):
        run(FakePredictor(), scenes, reference=tmp_path / "b")
    with pytest.raises(FileError, match="segshrink evaluate"):
        run(FakePredictor(), scenes, reference=tmp_path / "nowhere")
    run(FakePredictor(), scenes, tmp_path / "c", classes=ClassMap(("x", "y", "z"), CLASSES.colors))
    with pytest.raises(DataError, match="evaluate both on one data set"):
        run(FakePredictor(), scenes, reference=tmp_path / "c")
    Image.new("P", (3, 3)).save(tmp_path / "b" / "evaluation" / "predictions" / "scene-000.png")
    with pytest.raises(DataError, match=r"scene 'scene-000'.*fake-model"):
        run(FakePredictor(), scenes[:3], reference=tmp_path / "b")


def test_a_collapsed_model_is_named(scenes):
    assert run(FakePredictor(only=0), scenes).never_predicted == ("water", "road")
    assert run(FakePredictor(), scenes).never_predicted == ()


def test_one_image_has_no_interval_and_unlabeled_images_no_score(scenes):
    blank = FakeScene("blank", scenes[0].image, np.full((20, 31), 255, np.uint8))
    content = run(FakePredictor(), [scenes[0], blank]).to_json()
    assert content["interval"] is None
    assert content["per_image"][1] == {
        "name": "blank",
        "mean_iou": None,
        "accuracy": None,
        "pixels": 0,
        "counts": [[0, 0, 0]] * 3,
        "pictures": None,
    }


@pytest.mark.parametrize("name", ["../outside", "a/b", "a\\b", "", ".."])
def test_refuses_names_that_leave_the_folder(scenes, name, tmp_path):
    with pytest.raises(DataError, match="file name"):
        run(FakePredictor(), [FakeScene(name, scenes[0].image, scenes[0].target)], tmp_path / "out")
    assert not list(tmp_path.rglob("*.*"))


def test_refuses_what_cannot_be_evaluated(scenes, tmp_path):
    with pytest.raises(DataError, match="no scene to evaluate"):
        run(FakePredictor(), [])
    with pytest.raises(DataError, match="two scenes are named"):
        run(FakePredictor(), [scenes[0], scenes[0]])
    with pytest.raises(DataError, match="no scene has a labeled pixel"):
        run(FakePredictor(), [FakeScene("a", scenes[0].image, np.full((20, 31), 255, np.uint8))], tmp_path)
    assert not list(tmp_path.iterdir())
    predictor = FakePredictor()
    predictor.classes = ClassMap(("water", "land", "road"), CLASSES.colors)
    with pytest.raises(ModelError, match="same order"):
        run(predictor, scenes)
