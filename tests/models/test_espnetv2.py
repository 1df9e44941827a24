"""ESPNetv2: the published weights fit it tensor by tensor and segment what they learned."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from segshrink.classes import VOC_CLASSES, ClassMap
from segshrink.compression.pruning.prune import prune
from segshrink.errors import ModelError
from segshrink.imagery import read_image, read_mask
from segshrink.models import build_model, count_parameters, list_roles, load_encoder_weights, load_model
from segshrink.models.espnetv2 import DilatedPyramid, ESPNetV2
from segshrink.models.weights import read_tensors

# Parameters of the authors' network for 21 classes, counted with their code.
PUBLISHED = {1.0: 234_021, 1.5: 468_373, 2.0: 789_253}


@pytest.fixture
def published(shared_weights: Path) -> Path:
    return shared_weights / "espnetv2_s_1.0_pascal_384x384.pth"


@pytest.mark.parametrize(("scale", "parameters"), PUBLISHED.items())
def test_size_is_the_published_one(scale: float, parameters: int) -> None:
    assert count_parameters(ESPNetV2(21, 3, scale=scale)) == parameters


def test_encoder_has_the_papers_channels_and_strides() -> None:
    """Table 1 at scale 0.5: half of 32, 64, 128 and 256."""
    with torch.no_grad():
        features = ESPNetV2(2, 4, scale=0.5).eval().encoder(torch.zeros(1, 4, 64, 96))
    assert [tuple(value.shape[1:]) for value in features] == [(16, 32, 48), (32, 16, 24), (64, 8, 12), (128, 4, 6)]


def test_a_pyramid_adds_its_branches_up() -> None:
    """A spike meets every dilation: with filters of ones, branch i holds what branches 0 to i see of it."""
    pyramid = DilatedPyramid(16, 16, (1, 2, 3, 4)).eval()
    image = torch.zeros(1, 16, 11, 11)
    image[:, :, 5, 5] = 1
    with torch.no_grad():
        for parameter in pyramid.parameters():
            if parameter.ndim == 4:
                parameter.fill_(1.0)
        mixed = []
        pyramid.br_after_cat.register_forward_hook(lambda module, inputs, output: mixed.append(inputs[0]))
        pyramid(image)
    branches = mixed[0][0].unflatten(0, (4, 4))[:, 0]
    reached = [{tuple(place) for place in branch.nonzero().tolist()} for branch in branches]
    around = [{(5 + d * row, 5 + d * col) for row in (-1, 0, 1) for col in (-1, 0, 1)} for d in (1, 2, 3, 4)]
    assert reached == [set().union(*around[: number + 1]) for number in range(4)]
    assert branches[:, 5, 5].round().tolist() == [4, 8, 12, 16]  # a group of four channels was summed before


def test_what_strided_pyramids_never_use_asks_for_no_gradient() -> None:
    """Distributed training refuses parameters that get none."""
    network = ESPNetV2(2, 3, scale=0.5).train()
    network(torch.randn(2, 3, 64, 64)).sum().backward()
    assert all((value.grad is not None) == value.requires_grad for value in network.parameters())


def test_memory_order_changes_nothing(classes: ClassMap) -> None:
    model = build_model("espnetv2", classes, options={"scale": 0.5}).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.fill_(4.0)
    images = torch.randint(0, 256, (1, 3, 70, 90), dtype=torch.uint8)
    with torch.no_grad():
        expected = model(images)
        found = model.to(memory_format=torch.channels_last)(images.contiguous(memory_format=torch.channels_last))
    assert (found - expected).abs().max() < 1e-4 * expected.abs().max()


def test_roles(classes: ClassMap) -> None:
    roles = {role.name: role for role in list_roles(build_model("espnetv2", classes))}
    assert roles["encoder"].path == "network.base_net#3"
    assert [roles[f"stage:{stage}"].shape[0] for stage in (1, 2, 3, 4)] == [32, 64, 128, 256]
    assert roles["decoder"].shape == (10, 32, 32)


def test_channel_shuffling_refuses_pruning(classes: ClassMap) -> None:
    model = build_model("espnetv2", classes, options={"scale": 0.5})
    with pytest.raises(ModelError, match="folds its features behind"):
        prune(model, ratio=0.2, steps=1)


def test_published_weights_segment_a_photo(published: Path, shared_data: Path) -> None:
    model = load_model(published)
    assert model.description.options == {"scale": 1.0}
    assert model.description.classes.names == VOC_CLASSES
    assert model.description.normalization.mean == pytest.approx([123.675, 116.28, 103.53])
    tensors, own = read_tensors(published), model.network.state_dict()
    assert all(torch.equal(own[name], value) for name, value in tensors.items())
    assert tensors.keys() == own.keys()
    voc = shared_data / "VOCdevkit" / "VOC2012"
    name = (voc / "ImageSets" / "Segmentation" / "val.txt").read_text().split()[0]
    image = torch.from_numpy(read_image(voc / "JPEGImages" / f"{name}.jpg")).permute(2, 0, 1)[None]
    with torch.no_grad():
        found = model(image)[0].argmax(0).numpy()
    indices = ClassMap.build([(each, None, number) for number, each in enumerate(VOC_CLASSES)])
    truth = read_mask(voc / "SegmentationClass" / f"{name}.png", indices)
    assert (found == truth)[truth != 255].mean() > 0.85
    present = set(np.unique(truth)) - {255}
    assert present <= set(np.unique(found))


def test_an_encoder_starts_from_published_weights_with_any_bands(published: Path, classes: ClassMap) -> None:
    """Every convolution of the image is fitted: its bands are repeated in turn and scaled."""
    network = build_model("espnetv2", classes, bands=4, encoder_weights=published).network
    tensors = read_tensors(published)
    for name in ("level1.conv.weight", "level4_0.inp_reinf.0.conv.weight"):
        expected = tensors[f"base_net.{name}"][:, [0, 1, 2, 0]] * 0.75
        assert torch.allclose(network.encoder.state_dict()[name], expected)
    with pytest.raises(ModelError, match="fits"):
        load_encoder_weights(ESPNetV2(2, 3, scale=0.5), published)


def test_weights_of_another_network_are_no_model(tmp_path: Path) -> None:
    torch.save({"layer.weight": torch.zeros(2, 2)}, tmp_path / "other.pth")
    with pytest.raises(ModelError, match=r"other\.pth holds the weights of a network and not how it is built"):
        load_model(tmp_path / "other.pth")
