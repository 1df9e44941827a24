"""Weights that somebody else trained, of whole networks of smp and torchvision."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import segmentation_models_pytorch as smp
import torch
import torchvision
from torch import Tensor, nn

from segshrink.classes import ClassMap
from segshrink.errors import FileError, ModelError
from segshrink.models.whole_weights import load_network, published_classes

UNET, OPTIONS = "smp:Unet/mobilenet_v2", {"decoder_channels": [16, 8, 8, 8, 8]}
LRASPP = "torchvision:lraspp_mobilenet_v3_large"


def numbered(count: int) -> ClassMap:
    return ClassMap.build([(f"class {number}", None, None) for number in range(count)])


def unet(count: int, **options: object) -> nn.Module:
    return smp.Unet("mobilenet_v2", encoder_weights=None, classes=count, **(OPTIONS | options)).eval()


def save(tensors: Mapping[str, Tensor], path: Path) -> Path:
    torch.save(dict(tensors), path)
    return path


def normalized(images: Tensor) -> Tensor:
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return (images / 255 - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)


@pytest.fixture
def images() -> Tensor:
    return torch.randint(0, 256, (1, 3, 64, 64)).float()


@torch.no_grad()
@pytest.mark.parametrize(("count", "likely", "prefix"), [(4, 4, ""), (7, 3, "module.")])
def test_classes_are_counted_and_prefixes_taken_away(
    tmp_path: Path, images: Tensor, count: int, likely: int, prefix: str
) -> None:
    network = unet(count)
    tensors = {prefix + name: value for name, value in network.state_dict().items()} | {"epoch": torch.tensor(3)}
    if not prefix:
        del tensors["epoch"]
    path = save({"state_dict": tensors}, tmp_path / "weights.pth")
    model = load_network(UNET, path, numbered, options=OPTIONS, likely_classes=likely)
    assert model.description.classes.names == numbered(count).names
    assert torch.allclose(model(images), network(normalized(images)), atol=1e-5)


@torch.no_grad()
def test_one_channel_is_two_classes(tmp_path: Path, images: Tensor) -> None:
    network = unet(1)
    path = save({f"model.net.{name}": value for name, value in network.state_dict().items()}, tmp_path / "weights.pt")
    model = load_network(UNET, path, numbered, options=OPTIONS, likely_classes=2)
    assert model.description.classes.names == ("class 0", "class 1")
    assert torch.allclose(model(images).softmax(1)[:, 1:], network(normalized(images)).sigmoid(), atol=1e-6)


@torch.no_grad()
def test_published_layout_of_torchvision(tmp_path: Path, images: Tensor) -> None:
    network = torchvision.models.segmentation.fcn_resnet50(
        weights=None, weights_backbone=None, num_classes=21, aux_loss=True
    ).eval()
    network.half().float()
    path = save({name: value.half() for name, value in network.state_dict().items()}, tmp_path / "fcn_coco.pth")
    model = load_network("torchvision:fcn_resnet50", path, numbered, likely_classes=21)
    assert not any("aux" in name for name in model.state_dict())
    assert torch.allclose(model(images), network(normalized(images))["out"], atol=1e-4)


def test_published_weights_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    names = published_classes("torchvision:fcn_resnet50", 21)
    assert names is not None
    assert names[:2] == ("background", "aeroplane")
    assert names[-1] == "tvmonitor"
    assert published_classes("torchvision:fcn_resnet50", 20) is None
    assert published_classes(UNET, 21) is None
    with pytest.raises(ModelError, match=r"publishes no weights 'COCO_WITH_VOC_LABELS'.*did you mean .*_V1"):
        load_network(LRASPP, Path("COCO_WITH_VOC_LABELS"), numbered)

    def offline(*arguments: object, **named: object) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("socket.getaddrinfo", offline)
    with pytest.raises(ModelError, match=r"can't be downloaded .*; download https://.*\.pth elsewhere"):
        load_network(LRASPP, Path("COCO_WITH_VOC_LABELS_V1"), numbered)


def test_weights_that_do_not_fit_are_told_apart(tmp_path: Path) -> None:
    state = unet(3).state_dict()
    path = tmp_path / "weights.pth"

    def refusal(tensors: Mapping[str, Tensor], **changes: object) -> str:
        arguments = {"identity": UNET, "weights": save(tensors, path), "name_classes": numbered, "options": OPTIONS}
        with pytest.raises(ModelError) as caught:
            load_network(**(arguments | {"likely_classes": 3} | changes))
        assert "\n" not in str(caught.value)
        return str(caught.value)

    some = {name: value for name, value in state.items() if not name.startswith("encoder.features.0.")}
    assert "encoder.features.0.0.weight is missing" in refusal(some)
    told = refusal(state, options={"decoder_channels": [16, 8, 8, 8, 16]})
    assert "is (8, 8, 3, 3) in the file but (16, 8, 3, 3) in the network" in told
    assert "the options that it was built with" in told
    # Attention that the file has and the network has not would be left out in silence.
    wide = {"decoder_channels": [16, 16, 16, 16, 16]}
    attentive = unet(3, decoder_attention_type="scse", **wide).state_dict()
    assert "the network has no decoder.blocks.0.attention1" in refusal(attentive, options=wide)
    assert "(32, 3, 3, 3) in the file but (32, 4, 3, 3)" in refusal(state, bands=4)
    # Counters of batch normalization may be missing, as in old files.
    old = {name: value for name, value in state.items() if "num_batches" not in name}
    assert load_network(UNET, save(old, path), numbered, options=OPTIONS).num_classes == 3
    with pytest.raises(FileError, match="no weight file"):
        load_network(UNET, tmp_path / "absent.pth", numbered)
