"""A bank's members by what they have not seen."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from segshrink.config import Teaching
from segshrink.errors import ModelError
from segshrink.run_records import BankRecord
from segshrink.teachers import Augmented, Bank, TeacherCache, TorchTeacher
from segshrink.training.terms import check_teacher

from .test_ensemble import CLASSES, Says

SAID = ((0.8, 0.1, 0.1), (0.2, 0.6, 0.2), (0.2, 0.2, 0.6))
RECORD = BankRecord.model_validate(
    {"images": ["a", "b", "c"], "members": [{"unseen": ["a"]}, {"unseen": ["a", "b"]}, {"unseen": []}]}
)
IMAGE = np.zeros((8, 8, 3), np.uint8)


def bank(*, out_of_fold: bool) -> Bank:
    return Bank([TorchTeacher(Says(*said), CLASSES) for said in SAID], RECORD, out_of_fold=out_of_fold)


def mean(*members: int) -> np.ndarray:
    return np.mean([SAID[place] for place in members], axis=0)


@pytest.mark.parametrize(
    ("scene", "members"), [("a", (0, 1)), ("b", (1,)), ("c", (0, 1, 2)), ("of another split", (0, 1, 2))]
)
@pytest.mark.parametrize("flips", [False, True])
def test_out_of_fold_only_members_that_have_not_seen_a_training_image_answer(scene, members, flips):
    teacher = Augmented(bank(out_of_fold=True), flips=True) if flips else bank(out_of_fold=True)
    probabilities = torch.from_numpy(teacher.scene_logits(IMAGE, scene)).softmax(0)
    np.testing.assert_allclose(probabilities[:, 3, 3], mean(*members), atol=1e-5)


def test_otherwise_all_answer_and_the_answer_is_the_same_for_crops():
    teacher = bank(out_of_fold=False)
    for logits in (teacher.scene_logits(IMAGE, "b"), teacher.logits(torch.zeros(1, 3, 8, 8))[0].numpy()):
        np.testing.assert_allclose(torch.from_numpy(logits).softmax(0)[:, 3, 3], mean(0, 1, 2), atol=1e-5)


def test_out_of_fold_answers_need_a_cache_and_have_an_identity_of_their_own():
    assert bank(out_of_fold=True).identity != bank(out_of_fold=False).identity
    assert bank(out_of_fold=False).identity == bank(out_of_fold=False).identity
    with pytest.raises(ValueError, match="teacher_cache"):
        check_teacher(Augmented(bank(out_of_fold=True), flips=True), ())
    assert Teaching().out_of_fold is False


def test_a_cache_answers_about_its_scenes_by_name(tmp_path):
    class Store:
        samples = (type("Sample", (), {"name": "b", "window": None}),)
        folder = tmp_path
        resize = None

        def __len__(self):
            return 1

        def image(self, index):
            return IMAGE

        original = image

        def shape(self, index):
            return (8, 8)

        def image_key(self, index):
            return "key"

    cache = TeacherCache(bank(out_of_fold=True), [Store()])
    probabilities = torch.from_numpy(cache.scene_logits(IMAGE, "b")).softmax(0)
    np.testing.assert_allclose(probabilities[:, 3, 3], mean(1), atol=0.01)
    with pytest.raises(ModelError, match="other scenes than 'z'"):
        cache.scene_logits(IMAGE, "z")
