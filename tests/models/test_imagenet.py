"""ImageNet weights from packages, hubs, or nowhere."""

from __future__ import annotations

import json
import logging
import socket

import pytest
import segmentation_models_pytorch as smp
import timm
import torch
import torchvision
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from segshrink.classes import ClassMap
from segshrink.errors import ModelError
from segshrink.models import build_model, imagenet
from segshrink.models.weights import load_encoder_weights

CLASSES = ClassMap.build([("a", None, None), ("b", None, None)])
LITE = "smp:Unet/tu-tf_efficientnet_lite{}"


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*_, **__):
        raise OSError("no network in tests")

    monkeypatch.setattr(socket, "create_connection", refuse)


@pytest.fixture
def hub(monkeypatch):
    monkeypatch.setattr(imagenet, "_reach", lambda _: None)


def encoder_of(model):
    return {name: value for name, value in model.network.encoder.state_dict().items() if "num_batches" not in name}


@pytest.mark.parametrize("size", [0, 2])
def test_packages_bring_the_weights_that_were_renamed_by_hand(shared_weights, size):
    model = build_model(LITE.format(size), CLASSES, encoder_weights="imagenet")
    given = load_file(shared_weights / f"efficientnet_lite{size}_imagenet.safetensors")  # in 16 bits
    found = encoder_of(model)
    assert len(found) > 200
    for name, value in found.items():
        torch.testing.assert_close(value, given[name.removeprefix("model.")].float(), rtol=1e-3, atol=1e-6)
    assert model.description.normalization.mean == (128.0, 128.0, 128.0)


def test_without_package_and_network_the_start_is_random_and_says_so(monkeypatch, caplog):
    monkeypatch.setattr(imagenet, "find_spec", lambda _: None)
    with caplog.at_level(logging.WARNING):
        model = build_model(LITE.format(0), CLASSES, encoder_weights="imagenet")
    (line,) = caplog.messages
    assert "random" in line
    assert "[weights]" in line
    assert "huggingface.co" in line
    assert model.description.normalization.mean[0] == pytest.approx(123.675)


@pytest.mark.parametrize(("mean", "expected"), [((0.485, 0.456, 0.406), 123.675), ((0.5, 0.5, 0.5), 128.0)])
def test_a_hub_that_is_reached_is_taken(monkeypatch, hub, mean, expected):
    source = smp.encoders.get_encoder("mobilenet_v2", weights=None)
    asked = []
    monkeypatch.setattr(smp.encoders, "get_encoder", lambda name, weights: asked.append((name, weights)) or source)
    monkeypatch.setattr(smp.encoders, "get_preprocessing_params", lambda *_: {"mean": list(mean)})
    found = imagenet.load_imagenet_weights(
        network := smp.Unet("mobilenet_v2", encoder_weights=None), "smp:Unet/mobilenet_v2"
    )
    assert asked == [("mobilenet_v2", "imagenet")]
    assert found == ("half" if expected == 128.0 else "imagenet")
    assert all(torch.equal(value, network.encoder.state_dict()[name]) for name, value in source.state_dict().items())


def test_our_mobile_takes_torchvisions(monkeypatch, hub):
    source = torchvision.models.mobilenet_v2(weights=None)
    monkeypatch.setattr(torchvision.models, "mobilenet_v2", lambda weights: source)
    found = encoder_of(build_model("mobile", CLASSES, bands=3, encoder_weights="imagenet"))
    given = source.state_dict()
    assert all(torch.equal(value, given[name]) for name, value in found.items())


def test_a_download_that_breaks_off_is_told(monkeypatch, hub, caplog):
    def broken(weights):
        raise ConnectionResetError("gone")

    monkeypatch.setattr(torchvision.models, "mobilenet_v2", broken)
    build_model("mobile", CLASSES, encoder_weights="imagenet")
    assert "ConnectionResetError" in caplog.text


@pytest.mark.parametrize("identity", ["unet", "separable-unet"])
def test_networks_without_such_weights_are_refused(hub, identity):
    with pytest.raises(ModelError, match=f"no ImageNet weights for '{identity}'"):
        build_model(identity, CLASSES, encoder_weights="imagenet")


@pytest.mark.parametrize(
    ("identity", "encoder", "part"),
    [
        ("mobile", "mobilenet_v2", "encoder"),
        ("torchvision:fcn_resnet50", "resnet50", "model.backbone"),
        ("torchvision:lraspp_mobilenet_v3_large", "mobilenet_v3_large", "model.backbone"),
    ],
)
def test_weights_of_an_earlier_download_need_no_network(monkeypatch, tmp_path, identity, encoder, part):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    source = torchvision.models.get_model(encoder, weights=None)
    place = tmp_path / "hub" / "checkpoints"
    place.mkdir(parents=True)
    file = torchvision.models.get_model_weights(encoder).DEFAULT.url.rpartition("/")[2]
    torch.save(source.state_dict(), place / file)
    network = build_model(identity, CLASSES, encoder_weights="imagenet").network
    given = dict(source.state_dict())
    given |= {name.removeprefix("features."): value for name, value in given.items()}
    assert all(torch.equal(value, given[name]) for name, value in network.get_submodule(part).named_parameters())


def test_weights_that_hugging_face_keeps_need_no_network(monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    source = smp.encoders.get_encoder("resnet18", weights=None)
    settings = smp.encoders.encoders["resnet18"]["pretrained_settings"]["imagenet"]
    folder = tmp_path / f"models--{settings['repo_id'].replace('/', '--')}" / "snapshots" / settings["revision"]
    folder.mkdir(parents=True)
    save_file(source.state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}))
    model = build_model("smp:Unet/resnet18", CLASSES, encoder_weights="imagenet")
    assert all(torch.equal(value, source.state_dict()[name]) for name, value in encoder_of(model).items())
    assert model.description.normalization.mean == (128.0, 128.0, 128.0)


def test_a_timm_encoder_that_is_kept_is_found(monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    repository = timm.models.get_pretrained_cfg("resnet18").hf_hub_id.replace("/", "--")
    folder = tmp_path / f"models--{repository}"
    (folder / "snapshots" / "0123").mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("0123")
    assert not imagenet._hugging_face_keeps("tu-resnet18")
    (folder / "snapshots" / "0123" / "model.safetensors").touch()
    assert imagenet._hugging_face_keeps("tu-resnet18")
    assert not imagenet._hugging_face_keeps("tu-resnet34")


@pytest.mark.parametrize("blocks", [6, 8, 11])
def test_our_mobile_on_efficientnet_lite0_takes_the_package_s(shared_weights, blocks):
    options = {"encoder": "efficientnet_lite0", "blocks": blocks}
    model = build_model("mobile", CLASSES, options=options, encoder_weights="imagenet")
    by_name = build_model(
        "mobile", CLASSES, options=options, encoder_weights=shared_weights / "efficientnet_lite0_imagenet.safetensors"
    )
    found, given = encoder_of(model), encoder_of(by_name)  # the file's numbers are in 16 bits
    assert len(found) > 80
    for name, value in found.items():
        torch.testing.assert_close(value, given[name], rtol=1e-3, atol=1e-6)
    assert model.description.normalization.mean == (128.0, 128.0, 128.0)


def test_our_mobile_on_efficientnet_lite0_computes_what_timm_does(shared_weights):
    """As `efficientnet_lite0`; `tf_efficientnet_lite0` has filters of stride 2 half a step aside."""
    reference = timm.create_model("efficientnet_lite0", pretrained=False, bn_eps=1e-3)
    network = build_model("mobile", CLASSES, options={"encoder": "efficientnet_lite0"}).network.encoder
    weights = shared_weights / "efficientnet_lite0_imagenet.safetensors"
    reference.load_state_dict(load_file(weights), strict=True)
    holder = torch.nn.Module()
    holder.encoder = network
    load_encoder_weights(holder, weights)
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.inference_mode():
        features = reference.eval().bn1(reference.conv_stem(images))
        for stage in reference.blocks[:4]:
            features = stage(features)
        torch.testing.assert_close(network.eval()(images)[-1], features, rtol=1e-3, atol=1e-3)
