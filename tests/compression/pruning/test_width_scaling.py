"""Shrinking: narrower and shallower copies that inherit what matters."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from segshrink.classes import ClassMap
from segshrink.compression import shrink
from segshrink.compression.pruning.importance import example_images
from segshrink.compression.pruning.width_scaling import removable_blocks
from segshrink.errors import ModelError, UsageError
from segshrink.models import build_model, load_model
from segshrink.models.structure import RemovedBlock

CLASSES = ClassMap.build([(name, None, None) for name in ("water", "land", "road")])
IMAGES = torch.randint(0, 256, (1, 3, 45, 52), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def built(identity, **options):
    torch.manual_seed(0)
    return build_model(identity, CLASSES, options=options).eval()


def shapes(model):
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}


@pytest.mark.parametrize(
    ("identity", "wide", "narrow"),
    [
        ("unet", {"width": 16, "depth": 3}, {"width": 8, "depth": 3}),
        ("separable-unet", {"width": 0.25}, {"width": 0.125}),
    ],
)
def test_half_the_width_is_the_network_of_half_the_width(tmp_path, identity, wide, narrow):
    model = built(identity, **wide)
    smaller = shrink(model, width=0.5)
    assert shapes(smaller) == shapes(built(identity, **narrow))
    assert shapes(model) == shapes(built(identity, **wide))
    smaller.save(tmp_path / "model")
    assert torch.equal(load_model(tmp_path / "model").eval()(IMAGES), smaller(IMAGES))


def test_dead_channels_are_not_inherited():
    model = built("unet", width=16, depth=2)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d | nn.ConvTranspose2d):
            weight = layer.weight if isinstance(layer, nn.BatchNorm2d) else layer.weight.transpose(0, 1)
            with torch.no_grad():
                weight[1::2] = 0
                layer.bias[1::2] = 0
    smaller = shrink(model, width=0.5)
    assert smaller.network.head.in_channels == 8
    assert torch.allclose(smaller(IMAGES), model(IMAGES), atol=1e-5)


def test_blocks_that_change_least_go_first(tmp_path):
    model = built("separable-unet", width=0.125)
    # Blocks with a projection, and the decoder's first ones, change the number of channels.
    found = removable_blocks(model, example_images(model))
    assert list(found) == [
        "encoder.0.1",
        "encoder.1.1",
        "encoder.2.1",
        "bottleneck.2",
        *(f"decoder.{n}.1" for n in range(3)),
    ]
    nn.init.zeros_(model.network.encoder[2][1].body[4].weight)
    nn.init.zeros_(model.network.decoder[1][1].body[4].weight)
    smaller = shrink(model, depth=0.7)
    removed = [path for path, module in smaller.network.named_modules() if isinstance(module, RemovedBlock)]
    assert removed == ["encoder.2.1", "decoder.1.1"]
    assert torch.equal(smaller(IMAGES), model(IMAGES))
    smaller.save(tmp_path / "model")
    assert torch.equal(load_model(tmp_path / "model").eval()(IMAGES), model(IMAGES))


@pytest.mark.parametrize(
    ("identity", "blocks"),
    [("mobile", 7), ("torchvision:lraspp_mobilenet_v3_large", 10), ("smp:FPN/resnet18", 5)],
)
def test_residual_blocks_of_libraries(identity, blocks):
    model = built(identity)
    assert len(removable_blocks(model, IMAGES)) == blocks
    smaller = shrink(model, depth=0.5, width=0.75)
    assert sum(isinstance(module, RemovedBlock) for module in smaller.modules()) == blocks // 2
    assert smaller(IMAGES).shape == (1, 3, 45, 52)


@pytest.mark.parametrize(
    ("options", "words", "kind"),
    [
        ({}, "both 1", UsageError),
        ({"width": 0}, "width is the share that stays, above 0 and at most 1, found 0", UsageError),
        ({"depth": 1.5}, "depth is the share", UsageError),
        ({"depth": 0.5}, "'unet' has no residual block", ModelError),
    ],
)
def test_what_cannot_be_shrunk(options, words, kind):
    with pytest.raises(kind, match=words):
        shrink(built("unet", width=8, depth=2), **options)


def test_a_depth_that_keeps_everything_names_one_that_does_not():
    with pytest.raises(ModelError, match=r"keeps all 7 residual blocks .*; give 0\.86 or less"):
        shrink(built("separable-unet", width=0.125), depth=0.95)
