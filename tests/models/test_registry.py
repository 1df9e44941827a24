"""Ids, options and borrowed networks."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest
import segmentation_models_pytorch
import torch
import torchvision

from segshrink.config.recipe import OWN_NETWORKS
from segshrink.errors import ModelError
from segshrink.model_description import Normalization
from segshrink.models import build_model, count_parameters, model_ids


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*arguments: object, **named: object) -> None:
        raise AssertionError("a network connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.mark.parametrize(
    ("identity", "words"),
    [
        ("mobil", "did you mean 'mobile'"),
        ("unnet", "did you mean 'unet'"),
        ("smp:Unett/resnet34", "did you mean 'Unet'"),
        ("smp:Unet/resnet43", "did you mean 'resnet"),
        ("smp:Unet", "names no encoder"),
        ("smp:Unet/tu-resnet18x", "did you mean 'resnet"),
        ("torchvision:fcn_resnet5", "did you mean 'fcn_resnet50'"),
        ("keras:unet", "unknown model"),
    ],
)
def test_unknown_ids_name_the_nearest(classes, identity, words):
    with pytest.raises(ModelError, match=words):
        build_model(identity, classes)


@pytest.mark.parametrize(
    ("identity", "options", "words"),
    [
        ("unet", {"widht": 8}, "did you mean 'width'"),
        ("unet", {"width": "wide"}, "must be a whole number"),
        ("unet", {"width": 7.5}, "must be a whole number"),
        ("unet", {"batch_norm": 1}, "must be true or false"),
        ("mobile", {"width": True}, "must be a number"),
        ("mobile", {"decoder_channels": 16}, "must be a list of whole numbers"),
        ("mobile", {"decoder_channels": [64, 32.5, 16, 8]}, "must be a list of whole numbers"),
        ("mobile", {"decoder_channels": [64, 32]}, "must be 3 or 4 numbers above 0"),
        ("mobile", {"decoder_channels": [64, 32, 16, 0]}, "must be 3 or 4 numbers above 0"),
        ("smp:Unet/resnet18", {"decoder_chanels": [1]}, "did you mean 'decoder_channels'"),
        ("smp:Unet/resnet18", {"decoder_channels": [8]}, "can't be built"),
        ("smp:Unet/resnet18", {"weights": "cifar"}, "can't be built"),
        ("torchvision:lraspp_mobilenet_v3_large", {"width": 2}, "no option 'width'"),
        ("torchvision:lraspp_mobilenet_v3_large", {"weights": "coco"}, "must be 'imagenet'"),
    ],
)
def test_wrong_options_are_one_sentence(classes, identity, options, words):
    with pytest.raises(ModelError, match=words) as caught:
        build_model(identity, classes, options=options)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize(
    "identity", ["smp:FPN/resnet18", "smp:unet/tu-mobilenetv3_small_050", "torchvision:lraspp_mobilenet_v3_large"]
)
def test_nothing_is_downloaded_unasked(classes, identity):
    assert build_model(identity, classes).description.id == identity


def test_borrowed_networks_are_those_of_the_libraries(classes):
    unet = segmentation_models_pytorch.Unet("mobilenet_v2", encoder_weights=None, classes=6)
    assert count_parameters(build_model("smp:Unet/mobilenet_v2", classes)) == count_parameters(unet)
    lraspp = torchvision.models.get_model(
        "lraspp_mobilenet_v3_large", weights=None, weights_backbone=None, num_classes=6
    )
    found = build_model("torchvision:lraspp_mobilenet_v3_large", classes)
    assert count_parameters(found) == count_parameters(lraspp)


@pytest.mark.parametrize(
    ("identity", "options", "stride"),
    [
        ("mobile", {}, 16),
        ("unet", {"depth": 4}, 8),
        ("separable-unet", {}, 8),
        ("smp:Unet/resnet18", {}, 32),
        ("smp:Unet/resnet18", {"encoder_depth": 3, "decoder_channels": [32, 16, 8]}, 8),
        ("smp:DeepLabV3Plus/mobilenet_v2", {}, 16),
        ("torchvision:lraspp_mobilenet_v3_large", {}, 16),
    ],
)
def test_stride_is_read_from_the_network(classes, identity, options, stride):
    assert build_model(identity, classes, options=options).description.stride == stride


@pytest.mark.parametrize(
    "identity", ["mobile", "unet", "separable-unet", "smp:Unet/mobilenet_v2", "torchvision:lraspp_mobilenet_v3_large"]
)
@pytest.mark.parametrize("bands", [1, 5])
def test_other_numbers_of_bands(classes, identity, bands):
    model = build_model(identity, classes, bands=bands).eval()
    assert model.description.normalization.bands == bands
    with torch.no_grad():
        first = model(torch.zeros(1, bands, 32, 32))
        images = torch.zeros(1, bands, 32, 32)
        images[:, -1] = 200
        second = model(images)
    # The last band is looked at.
    assert not torch.equal(first, second)


@pytest.mark.parametrize("identity", ["smp:PAN/mobilenet_v2", "smp:DPT/tu-vit_tiny_patch16_224"])
def test_networks_with_limits_of_their_own_take_any_size(classes, identity):
    model = build_model(identity, classes).eval()
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 3, 70)).shape == (1, 6, 3, 70)


def test_ids_are_listed():
    ids = model_ids()
    assert {"mobile", "unet", "separable-unet", "smp:Unet/mobilenet_v2", "torchvision:fcn_resnet50"} <= set(ids)
    assert {identity for identity in ids if ":" not in identity} == OWN_NETWORKS


def test_named_normalizations():
    assert Normalization.named("half", 2) == Normalization((128.0, 128.0), (128.0, 128.0))
    assert Normalization.named("imagenet").mean == pytest.approx([0.485 * 255, 0.456 * 255, 0.406 * 255])
    assert Normalization.named("imagenet").std == pytest.approx([0.229 * 255, 0.224 * 255, 0.225 * 255])
    gray = Normalization.named("imagenet", 1)
    assert gray.mean[0] == pytest.approx(sum(Normalization.named("imagenet").mean) / 3)
    assert Normalization.named("imagenet", 5).mean[:3] == Normalization.named("imagenet").mean
    with pytest.raises(ModelError, match="did you mean 'imagenet'"):
        Normalization.named("imagnet")


@pytest.mark.parametrize(("mean", "std"), [((1.0,), (1.0, 2.0)), ((1.0,), (0.0,)), ((float("nan"),), (1.0,)), ((), ())])
def test_impossible_normalizations_are_refused(mean, std):
    with pytest.raises(ModelError, match="normalization needs"):
        Normalization(mean, std)


def test_description_can_be_read_without_torch():
    code = "import segshrink.model_description, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
