"""Pruning: what doesn't matter goes, targets are met, and what must stay stays."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from segshrink.classes import ClassMap
from segshrink.compression import prune
from segshrink.compression.pruning.channels import Axis, Block
from segshrink.compression.pruning.costs import cost_of
from segshrink.compression.pruning.importance import example_images
from segshrink.compression.pruning.smaller_copy import reestimate_statistics
from segshrink.errors import ModelError, UsageError
from segshrink.model_description import ModelDescription, Normalization
from segshrink.models import SegmentationModel, build_model, count_parameters, list_roles, load_model
from segshrink.profiling.parameters_and_macs import count_macs

CLASSES = ClassMap.build([(name, None, None) for name in ("water", "land", "road")])
SIZE = 64


def built(identity, options=None, bands=3):
    torch.manual_seed(0)
    model = build_model(identity, CLASSES, options=options, bands=bands)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, std=0.3)
    reestimate_statistics(model, example_images(model))  # so that no channel is dead by chance
    return model.eval()


def silence_half(model, *, but):
    """Make every second channel of all layers dead, but those of a layer."""
    for path, layer in model.network.named_modules():
        if path != but and isinstance(layer, nn.BatchNorm2d | nn.ConvTranspose2d):
            weight = layer.weight if isinstance(layer, nn.BatchNorm2d) else layer.weight.transpose(0, 1)
            with torch.no_grad():
                weight[::2] = 0
                layer.bias[::2] = 0


@pytest.fixture
def images():
    return torch.randint(0, 256, (2, 3, 50, 37), dtype=torch.uint8)


@pytest.fixture(scope="module")
def unet():
    return built("unet", {"width": 16, "depth": 3})


@pytest.mark.parametrize("steps", [1, 3])
def test_dead_channels_go_first_and_nothing_changes(images, steps):
    model = built("unet", {"width": 16, "depth": 2})
    silence_half(model, but="encoder.0.1")
    before = model(images)
    smaller = prune(model, ratio=0.5, steps=steps)
    assert [layer.num_features for layer in smaller.modules() if isinstance(layer, nn.BatchNorm2d)] == [
        16, 8, 16, 16, 8, 8,
    ]  # fmt: skip
    assert torch.allclose(smaller(images), before, atol=1e-5)


@pytest.mark.parametrize(
    ("identity", "options", "bands"),
    [
        ("mobile", {"width": 0.5, "blocks": 8}, 3),
        ("separable-unet", {"width": 0.25}, 17),
        ("torchvision:lraspp_mobilenet_v3_large", {}, 3),
        ("smp:DeepLabV3Plus/resnet18", {}, 3),
        ("smp:Unet/tu-regnetx_002", {"decoder_channels": [32, 32, 16, 16, 16]}, 3),
    ],
)
def test_any_network_keeps_what_it_must_and_comes_back(tmp_path, identity, options, bands):
    model = built(identity, options, bands)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    smaller = prune(model, ratio=0.4, steps=2)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert model.description.structure is None

    convs = {path: layer for path, layer in smaller.network.named_modules() if isinstance(layer, nn.Conv2d)}
    first = next(layer for layer in convs.values() if layer.in_channels == bands)
    before = model.network.get_submodule(next(path for path, layer in convs.items() if layer is first))
    assert first.weight.shape == before.weight.shape
    images = torch.randint(0, 256, (1, bands, 45, 70), dtype=torch.uint8)
    logits = smaller(images)
    assert logits.shape == (1, 3, 45, 70)
    changed = 0
    for path, layer in convs.items():
        original = model.network.get_submodule(path)
        for name in ("in_channels", "out_channels"):
            size, size_before = getattr(layer, name), getattr(original, name)
            assert size == size_before or size % 8 == 0, path
            changed += size != size_before
    assert changed > 5
    assert count_parameters(smaller) < 0.85 * count_parameters(model)

    smaller.save(tmp_path / "model")
    loaded = load_model(tmp_path / "model").eval()
    assert loaded.description == smaller.description
    assert torch.equal(loaded(images), logits)
    assert {role.name for role in list_roles(loaded)} >= {"encoder", "logits"}


def test_targets_are_met_and_barely(unet):
    macs = 0.5 * count_macs(unet, size=SIZE)
    by_macs = prune(unet, macs=macs, size=SIZE)
    assert 0.9 * macs < count_macs(by_macs, size=SIZE) <= macs
    parameters = 0.4 * count_parameters(unet)
    by_parameters = prune(unet, parameters=parameters, steps=2)
    assert 0.9 * parameters < count_parameters(by_parameters) <= parameters
    again = prune(by_parameters, parameters=0.9 * parameters, steps=1)
    assert count_parameters(again) <= 0.9 * parameters
    assert again.description.structure["layers"]["encoder.2.4"]["in_channels"] <= 32


def test_a_target_out_of_reach_names_the_nearest_that_is_reached(unet):
    with pytest.raises(ModelError, match=r"can't be reached: .* is the nearest") as caught:
        prune(unet, parameters=100, steps=2)
    nearest = int(re.search(r"reached: ([\d,]+) is", str(caught.value))[1].replace(",", ""))
    assert count_parameters(prune(unet, parameters=nearest, steps=2)) == nearest
    with pytest.raises(ModelError, match=r"99\.0% of the channels can't go: at most [6-9]\d\.\d% can"):
        prune(unet, ratio=0.99)


def test_statistics_are_those_of_the_images_that_are_given(unet, images):
    smaller = prune(unet, ratio=0.3, steps=1, images=images.float())
    convolution, norm = smaller.network.encoder[0][0], smaller.network.encoder[0][1]
    seen = []
    handle = convolution.register_forward_hook(lambda *parts: seen.append(parts[2]))
    smaller(images)
    handle.remove()
    assert torch.allclose(norm.running_mean, seen[0].mean(dim=(0, 2, 3)), atol=1e-4)
    assert not smaller.training
    assert norm.momentum == unet.network.encoder[0][1].momentum


class Rigid(nn.Module):
    """A layer that knows how many channels it has."""

    stride = 2

    def __init__(self, rigid):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 32, 3, padding=1)
        self.rigid, self.head = rigid, nn.Conv2d(32, 3, 1)

    def forward(self, images):
        return self.head(self.rigid(self.second(self.first(images))))


class Shifted(nn.Module):
    def forward(self, features):
        return features + torch.arange(32.0).reshape(32, 1, 1)


class Shuffled(nn.Module):
    def forward(self, features):
        return features.reshape(len(features), 2, 16, -1).transpose(1, 2).reshape(features.shape)


def test_what_cannot_be_pruned_is_named(unet):
    description = ModelDescription("own", CLASSES, 3, Normalization.named("half"), 2)
    with pytest.raises(ModelError, match="'own' can't be made smaller: the layer 'rigid' doesn't follow"):
        prune(SegmentationModel(Rigid(Shifted()), description), ratio=0.5)
    with pytest.raises(ModelError, match="folds its features behind 'second'"):
        prune(SegmentationModel(Rigid(Shuffled()), description), ratio=0.5)
    with pytest.raises(ModelError, match="network of transformers"):
        prune(SegmentationModel(unet.network, replace(description, id="hf:segformer")), ratio=0.5)
    with pytest.raises(ModelError, match="no layer that could lose channels"):
        prune(SegmentationModel(nn.Conv2d(3, 3, 1), description), ratio=0.5)


@pytest.mark.parametrize(
    ("options", "words", "kind"),
    [
        ({}, "found none", UsageError),
        ({"ratio": 0.5, "macs": 10}, "found ratio, macs", UsageError),
        ({"ratio": 1.5}, "between 0 and 1, found 1.5", UsageError),
        ({"parameters": 10**9}, "already", ModelError),
        ({"ratio": 0.5, "steps": 0}, "at least 1, found 0", UsageError),
    ],
)
def test_wrong_targets(unet, options, words, kind):
    with pytest.raises(kind, match=words):
        prune(unet, **options)


def test_images_of_a_short_last_batch_count_as_others_do():
    model = built("unet", {"width": 4, "depth": 2})
    first = next(layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d))
    means = []
    hook = first.register_forward_pre_hook(lambda _, inputs: means.append(inputs[0].mean(dim=(0, 2, 3))))
    reestimate_statistics(model, torch.cat([torch.full((4, 3, 64, 64), 50.0), torch.full((1, 3, 64, 64), 250.0)]))
    hook.remove()
    torch.testing.assert_close(first.running_mean, (4 * means[0] + means[1]) / 5)
    assert first.momentum == nn.BatchNorm2d(1).momentum


def test_blocks_of_one_layer_are_counted_once_each():
    layer = nn.Conv2d(3, 16, 1)
    numbers = (np.arange(4)[:, None], np.arange(4, 16)[:, None])
    blocks = [Block(layer, channels, {Axis("layer", "out"): channels}, fixed=False) for channels in numbers]
    cost = cost_of(built("unet", {"width": 4, "depth": 2}), blocks, "channels", size=SIZE)
    assert cost.of(blocks, [4, 12]) == 16
    assert cost.of(blocks, [4, 2]) == pytest.approx(6)
