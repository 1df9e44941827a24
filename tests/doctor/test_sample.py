from __future__ import annotations

from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from segshrink.config import Recipe
from segshrink.data import open_dataset
from segshrink.doctor.sample import (
    Sample,
    best_order,
    confusions,
    draw_sample,
    gain,
    level,
    majority_iou,
    mean_iou,
    predictions,
    reordered,
)
from segshrink.evaluation import Confusion

from .conftest import write_data


def matrices(seed: int, *, crops: int = 5, classes: int = 4) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 60, (crops, classes, classes))


@pytest.mark.parametrize("seed", range(6))
def test_the_best_order_is_that_of_trying_all(seed: int) -> None:
    counts = matrices(seed)
    scores = {order: mean_iou(counts[:, :, list(order)]) for order in permutations(range(4))}
    assert scores[best_order(counts)] == pytest.approx(max(scores.values()))


def test_a_class_that_changes_places_with_an_absent_one_stays() -> None:
    counts = np.zeros((1, 4, 4), int)
    counts[0] = [[50, 0, 0, 0], [0, 5, 40, 0], [0, 0, 0, 0], [0, 0, 0, 60]]  # class 1 is often taken for absent 2
    assert best_order(counts) == (0, 1, 2, 3)
    counts[0] = [[0, 50, 0, 0], [0, 0, 40, 0], [0, 0, 0, 0], [0, 0, 0, 60]]  # three classes in turn, one unseen
    assert best_order(counts) == (1, 2, 0, 3)


def test_all_classes_move_where_few_are_seen_and_all_of_these_do() -> None:
    counts = np.zeros((1, 8, 8), int)
    for index in (1, 4, 6):
        counts[0, index, index - 1] = 50
    assert best_order(counts) == (7, 0, 1, 2, 3, 4, 5, 6)
    counts[:] = 0
    for index, answer in ((1, 5), (4, 2), (6, 3), (7, 7)):
        counts[0, index, answer] = 50
    order = best_order(counts)
    assert [order[index] for index in (1, 4, 6, 7)] == [5, 2, 3, 7]
    assert sorted(order) == list(range(8))


def test_an_order_is_judged_on_crops_that_it_was_not_found_on() -> None:
    swapped = np.zeros((4, 2, 2), int)
    swapped[:, 0, 1] = swapped[:, 1, 0] = 10
    assert mean_iou(reordered(swapped)) == 1
    contrary = swapped.copy()
    contrary[::2] = contrary[::2, :, ::-1]  # right in one half, exchanged in the other
    assert mean_iou(contrary) == pytest.approx(1 / 3)
    assert mean_iou(reordered(contrary)) == 0


def test_scores_agree_with_the_confusion_matrix_where_all_classes_are_present() -> None:
    logits = torch.randn(3, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    targets = torch.randint(0, 4, (3, 6, 6), generator=torch.Generator().manual_seed(1))
    targets[:, 0] = 255
    counts = confusions(predictions(logits), targets, 4)
    whole = Confusion(4).update(logits.argmax(1), targets)
    assert np.array_equal(counts.sum(0), whole.matrix)
    assert mean_iou(counts) == pytest.approx(whole.scores().mean_iou)
    constant = Confusion(4).update(torch.full_like(targets, int(whole.matrix.sum(1).argmax())), targets)
    assert majority_iou(counts) == pytest.approx(float(np.nansum(constant.scores().iou)) / 4)


def test_a_pixel_of_an_absent_class_does_not_cost_a_class() -> None:
    counts = np.array([[[100, 0, 1], [0, 100, 0], [0, 0, 0]]])
    assert mean_iou(counts) == pytest.approx((100 / 101 + 1) / 2)
    assert np.isnan(mean_iou(np.zeros((2, 3, 3), int)))


def test_a_gain_is_sure_only_when_most_crops_gain() -> None:
    before = np.tile(np.array([[60, 40], [40, 60]]), (12, 1, 1))
    better = np.tile(np.array([[80, 20], [20, 80]]), (12, 1, 1))
    gained, sure = gain(before, better)
    assert gained == pytest.approx(sure) == pytest.approx(80 / 120 - 60 / 140)
    assert gain(better, before)[0] == pytest.approx(-gained)
    lucky = before.copy()
    lucky[0] = [[1000, 0], [0, 1000]]
    gained, sure = gain(before, lucky)
    assert gained > 0.2
    assert sure == 0


def test_a_level_is_the_share_of_the_way_to_perfect() -> None:
    truth = np.array([60, 40])
    majority, perfect = np.zeros((1, 2, 2), int), np.diag(truth)[None]
    majority[0, :, 0] = truth
    assert majority_iou(perfect) == pytest.approx(mean_iou(majority)) == pytest.approx(0.3)
    assert level(majority) == pytest.approx(0)
    assert level(perfect) == pytest.approx(1)
    assert level(np.array([[[50, 10], [10, 30]]])) == pytest.approx(((5 / 7 + 3 / 5) / 2 - 0.3) / 0.7)


def test_the_sample_is_a_function_of_its_seed(recipe: Recipe, sample: Sample) -> None:
    dataset = open_dataset(recipe.data)
    again, other = (draw_sample(dataset, images=12, size=sample.size, seed=seed) for seed in (0, 1))
    assert again.plans == sample.plans
    assert torch.equal(again.images, sample.images)
    assert other.plans != sample.plans
    small = draw_sample(dataset, images=4, size=512, shrink=True)
    assert small.size == 128
    assert not small.has_surroundings


def test_the_sample_shows_every_class_and_what_lies_around(sample: Sample) -> None:
    assert set(sample.targets.unique().tolist()) - {255} == {0, 1, 2, 3, 4}
    image = torch.from_numpy(np.array(sample.store.image(sample.plans[0].sample))).permute(2, 0, 1)
    plan = sample.plans[0]
    cut = image[:, plan.row : plan.row + sample.size, plan.col : plan.col + sample.size]
    assert torch.equal(sample.images[0], cut)
    window, (rows, cols) = sample.surroundings(0)
    assert torch.equal(window[0], image)  # a scene smaller than a tile is seen whole
    assert torch.equal(window[0, :, rows, cols], cut)


def test_pixels_without_a_value_lie_outside(tmp_path: Path) -> None:
    recipe = write_data(tmp_path)
    for path in tmp_path.glob("val/images/*.png"):
        picture = Image.open(path).convert("RGBA")
        picture.paste((0, 0, 0, 0), (0, 0, 64, 128))
        picture.save(path)
    sample = draw_sample(open_dataset(recipe.data), images=8, size=128)
    assert not sample.inside[:, :, :64].any()
    assert sample.inside[:, :, 64:].all()
