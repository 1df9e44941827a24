"""Several teachers as one, and one asked several times."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from segshrink.classes import ClassMap
from segshrink.errors import ConfigError
from segshrink.models import build_model
from segshrink.teachers import Augmented, ClassMapping, Ensemble, Teacher, TorchTeacher

CLASSES = ClassMap.build([("Land", None, None), ("Water", None, None), ("Road", None, None)])


class Says(nn.Module):
    """Answers every pixel with the same probabilities."""

    def __init__(self, *probabilities: float) -> None:
        super().__init__()
        self.register_buffer("answer", torch.tensor(probabilities).log().view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return self.answer.expand(len(images), -1, *images.shape[2:])


class Convolves(nn.Module):
    """Answers by a convolution that sees left and right, top and bottom differently."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        return self.convolution(images.float() / 64 - 2)


class ByName(Teacher):
    """Answers about whole scenes by their names."""

    whole_scenes = True

    @property
    def identity(self) -> str:
        return "by name"

    def logits(self, images: Tensor) -> Tensor:
        raise AssertionError("asked about a crop")

    def scene_logits(self, image: NDArray[Any], name: str) -> NDArray[np.float32]:
        logits = np.zeros((3, *image.shape[:2]), np.float32)
        logits[int(name)] = 100
        return logits


def says(*probabilities: float, known: ClassMapping | None = None) -> TorchTeacher:
    return TorchTeacher(Says(*probabilities), CLASSES, known)


def probabilities(teacher: Teacher) -> list[float]:
    logits = teacher.logits(torch.zeros(2, 3, 4, 5, dtype=torch.uint8))
    assert logits.shape == (2, 3, 4, 5)
    assert torch.allclose(logits.exp().sum(1), torch.ones(1))  # they are log-probabilities
    return logits[1, :, 3, 2].softmax(0).tolist()


def test_probabilities_are_averaged_with_weights() -> None:
    one, other = says(0.6, 0.3, 0.1), says(0.2, 0.2, 0.6)
    assert probabilities(Ensemble([one, other], [1, 3])) == pytest.approx([0.3, 0.225, 0.475])
    # Not logits: the average of those would be the normalized geometric mean.
    sure = says(0.98, 0.01, 0.01)
    assert probabilities(Ensemble([one, sure], [1, 1])) == pytest.approx([0.79, 0.155, 0.055])


def test_confidence_weighs_each_teacher_at_each_pixel() -> None:
    sure, unsure = says(0.9, 0.05, 0.05), says(0.3, 0.4, 0.3)
    expected = (2 * 0.9 * np.array([0.9, 0.05, 0.05]) + 0.4 * np.array([0.3, 0.4, 0.3])) / (2 * 0.9 + 0.4)
    assert probabilities(Ensemble([sure, unsure], [2, 1], combine="confidence")) == pytest.approx(expected.tolist())


def test_a_class_is_averaged_over_those_who_know_it() -> None:
    whole = says(0.5, 0.3, 0.2)
    # Knows land and road only, in its own order.
    part = says(0.1, 0.9, known=ClassMapping(((1,), (), (0,))))
    both = Ensemble([whole, part], [1, 1])
    average = np.array([(0.5 + 0.9) / 2, 0.3, (0.2 + 0.1) / 2])
    assert both.known == (0, 1, 2)
    assert probabilities(both) == pytest.approx((average / average.sum()).tolist())
    # What nobody knows is excluded.
    none = Ensemble([part, says(0.8, 0.2, known=ClassMapping(((0,), (), (1,))))], [1, 1])
    assert none.known == (0, 2)
    assert probabilities(none) == pytest.approx([0.85, 0, 0.15])
    assert none.logits(torch.zeros(1, 3, 2, 2))[0, 1, 0, 0] == -torch.inf


def test_who_knows_one_class_says_how_likely_it_is_against_all_else() -> None:
    one = ClassMapping(((1,), (), ()))
    unlikely, likely = says(0.9, 0.1, known=one), says(0.2, 0.8, known=one)
    sure = says(0.1, 0.1, 0.8)
    average = np.array([0.1, 0.1, 0.8])
    assert probabilities(Ensemble([sure, unlikely], [1, 1])) == pytest.approx(average.tolist())
    average[0] = (0.8 * 0.1 + 0.9 * 0.1) / (0.8 + 0.9)
    weighed = Ensemble([sure, unlikely], [1, 1], combine="confidence")
    assert probabilities(weighed) == pytest.approx(average.tolist())
    undecided = says(0.5, 0.5, known=one)
    assert probabilities(Ensemble([sure, undecided], [1, 9])) == pytest.approx([0.1, 0.1, 0.8])

    def odds(teacher: Teacher) -> float:
        logits = teacher.logits(torch.zeros(1, 3, 4, 5))
        assert (logits[:, 1:] == -torch.inf).all()
        return float(logits[0, 0, 3, 2].sigmoid())

    alone = Ensemble([unlikely, likely], [1, 2])
    assert odds(alone) == pytest.approx((0.1 + 2 * 0.8) / 3)
    assert odds(Ensemble([undecided, likely], [1, 1])) == pytest.approx(0.8)
    assert odds(Ensemble([undecided], [1])) == 0.5
    assert odds(Augmented(unlikely, flips=True, scales=[1.0, 2.0])) == pytest.approx(0.1)


def test_who_says_nothing_about_a_pixel_leaves_it_to_the_others() -> None:
    silent, sure = says(1 / 3, 1 / 3, 1 / 3), says(0.7, 0.2, 0.1)
    assert probabilities(Ensemble([silent, sure], [5.0, 1.0])) == pytest.approx([0.7, 0.2, 0.1])
    nobody = Ensemble([silent, silent], [1.0, 2.0]).logits(torch.zeros(1, 3, 2, 2))
    assert (nobody.amax(1) == nobody.amin(1)).all()


def test_scenes_are_answered_by_each_in_its_own_way() -> None:
    both = Ensemble([says(0.2, 0.2, 0.6), ByName(CLASSES)], [1, 1])
    assert both.whole_scenes
    answer = torch.from_numpy(both.scene_logits(np.zeros((4, 5, 3), np.uint8), "1")).exp()
    assert answer[:, 2, 2].tolist() == pytest.approx([0.1, 0.6, 0.3])


def test_identity_tells_members_weights_and_views_apart() -> None:
    one, other = says(0.6, 0.3, 0.1), says(0.2, 0.2, 0.6)
    made = [
        Ensemble([one, other], [1, 1]),
        Ensemble([other, one], [1, 1]),
        Ensemble([one, other], [1, 2]),
        Ensemble([one, other], [1, 1], combine="confidence"),
        Augmented(one),
        Augmented(one, flips=True),
        Augmented(one, flips="left-right"),
        Augmented(one, scales=[1.0, 2.0]),
    ]
    assert len({teacher.identity for teacher in made}) == len(made)
    assert made[0].identity == Ensemble([says(0.6, 0.3, 0.1), says(0.2, 0.2, 0.6)], [1.0, 1.0]).identity
    assert made[0].name == "teacher + teacher"


def test_wrong_ensembles_are_refused() -> None:
    one = says(0.6, 0.3, 0.1)
    for weights in ([1], [1, 0], [1, 1, 1]):
        with pytest.raises(ConfigError, match="one weight above 0"):
            Ensemble([one, one], weights)
    with pytest.raises(ConfigError, match="same classes"):
        Ensemble([one, TorchTeacher(Says(0.5, 0.5), ClassMap.build([("a", None, None), ("b", None, None)]))], [1, 1])


def test_mirror_images_are_averaged() -> None:
    torch.manual_seed(0)
    teacher = TorchTeacher(Convolves(), CLASSES)
    image = torch.randint(0, 256, (1, 3, 12, 17), dtype=torch.uint8)
    views = [(), (3,), (2,), (2, 3)]
    expected = torch.stack([teacher.logits(image.flip(view)).softmax(1).flip(view) for view in views])
    found = Augmented(teacher, flips=True)
    assert torch.allclose(found.logits(image).exp(), expected.mean(0), atol=1e-6)
    assert torch.allclose(Augmented(teacher, flips="left-right").logits(image).exp(), expected[:2].mean(0), atol=1e-6)
    # So a mirrored image gets the mirrored answer, in scenes as in crops.
    assert torch.allclose(found.logits(image.flip(3)), found.logits(image).flip(3), atol=1e-5)
    scene = image[0].permute(1, 2, 0).numpy()
    whole = Augmented(TorchTeacher(Convolves(), CLASSES), flips=True)
    assert np.allclose(whole.scene_logits(scene[::-1], "x"), whole.scene_logits(scene, "x")[:, ::-1], atol=0.05)


def test_zooms_are_averaged_and_unknown_classes_stay_unknown() -> None:
    torch.manual_seed(0)
    teacher = TorchTeacher(Convolves(), CLASSES, ClassMapping(((0,), (), (1,))))
    image = torch.randint(0, 256, (2, 3, 10, 14), dtype=torch.uint8)
    larger = nn.functional.interpolate(image.float(), size=(20, 28), mode="bilinear")
    answer = nn.functional.interpolate(teacher.logits(larger).softmax(1), size=(10, 14), mode="bilinear")
    expected = (teacher.logits(image).softmax(1) + answer) / 2
    found = Augmented(teacher, scales=[1.0, 2.0]).logits(image)
    assert torch.allclose(found.exp(), expected, atol=1e-6)
    assert (found[:, 1] == -torch.inf).all()
    assert Augmented(teacher, scales=[0.01]).logits(image).isfinite()[:, [0, 2]].all()


def test_parameters_are_counted_where_they_are_known() -> None:
    network = build_model("unet", CLASSES, options={"width": 4, "depth": 2})
    teacher = TorchTeacher(network)
    count = sum(parameter.numel() for parameter in network.parameters())
    assert Ensemble([teacher, Augmented(teacher, flips=True)], [1, 1]).parameters == 2 * count
    assert Ensemble([teacher, ByName(CLASSES)], [1, 1]).parameters is None
