"""SegmentationModel: any size, any pixel type, its own normalization."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from segshrink.classes import ClassMap
from segshrink.errors import ModelError
from segshrink.model_description import ModelDescription, Normalization
from segshrink.models import SegmentationModel, build_model, count_parameters
from segshrink.working_size import Resize

SMALL = [
    ("mobile", {"width": 0.25, "blocks": 7}),
    ("unet", {"width": 4, "depth": 3}),
    ("unet", {"width": 4, "depth": 3, "batch_norm": False, "dropout": 0.2}),
    ("separable-unet", {"width": 0.125}),
    ("smp:Unet/mobilenet_v2", {}),
    ("torchvision:lraspp_mobilenet_v3_large", {}),
]


class Pixelwise(nn.Module):
    """Logits that are the normalized bands: what comes out must be what went in."""

    def forward(self, images: Tensor) -> Tensor:
        return images


def wrap(network: nn.Module, classes: ClassMap, *, stride: int, bands: int) -> SegmentationModel:
    normalization = Normalization((10.0, 20.0, 30.0, 1.0, 2.0, 3.0)[:bands], (2.0, 4.0, 5.0, 1.0, 3.0, 7.0)[:bands])
    return SegmentationModel(network, ModelDescription("test", classes, bands, normalization, stride))


@pytest.mark.parametrize(("identity", "options"), SMALL)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("size", [(1, 1), (5, 33), (64, 48)])
def test_any_size_gives_finite_logits_at_that_size(classes, identity, options, training, size):
    model = build_model(identity, classes, options=options).train(training)
    images = torch.randint(0, 256, (1, 3, *size), dtype=torch.uint8)
    logits = model(images)
    assert logits.shape == (1, 6, *size)
    assert logits.isfinite().all()


@pytest.mark.parametrize("size", [(1, 1), (7, 16), (16, 23), (40, 40)])
def test_padding_repeats_the_edge_and_is_cropped(classes, size):
    model = wrap(Pixelwise(), classes, stride=16, bands=6)
    images = np.random.default_rng(0).integers(0, 65536, (2, 6, *size), dtype=np.uint16)
    description = model.description.normalization
    mean, std = (np.array(values).reshape(1, 6, 1, 1) for values in (description.mean, description.std))
    assert np.allclose(model(torch.from_numpy(images)).numpy(), (images - mean) / std, rtol=1e-6)


@pytest.mark.parametrize(("identity", "options"), SMALL)
def test_sizes_that_divide_by_the_stride_are_not_padded(classes, identity, options):
    model = build_model(identity, classes, options=options).eval()
    stride = model.description.stride
    images = torch.randint(0, 256, (1, 3, 4 * stride, 2 * stride), dtype=torch.uint8)
    with torch.no_grad():
        network = model.network((images.float() - model.mean) / model.std)
        logits = model(images)
    if network.shape != logits.shape:
        network = nn.functional.interpolate(network, logits.shape[-2:], mode="bilinear", align_corners=False)
    assert torch.equal(logits, network)


@pytest.mark.parametrize("width", [34, 41])
def test_padding_does_not_change_pixels_far_from_it(classes, width):
    # A U-Net of two levels sees less than 12 pixels around; what was cut off is padded with the edge instead.
    model = build_model("unet", classes, options={"width": 4, "depth": 2}).eval()
    images = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        whole, part = model(images), model(images[:, :, :, :width])
    assert torch.allclose(whole[..., : width - 12], part[..., : width - 12], atol=1e-5)


def test_pixel_types_agree(classes):
    model = build_model("unet", classes, options={"width": 4, "depth": 2}).eval()
    images = torch.randint(0, 256, (1, 3, 16, 16), dtype=torch.uint8)
    with torch.no_grad():
        expected = model(images)
        for kind in (torch.float32, torch.float64, torch.int16, torch.uint16):
            assert torch.equal(model(images.to(kind)), expected)


def test_pixels_are_normalized_in_float32_whatever_the_precision(classes):
    class Recorder(Pixelwise):
        def forward(self, images: Tensor) -> Tensor:
            self.seen = images
            return images

    model = wrap(Recorder(), classes, stride=1, bands=6)
    images = torch.randint(0, 65536, (1, 6, 8, 8), dtype=torch.int32)
    exact = model.normalize(images).clone()
    with torch.autocast("cpu", torch.bfloat16):
        model(images)
    assert torch.equal(model.network.seen, exact)
    assert torch.equal(model.to(torch.bfloat16).normalize(images), exact)


@pytest.mark.parametrize(("identity", "options"), SMALL[:5])
def test_bf16_autocast_stays_near_float32_and_trains(classes, identity, options):
    model = build_model(identity, classes, options=options).to(memory_format=torch.channels_last).train()
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(images)
    assert logits.dtype == torch.float32
    logits.square().mean().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())
    model.eval()
    with torch.no_grad():
        plain = model(images)
        with torch.autocast("cpu", torch.bfloat16):
            narrow = model(images)
    assert (plain - narrow).norm() < 0.1 * plain.norm()


def test_channels_last_images_reach_the_network_as_such(classes):
    class Recorder(Pixelwise):
        def forward(self, images: Tensor) -> Tensor:
            self.ordered = images.is_contiguous(memory_format=torch.channels_last)
            return images

    model = wrap(Recorder(), classes, stride=8, bands=6)
    for side in (16, 21):
        model(torch.zeros(2, 6, side, side, dtype=torch.uint8).contiguous(memory_format=torch.channels_last))
        assert model.network.ordered


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((1, 4, 8, 8), "takes 3 bands, found 4"),
        ((3, 8, 8), "must be"),
        ((1, 3, 0, 8), "empty"),
        ((0, 3, 8, 8), "empty"),
    ],
)
def test_wrong_images_are_refused(classes, shape, words):
    model = build_model("unet", classes, options={"width": 1, "depth": 2})
    with pytest.raises(ModelError, match=words):
        model(torch.zeros(shape))


def test_a_batch_of_one_that_cannot_train_is_explained(classes):
    model = build_model("smp:DeepLabV3/mobilenet_v2", classes).train()
    with pytest.raises(ModelError, match="batch of at least two"):
        model(torch.zeros(1, 3, 32, 32))


def test_statistics_are_not_among_the_weights(classes):
    model = wrap(nn.Conv2d(3, 6, 1), classes, stride=1, bands=3)
    assert set(model.state_dict()) == {"network.weight", "network.bias"}
    assert count_parameters(model) == 3 * 6 + 6
    assert model.num_classes == 6


@pytest.mark.parametrize("resize", [0.5, {"longest": 30}, (20, 30)])
def test_the_network_sees_the_working_size_and_logits_come_at_the_images(resize: Resize) -> None:
    seen: list[tuple[int, ...]] = []

    class Seeing(nn.Identity):
        def forward(self, images: Tensor) -> Tensor:
            seen.append(tuple(images.shape))
            return images

    plain = Normalization((0.0,) * 3, (1.0,) * 3)
    classes = ClassMap.build(["a", "b", "c"])
    model = SegmentationModel(Seeing(), ModelDescription("custom:seeing", classes, 3, plain, 2, resize=resize))
    images = torch.randint(0, 256, (2, 3, 40, 60), dtype=torch.uint8)
    means = images.float().reshape(2, 3, 20, 2, 30, 2).mean(dim=(3, 5))
    logits = model(images)
    assert seen == [(2, 3, 20, 30)]
    assert logits.shape == (2, 3, 40, 60)
    rows = 0.75 * means[:, :, 0] + 0.25 * means[:, :, 1]  # pixel (1, 1) lies a quarter of a small pixel inwards
    torch.testing.assert_close(logits[:, :, 1, 1], 0.75 * rows[:, :, 0] + 0.25 * rows[:, :, 1], atol=1e-3, rtol=0)
    torch.testing.assert_close(model.with_resize(None)(images), images.float())
