"""Confusion matrix and scores against oracles, scikit-learn and a loop over pixels."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import sklearn.metrics
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from segshrink.errors import DataError
from segshrink.evaluation import Confusion
from segshrink.evaluation_records import ScoresRecord
from segshrink.scores import marginals, mean_iou_of_marginals, scores_of

ORACLES = ["metric_basic", "metric_binary", "metric_absent_label_only"]
SCORES = {
    "iou": "iou_nan",
    "precision": "precision_nan",
    "recall": "recall_nan",
    "f1": "f1_nan",
    "mean_iou": "miou_present_union",
    "mean_accuracy": "mean_accuracy",
    "accuracy": "pixel_accuracy",
    "frequency_weighted_iou": "fwiou",
    "kappa": "kappa",
}


def brute_force(prediction, target, classes, ignore=255):
    matrix = np.zeros((classes, classes), np.int64)
    for found, true in zip(np.ravel(prediction).tolist(), np.ravel(target).tolist(), strict=True):
        if true != ignore:
            matrix[true, found] += 1
    return matrix


@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy, lambda array: array.astype(np.int64)])
@pytest.mark.parametrize("case", ORACLES)
def test_agrees_with_the_oracles(oracles: Path, case, convert):
    arrays = np.load(oracles / f"{case}.npz")
    confusion = Confusion(len(arrays["out_confusion"]))
    confusion.update(convert(arrays["in_pred"]), convert(arrays["in_labels"]))
    np.testing.assert_array_equal(confusion.matrix, arrays["out_confusion"])
    scores = confusion.scores()
    for ours, theirs in SCORES.items():
        np.testing.assert_allclose(getattr(scores, ours), arrays[f"out_{theirs}"], rtol=1e-9, err_msg=ours)
    manifest = json.loads((oracles / "manifest.json").read_text())[case]["values"]
    assert scores.kappa == pytest.approx(manifest["kappa"], rel=1e-9)


@settings(max_examples=150)
@given(
    data=st.data(),
    classes=st.sampled_from([1, 2, 3, 6, 8, 9, 15, 16, 100, 180, 181, 255]),
    kind=st.sampled_from(["uint8", "int64", "int16", "uint16", "tensor", "tensor64"]),
)
def test_equals_a_loop_over_pixels_for_any_shape_type_and_number_of_classes(data, classes, kind):
    shape = data.draw(hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=7))
    labels = st.one_of(st.integers(0, classes - 1), st.just(255 if classes <= 255 else -1))
    target = data.draw(hnp.arrays(np.uint8, shape, elements=labels))
    prediction = data.draw(hnp.arrays(np.uint8, shape, elements=st.integers(0, classes - 1)))
    prediction = np.where(target == 255, data.draw(st.integers(0, 255)), prediction).astype(np.uint8)
    expected = brute_force(prediction, target, classes)
    if kind.startswith("tensor"):
        both = [torch.from_numpy(array.copy()) for array in (prediction, target)]
        both = [tensor.long() for tensor in both] if kind == "tensor64" else both
    else:
        both = [array.astype(kind) for array in (prediction, target)]
    np.testing.assert_array_equal(Confusion(classes).update(*both).matrix, expected)


@pytest.mark.parametrize("ignore", [0, 1, 254, -100, 300])
@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
def test_any_ignore_index(ignore, dtype):
    rng = np.random.default_rng(0)
    target = rng.integers(0, 3, (4, 9)).astype(np.int64)
    target[0] = ignore
    if dtype == np.uint8 and not 0 <= ignore <= 255:
        target[0] = 2
    prediction = rng.integers(0, 3, (4, 9)).astype(dtype)
    confusion = Confusion(3, ignore_index=ignore).update(prediction, target.astype(dtype))
    np.testing.assert_array_equal(confusion.matrix, brute_force(prediction, target, 3, ignore))


@pytest.mark.parametrize("view", [lambda a: a[:, ::-1], lambda a: a.T, lambda a: a[1:, 1:], lambda a: a[::2]])
def test_views_of_arrays_and_read_only_arrays(view):
    rng = np.random.default_rng(0)
    prediction, target = rng.integers(0, 4, (2, 11, 13), dtype=np.uint8)
    prediction.setflags(write=False)
    target.setflags(write=False)
    expected = brute_force(view(prediction), view(target), 4)
    np.testing.assert_array_equal(Confusion(4).update(view(prediction), view(target)).matrix, expected)
    tensors = [torch.tensor(array) for array in (prediction, target)]
    np.testing.assert_array_equal(
        Confusion(4).update(tensors[0].T, tensors[1].T).matrix, brute_force(prediction, target, 4)
    )


def test_does_not_change_its_input():
    prediction = torch.randint(0, 4, (8, 8), dtype=torch.uint8)
    target = torch.randint(0, 4, (8, 8), dtype=torch.uint8)
    target[0] = 255
    before = prediction.clone(), target.clone()
    Confusion(4).update(prediction, target)
    assert torch.equal(prediction, before[0])
    assert torch.equal(target, before[1])


def test_updates_and_merges_add_up():
    rng = np.random.default_rng(0)
    prediction, target = rng.integers(0, 5, (2, 6, 8, 9), dtype=np.uint8)
    whole = Confusion(5).update(prediction, target)
    parts = Confusion(5)
    for found, true in zip(prediction, target, strict=True):
        parts.merge(Confusion(5).update(found, true))
    np.testing.assert_array_equal(parts.matrix, whole.matrix)
    assert parts.matrix.dtype == np.int64


@settings(max_examples=50)
@given(seed=st.integers(0, 10_000), classes=st.integers(2, 12), pixels=st.integers(1, 60))
def test_scores_equal_scikit_learns(seed, classes, pixels):
    rng = np.random.default_rng(seed)
    prediction, target = rng.integers(0, classes, (2, pixels), dtype=np.uint8)
    scores = Confusion(classes).update(prediction, target).scores()
    labels = list(range(classes))
    for ours, score in (
        ("iou", sklearn.metrics.jaccard_score),
        ("precision", sklearn.metrics.precision_score),
        ("recall", sklearn.metrics.recall_score),
        ("f1", sklearn.metrics.f1_score),
    ):
        found = getattr(scores, ours)
        expected = score(target, prediction, labels=labels, average=None, zero_division=0)
        np.testing.assert_allclose(found[~np.isnan(found)], expected[~np.isnan(found)], err_msg=ours)
        assert not expected[np.isnan(found)].any()
    in_truth, found = np.isin(labels, target), np.isin(labels, prediction)
    np.testing.assert_array_equal(np.isnan(scores.iou), ~(in_truth | found))
    np.testing.assert_array_equal(np.isnan(scores.f1), ~(in_truth | found))
    np.testing.assert_array_equal(np.isnan(scores.recall), ~in_truth)
    np.testing.assert_array_equal(np.isnan(scores.precision), ~found)
    assert scores.accuracy == pytest.approx(sklearn.metrics.accuracy_score(target, prediction))
    weighted = sklearn.metrics.jaccard_score(target, prediction, labels=labels, average="weighted", zero_division=0)
    assert scores.frequency_weighted_iou == pytest.approx(weighted)
    if len(np.unique([prediction, target])) > 1:
        assert scores.kappa == pytest.approx(sklearn.metrics.cohen_kappa_score(target, prediction, labels=labels))


def test_nothing_counted_gives_nan_and_none():
    scores = Confusion(3).update(np.zeros((4, 4), np.uint8), np.full((4, 4), 255, np.uint8)).scores()
    assert np.isnan(scores.iou).all()
    assert scores.support.tolist() == [0, 0, 0]
    assert all(np.isnan(value).all() for name, value in scores.to_lists().items() if name != "support")


def test_scores_on_disk_are_json():
    scores = scores_of(np.array([[3, 1, 0], [0, 2, 0], [0, 0, 0]]))
    content = json.loads(json.dumps(ScoresRecord(**scores.to_lists()).to_json(), allow_nan=False))
    assert content["iou"] == [0.75, pytest.approx(2 / 3), None]
    assert content["mean_iou"] == pytest.approx((0.75 + 2 / 3) / 2)


def test_a_stack_of_matrices_is_scored_one_by_one():
    rng = np.random.default_rng(0)
    matrices = rng.integers(0, 50, (7, 4, 4)) * rng.integers(0, 2, (7, 4, 1))
    expected = [scores_of(matrix).mean_iou for matrix in matrices]
    np.testing.assert_allclose(mean_iou_of_marginals(marginals(matrices)), expected)


@pytest.mark.parametrize(
    ("prediction", "target", "message"),
    [
        (np.zeros((2, 3), np.uint8), np.zeros((3, 2), np.uint8), "differ"),
        (np.zeros(4, np.float32), np.zeros(4, np.uint8), "argmax|integers"),
        (torch.zeros(4), torch.zeros(4), "argmax"),
        (np.full(4, 3, np.uint8), np.zeros(4, np.uint8), "prediction holds the class index 3"),
        (np.full(4, -1), np.zeros(4, np.uint8), "prediction holds the class index -1"),
        (np.zeros(4, np.uint8), np.full(4, 3, np.uint8), "target holds the class index 3"),
        (np.zeros(4, np.uint8), np.full(4, 254, np.uint8), "target holds the class index 254"),
        (np.zeros(4, np.uint8), np.full(4, -1), "target holds the class index -1"),
        (np.zeros(4, np.int64), np.full(4, 256), "target holds the class index 256"),
    ],
)
def test_refuses_what_it_cannot_count(prediction, target, message):
    confusion = Confusion(3)
    with pytest.raises(DataError, match=message):
        confusion.update(prediction, target)
    assert not confusion.matrix.any()


def test_refuses_other_classes_and_none():
    with pytest.raises(DataError, match="3 and 4 classes"):
        Confusion(3).merge(Confusion(4))
    with pytest.raises(DataError, match="at least one class"):
        Confusion(0)
