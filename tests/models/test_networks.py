"""Our own networks: sizes against their sources, and that they learn."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import mobilenet_v2

from segshrink.errors import ModelError
from segshrink.models import build_model, count_parameters
from segshrink.models.mobile import MobileSegmenter
from segshrink.models.separable_unet import SeparableUNet
from segshrink.models.unet import UNet


def giga_operations(network: nn.Module, side: int = 256) -> float:
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        network.eval()(torch.zeros(1, 3, side, side))
    return counter.get_total_flops() / 1e9


def test_classic_half_width_unet_has_the_parameters_of_keras():
    # The number that is published for the half-width U-Net in Keras (six classes, RGB).
    assert count_parameters(UNet(6, 3, width=8, batch_norm=False)) == 485_862


@pytest.mark.parametrize("depth", [2, 4, 5])
def test_unet_channels_double_with_each_level(depth):
    network = UNet(5, 4, width=16, depth=depth)
    features = torch.zeros(1, 4, 32, 32)
    channels = []
    for level, block in enumerate(network.encoder):
        features = block(network.pool(features) if level else features)
        channels.append(features.shape[1])
    assert channels == [16 * 2**level for level in range(depth)]
    assert network.stride == 2 ** (depth - 1)


def test_separable_unet_is_the_one_described():
    network = SeparableUNet(6, 3).eval()
    shapes = []
    blocks = [*network.encoder, network.bottleneck, *network.decoder]
    for block in blocks:
        block.register_forward_hook(lambda module, inputs, output: shapes.append(tuple(output.shape[1:])))
    with torch.no_grad():
        network(torch.zeros(1, 3, 64, 64))
    encoder = [(64, 64, 64), (128, 32, 32), (256, 16, 16)]
    assert shapes == [*encoder, (512, 8, 8), *encoder[::-1]]
    dilations = [module.dilation[0] for module in network.modules() if getattr(module, "groups", 1) > 1]
    assert dilations == [1] * 6 + [2, 4] + [1] * 6
    dropouts = [module.p for module in network.modules() if isinstance(module, nn.Dropout)]
    assert dropouts == [0.5]
    assert sum(isinstance(module, nn.ConvTranspose2d) for module in network.modules()) == 3


def test_separable_unet_width_scales_every_stage():
    network = SeparableUNet(6, 3, width=0.5)
    outputs = [module.out_channels for module in network.modules() if isinstance(module, nn.ConvTranspose2d)]
    assert outputs == [128, 64, 32]


def test_mobile_is_under_its_budget():
    network = MobileSegmenter(6, 3)
    assert count_parameters(network) < 490_000
    assert 0.4 < giga_operations(network) < 0.9


def test_mobile_decoder_has_the_channels_asked_for():
    network = MobileSegmenter(6, 3, decoder_channels=(40, 32, 24, 8)).eval()
    shapes = []
    for stage in (network.context, network.to_eighth, network.to_quarter, network.to_half):
        stage.register_forward_hook(lambda module, inputs, output: shapes.append(tuple(output.shape[1:])))
    with torch.no_grad():
        logits = network(torch.zeros(1, 3, 64, 64))
    assert shapes == [(40, 4, 4), (32, 8, 8), (24, 16, 16), (8, 32, 32)]
    assert logits.shape == (1, 6, 32, 32)
    with torch.no_grad():
        coarse = MobileSegmenter(6, 3, decoder_channels=(40, 32, 24)).eval()(torch.zeros(1, 3, 64, 64))
    assert coarse.shape == (1, 6, 16, 16)
    wide, named = MobileSegmenter(6, 3, width=0.5), MobileSegmenter(6, 3, width=0.5, decoder_channels=[32, 32, 24, 16])
    assert wide.state_dict().keys() == named.state_dict().keys()
    assert all(value.shape == named.state_dict()[name].shape for name, value in wide.state_dict().items())


@pytest.mark.parametrize("blocks", [7, 10, 13])
def test_mobile_encoder_computes_what_mobilenet_v2_does(blocks):
    reference = mobilenet_v2(weights=None).eval()
    encoder = MobileSegmenter(6, 3, blocks=blocks).encoder.eval()
    wanted = encoder.state_dict()
    encoder.load_state_dict({name: value for name, value in reference.state_dict().items() if name in wanted})
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        taken = encoder(images)
        expected = [reference.features[: last + 1](images) for last in (1, 3, 6, blocks)]
    assert [tuple(value.shape[2:]) for value in taken] == [(32, 32), (16, 16), (8, 8), (4, 4)]
    for value, other in zip(taken, expected, strict=True):
        assert torch.equal(value, other)


@pytest.mark.parametrize("width", [0.35, 0.5, 1.5])
def test_mobile_width_keeps_channels_multiples_of_eight(width):
    network = MobileSegmenter(6, 3, width=width)
    channels = {m.out_channels for m in network.modules() if isinstance(m, nn.Conv2d) and m is not network.head}
    assert all(count % 8 == 0 for count in channels)


@pytest.mark.parametrize(
    ("identity", "options"),
    [
        ("mobile", {"width": 0.5}),
        ("unet", {"width": 8, "depth": 3}),
        ("unet", {"width": 8, "depth": 3, "batch_norm": False}),
        ("separable-unet", {"width": 0.25}),
        ("espnetv2", {"scale": 0.5}),
    ],
)
def test_networks_start_at_equal_class_shares_and_learn_a_scene(classes, identity, options):
    # Bright rectangles are class 1; a network that learns nothing stays at log(6) = 1.79.
    target = torch.zeros(2, 32, 32, dtype=torch.int64)
    target[0, 5:20, 6:25] = 1
    target[1, 15:30, 2:15] = 1
    images = (60 + 120 * target.unsqueeze(1).expand(-1, 3, -1, -1) + 20 * torch.randn(2, 3, 32, 32)).clamp(0, 255)
    model = build_model(identity, classes, options=options).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(20):
        logits = model(images)
        loss = nn.functional.cross_entropy(logits, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(1.79, abs=0.5)
    assert losses[-1] < losses[0] / 2
    assert (logits.argmax(1) == target).float().mean() > 0.9


@pytest.mark.parametrize(
    ("identity", "options"),
    [
        ("mobile", {"blocks": 14}),
        ("mobile", {"width": 0}),
        ("unet", {"depth": 1}),
        ("unet", {"dropout": 1.5}),
        ("separable-unet", {"width": -1}),
        ("espnetv2", {"scale": 3}),
    ],
)
def test_options_out_of_range_are_refused(classes, identity, options):
    with pytest.raises(ModelError, match="must be"):
        build_model(identity, classes, options=options)
