"""Networks that average over fixed numbers of cells are exported right at any size."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from segshrink.export import export_onnx, export_openvino
from segshrink.models import SegmentationModel
from segshrink.models.espnetv2 import ScalePyramid
from segshrink.prediction import OnnxBackend, OpenVinoBackend


class Pyramid(nn.Module):
    """A pyramid of averages as in PSPNet and UPerNet, of modules and of functions, square and oblong."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1, stride=2)
        self.pools = nn.ModuleList([nn.AdaptiveAvgPool2d(cells) for cells in (1, 2, 6)])

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.first(images)
        pooled = [pool(features) for pool in self.pools]
        pooled.append(F.adaptive_avg_pool2d(features, (3, 5)))
        # As many cells as the size of the image says.
        pooled.append(F.adaptive_avg_pool2d(features, [side // 3 + 1 for side in features.shape[2:]]))
        whole = [F.interpolate(part, size=features.shape[2:], mode="bilinear") for part in pooled]
        return features + sum(whole)


@pytest.fixture(scope="module")
def scales(small) -> SegmentationModel:
    """The head of ESPNetv2, whose number of cells is a tenth of the image's, at least five."""
    torch.manual_seed(0)
    classes = len(small.description.classes)
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, stride=2), ScalePyramid(4, classes, is_head=True))
    return SegmentationModel(network, replace(small.description, stride=4)).eval()


@pytest.fixture(scope="module")
def pyramid(small) -> SegmentationModel:
    torch.manual_seed(0)
    return SegmentationModel(Pyramid(), small.description).eval()


@pytest.mark.parametrize(("network", "runtime"), [("pyramid", "onnx"), ("pyramid", "openvino"), ("scales", "onnx")])
def test_a_pyramid_of_averages_gives_what_torch_gives_at_any_size(network, runtime, tmp_path, request):
    pyramid = request.getfixturevalue(network)
    if runtime == "onnx":
        backend = OnnxBackend(export_onnx(pyramid, tmp_path / "p.onnx"), threads=1)
    else:
        backend = OpenVinoBackend(export_openvino(pyramid, tmp_path / "p.xml"), precision="32", threads=1)
    for size in ((1, 1, 1), (2, 8, 6), (1, 33, 130), (3, 12, 12)):
        images = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
        with torch.no_grad():
            expected = pyramid(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
        np.testing.assert_allclose(backend.run(images), expected, atol=2e-5)
