"""A trained network goes on with another list of classes: what it answered stays, by class."""

from __future__ import annotations

import pytest
import torch

from segshrink.classes import ClassMap
from segshrink.models import build_model
from segshrink.models.class_change import with_classes

OLD = ClassMap.build(["road", "forest", "car", "truck"])
IMAGES = torch.randint(0, 255, (1, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module", params=["unet", "mobile", "smp:Unet/resnet18", "torchvision:lraspp_mobilenet_v3_large"])
def trained(request: pytest.FixtureRequest):
    torch.manual_seed(1)
    options = {"unet": {"width": 4, "depth": 2}}.get(request.param)
    return build_model(request.param, OLD, options=options).eval()


def probabilities(model) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(IMAGES).softmax(dim=1)[0]


def test_reordered_classes_answer_the_same(trained) -> None:
    """As many classes in another order: the shapes are equal, the rows are not."""
    model = with_classes(trained, ClassMap.build(["truck", "road", "car", "forest"]), [[3], [0], [2], [1]])
    torch.testing.assert_close(probabilities(model), probabilities(trained)[[3, 0, 2, 1]])
    assert model.description.classes.names == ("truck", "road", "car", "forest")


def test_a_split_class_shares_its_probability(trained) -> None:
    names = ["road", "conifer", "broadleaf", "car", "truck"]
    split = probabilities(with_classes(trained, ClassMap.build(names), [[0], [1], [1], [2], [3]]))
    before = probabilities(trained)
    torch.testing.assert_close(split[[0, 3, 4]], before[[0, 2, 3]])
    torch.testing.assert_close(split[1], before[1] / 2)
    torch.testing.assert_close(split[2], before[1] / 2)


def test_merged_classes_start_at_their_mean_twice(trained) -> None:
    """The merged logit is the mean plus log 2, the logarithm of the sum where both are equal."""
    merged = with_classes(trained, ClassMap.build(["road", "forest", "vehicle"]), [[0], [1], [2, 3]])
    with torch.no_grad():
        old, new = trained.eval()(IMAGES)[0], merged.eval()(IMAGES)[0]
    torch.testing.assert_close(new[:2], old[:2])
    torch.testing.assert_close(new[2], old[2:].mean(dim=0) + torch.tensor(2.0).log())


def test_a_new_class_leaves_the_others_as_they_were(trained) -> None:
    added = with_classes(trained, ClassMap.build([*OLD.names, "water"]), [[0], [1], [2], [3], []])
    with torch.no_grad():
        torch.testing.assert_close(added.eval()(IMAGES)[0, :4], trained.eval()(IMAGES)[0])


def test_a_sigmoid_becomes_two_channels_and_more() -> None:
    torch.manual_seed(0)
    two = ClassMap.build(["ground", "roof"])
    model = build_model("unet", two, options={"width": 4, "depth": 2}, sigmoid=True).eval()
    three = with_classes(model, ClassMap.build(["ground", "roof", "road"]), [[0], [1], []])
    with torch.no_grad():
        torch.testing.assert_close(three.eval()(IMAGES)[0, :2], model(IMAGES)[0])
    assert not three.description.sigmoid
