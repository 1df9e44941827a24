"""Networks of one output channel: two logits (0, z) to everybody else."""

from __future__ import annotations

import json

import pytest
import torch

from segshrink.classes import ClassMap
from segshrink.errors import ModelError
from segshrink.losses import binary_cross_entropy, binary_kl, cross_entropy, pixel_kl
from segshrink.models import build_model, load_model

NETWORKS = [
    ("unet", {"width": 4, "depth": 2}),
    ("separable-unet", {"width": 0.125}),
    ("mobile", {"width": 0.25, "blocks": 7}),
    ("smp:Unet/resnet18", {}),
    ("torchvision:lraspp_mobilenet_v3_large", {}),
]


@pytest.fixture
def two_classes() -> ClassMap:
    return ClassMap.build([("Ground", None, None), ("Roof", None, None)])


@pytest.fixture
def images():
    return torch.randint(0, 256, (2, 3, 35, 50), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


def channel(model, images):
    """The one channel that isn't 0 for sure."""
    with torch.no_grad():
        return model(images)[:, 1:]


@pytest.mark.parametrize(("identity", "options"), NETWORKS)
def test_logits_are_zero_and_what_the_network_gives(two_classes, images, identity, options):
    model = build_model(identity, two_classes, options=options, sigmoid=True).eval()
    given = []
    model.network.register_forward_hook(lambda module, inputs, output: given.append(output))
    with torch.no_grad():
        logits = model(images)
    assert logits.shape == (2, 2, 35, 50)
    assert given[0].shape[1] == 1
    assert not logits[:, 0].any()
    if given[0].shape[2] >= 35:
        assert torch.equal(logits[:, 1:], given[0][:, :, :35, :50])
    torch.testing.assert_close(logits.softmax(1)[:, 1], torch.sigmoid(logits[:, 1]))
    assert model.num_classes == 2


def test_cross_entropy_is_the_binary_one_to_the_weights_too(two_classes, images):
    model = build_model("unet", two_classes, options={"width": 4, "depth": 2}, sigmoid=True).eval()
    labels = torch.randint(0, 2, (2, 35, 50), generator=torch.Generator().manual_seed(2))
    labels[0, :9] = 255
    weights = list(model.parameters())
    one = binary_cross_entropy(model(images)[:, 1:], labels)
    two = cross_entropy(model(images), labels)
    assert one.item() == pytest.approx(two.item(), rel=1e-6)
    for found, expected in zip(torch.autograd.grad(two, weights), torch.autograd.grad(one, weights), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_pixel_kl_is_the_binary_one(two_classes, images):
    student, teacher = (
        build_model("unet", two_classes, options={"width": width, "depth": 2}, sigmoid=True).eval() for width in (4, 8)
    )
    own, other = channel(student, images), channel(teacher, images)
    expected = binary_kl(own, other, temperature=3.0).item()
    with torch.no_grad():
        assert pixel_kl(student(images), teacher(images), temperature=3.0).item() == pytest.approx(expected, rel=1e-4)
    assert expected > 1e-4


@pytest.mark.parametrize(("identity", "options"), NETWORKS[:2])
def test_a_folder_keeps_it(two_classes, images, identity, options, tmp_path):
    model = build_model(identity, two_classes, options=options, sigmoid=True).eval()
    model.save(tmp_path / "model")
    assert json.loads((tmp_path / "model/config.json").read_text())["sigmoid"] is True
    loaded = load_model(tmp_path / "model", classes=two_classes).eval()
    assert loaded.description == model.description
    with torch.no_grad():
        assert torch.equal(loaded(images), model(images))


def test_folders_from_before_have_one_channel_a_class(two_classes, images, tmp_path):
    model = build_model("unet", two_classes, options={"width": 4, "depth": 2}).eval()
    model.save(tmp_path / "model")
    config = tmp_path / "model/config.json"
    content = json.loads(config.read_text())
    assert content.pop("sigmoid") is False
    config.write_text(json.dumps(content))
    loaded = load_model(tmp_path / "model").eval()
    assert not loaded.description.sigmoid
    with torch.no_grad():
        assert torch.equal(loaded(images), model(images))


def test_a_folder_that_says_neither_yes_nor_no_is_damaged(two_classes, tmp_path):
    build_model("unet", two_classes, options={"width": 4, "depth": 2}).save(tmp_path / "model")
    config = tmp_path / "model/config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"sigmoid": "false"}))
    with pytest.raises(ModelError, match="sigmoid must be true or false, found 'false'"):
        load_model(tmp_path / "model")


def test_other_numbers_of_classes_are_refused(classes):
    with pytest.raises(ModelError, match=r"exactly two classes.*found 6: Building, Land"):
        build_model("unet", classes, sigmoid=True)
