"""Roles: the features that they name are what the network computes with."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from segshrink.errors import ModelError
from segshrink.models import Role, SegmentationModel, Taps, build_model, list_roles, tap_shapes

IMAGES = torch.arange(2 * 3 * 64 * 64).remainder(251).reshape(2, 3, 64, 64).to(torch.uint8)


def table(roles: list[Role]) -> dict[str, tuple[str, tuple[int, int, int], int]]:
    return {role.name: (role.path, role.shape, role.stride) for role in roles}


def tapped(model: nn.Module, *names: str) -> list[Tensor]:
    with torch.no_grad(), Taps(model.eval(), names) as taps:
        model(IMAGES)
        return [taps.features[name] for name in names]


def test_roles_of_the_unet(classes):
    model = build_model("unet", classes, options={"width": 4, "depth": 3})
    assert table(list_roles(model, size=32)) == {
        "encoder": ("network.encoder.2", (16, 8, 8), 4),
        "decoder": ("network.decoder.1", (4, 32, 32), 1),
        "stage:0": ("network.encoder.0", (4, 32, 32), 1),
        "stage:1": ("network.encoder.1", (8, 16, 16), 2),
        "stage:2": ("network.encoder.2", (16, 8, 8), 4),
        "logits": ("", (6, 32, 32), 1),
    }


def test_roles_of_the_separable_unet(classes):
    model = build_model("separable-unet", classes, options={"width": 0.125})
    found = table(list_roles(model))
    assert found["encoder"] == found["stage:3"] == ("network.bottleneck", (64, 8, 8), 8)
    assert found["stage:2"] == ("network.encoder.2", (32, 16, 16), 4)
    assert found["decoder"] == ("network.decoder.2", (8, 64, 64), 1)


def test_roles_of_mobile_are_its_encoders_own_list(classes):
    model = build_model("mobile", classes, options={"width": 0.35}).eval()
    found = table(list_roles(model))
    assert {name: entry[0] for name, entry in found.items()} == {
        "encoder": "network.encoder#3",
        "decoder": "network.to_half",
        **{f"stage:{stage}": f"network.encoder#{stage - 1}" for stage in range(1, 5)},
        "logits": "",
    }
    network = model.network
    expected = network.encoder(model.normalize(IMAGES))
    decoder, *stages, logits = tapped(model, "decoder", "stage:1", "stage:2", "stage:3", "stage:4", "logits")
    for value, other in zip(stages, expected, strict=True):
        assert torch.equal(value, other)
    whole = nn.functional.interpolate(network.head(decoder), scale_factor=2, mode="bilinear")
    assert torch.allclose(whole, logits, atol=1e-5)


@pytest.mark.parametrize(
    ("identity", "options", "strides"),
    [
        ("smp:Unet/mobilenet_v2", {"encoder_depth": 3, "decoder_channels": [8, 8, 8]}, [1, 2, 3]),
        # Dilated: its deepest features stay at stride 8, and PAN sees every image at 128 pixels at least.
        ("smp:DeepLabV3/mobilenet_v2", {"decoder_channels": 8}, [1, 2, 3]),
        ("smp:PAN/mobilenet_v2", {"decoder_channels": 8}, [1, 2, 3, 4]),
    ],
)
def test_roles_of_smp(classes, identity, options, strides):
    model = build_model(identity, classes, options=options).eval()
    found = table(list_roles(model))
    assert [name for name in found if name.startswith("stage:")] == [f"stage:{stage}" for stage in strides]
    assert all(found[f"stage:{stage}"][2] == 2**stage for stage in strides)
    assert found["decoder"][0] == "network.decoder"
    decoder, encoder, logits = tapped(model, "decoder", "encoder", "logits")
    size = max(64, 2 * model.description.stride)
    padded = nn.functional.pad(model.normalize(IMAGES), (0, size - 64, 0, size - 64), mode="replicate")
    assert torch.equal(encoder, model.network.encoder(padded)[-1])
    assert torch.allclose(model.network.segmentation_head(decoder)[:, :, :64, :64], logits, atol=1e-5)


def test_roles_of_torchvision_where_the_head_is_fed_by_no_module(classes):
    model = build_model("torchvision:lraspp_mobilenet_v3_large", classes).eval()
    found = table(list_roles(model))
    assert found["stage:2"] == ("network.model.backbone.3", (24, 16, 16), 4)
    assert found["stage:3"] == ("network.model.backbone#low", (40, 8, 8), 8)
    assert found["encoder"] == found["stage:4"] == ("network.model.backbone#high", (960, 4, 4), 16)
    assert found["decoder"] == ("network.model.classifier.high_classifier@input", (128, 8, 8), 8)
    decoder, low, logits = tapped(model, "decoder", "stage:3", "logits")
    head = model.network.model.classifier
    coarse = head.high_classifier(decoder) + head.low_classifier(low)
    assert torch.allclose(nn.functional.interpolate(coarse, scale_factor=8, mode="bilinear"), logits, atol=1e-5)


def test_decoder_is_what_lies_before_dropout_and_behind_what_is_overwritten(classes):
    model = build_model("torchvision:deeplabv3_mobilenet_v3_large", classes)
    head = model.network.model.classifier
    assert isinstance(head[2], nn.BatchNorm2d)
    assert table(list_roles(model))["decoder"][0] == "network.model.classifier.3"
    head[4] = nn.Sequential(nn.Dropout(), head[4])
    assert table(list_roles(model))["decoder"][0] == "network.model.classifier.3"


class Tokens(nn.Module):
    """A plain vision transformer's shape: patches of 16, class and register tokens first, no encoder by name."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(2, 8, 16, 16)
        self.block = nn.Linear(8, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        tokens = self.patches(images).flatten(2).transpose(1, 2)
        tokens = self.block(torch.cat([torch.ones(len(tokens), 5, 8), tokens], dim=1))
        rows, columns = images.shape[2] // 16, images.shape[3] // 16
        coarse = self.head(tokens[:, 5:]).transpose(1, 2).reshape(len(tokens), 3, rows, columns)
        return {"out": nn.functional.interpolate(coarse, size=images.shape[2:])}


def test_sequences_of_tokens_become_maps():
    model = Tokens()
    found = table(list_roles(model))
    assert found["encoder"] == found["stage:4"] == ("block", (8, 4, 4), 16)
    assert found["logits"] == ("#out", (3, 64, 64), 1)
    images = torch.randn(2, 2, 48, 80)
    names = ["encoder", "head", "logits"]
    with Taps(model, names) as taps:
        output = model(images)["out"]
        assert torch.equal(taps.features["logits"], output)
        patches = model.patches(images)
        assert torch.allclose(taps.features["encoder"], model.block(patches.movedim(1, 3)).movedim(3, 1), atol=1e-6)
        assert torch.equal(taps.features["head"], output[:, :, ::16, ::16])
    assert tap_shapes(model, names, bands=2, size=64)["encoder"] == (8, 4, 4)


def test_channels_last_become_channels_first():
    class Last(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images[:, :, ::2, ::2].movedim(1, 3)

    model = nn.Sequential(Last())
    images = torch.randn(1, 5, 16, 24)
    with Taps(model, ["0"]) as taps:
        model(images)
        assert torch.equal(taps.features["0"], images[:, :, ::2, ::2])


def test_looking_for_roles_leaves_no_trace(classes):
    model = build_model("unet", classes, options={"width": 4, "depth": 2, "dropout": 0.5}).train()
    frozen = model.network.encoder[0].eval()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(3)
    generator = torch.get_rng_state()
    list_roles(model)
    tap_shapes(model, ["encoder"], bands=3, size=32)
    assert torch.equal(torch.get_rng_state(), generator)
    assert {name for name, module in model.named_modules() if not module.training} == {
        f"network.encoder.0{name and '.'}{name}" for name, _ in frozen.named_modules()
    }
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_network_that_refuses_the_small_image_is_a_sentence():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten(), nn.Linear(4 * 9, 2))
    with pytest.raises(ModelError, match="can't be run on a black image of 64 × 64 pixels and 3 bands"):
        list_roles(model)
    assert tap_shapes(model, ["0"], bands=3, size=3) == {"0": (4, 3, 3)}
    assert not any(module._forward_hooks for module in model.modules())


def test_one_channel_models_have_a_decoder(classes):
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 1, 1))
    description = build_model("unet", classes, options={"width": 4, "depth": 2}).description
    model = SegmentationModel(network, description)
    assert table(list_roles(model))["decoder"] == ("network.1", (4, 64, 64), 1)


class Fitted(nn.Module):
    """Shows its network an image of another size."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        logits = self.network(nn.functional.interpolate(images.float(), size=(128, 128)))
        return nn.functional.interpolate(logits, size=images.shape[2:])


def test_strides_count_pixels_of_the_image_that_the_network_sees(classes):
    inner = build_model("unet", classes, bands=2, options={"width": 4, "depth": 3})
    found = table(list_roles(Fitted(inner)))
    assert found["encoder"] == found["stage:2"] == ("network.network.encoder.2", (16, 32, 32), 4)
    assert found["logits"] == ("", (6, 64, 64), 1)
    assert tap_shapes(Fitted(inner), ["encoder.1"], bands=2) == {"encoder.1": (8, 64, 64)}


def test_wrappers_of_other_names_are_looked_into():
    class Wrapper(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            down = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 8, 3, 2, 1))
            self.net = nn.Sequential(down, nn.Upsample(scale_factor=4), nn.Conv2d(8, 3, 1))

        def forward(self, images: Tensor) -> Tensor:
            return self.net(images)

    found = table(list_roles(Wrapper()))
    assert found["encoder"] == found["stage:2"] == ("net.0", (8, 16, 16), 4)
    assert found["decoder"] == ("net.1", (8, 64, 64), 1)
