"""Networks that are quick to export."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from segshrink.classes import ClassMap
from segshrink.model_description import ModelDescription, Normalization
from segshrink.models import SegmentationModel


class Small(nn.Module):
    """Two convolutions, the second on half the size, so that padding matters."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 4, 3, padding=1, stride=2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(images).relu())


@pytest.fixture(scope="session")
def small() -> SegmentationModel:
    """A model of four classes at 0.3 m per pixel, of stride 2."""
    torch.manual_seed(0)
    entries = [("water", "#0000FF", None), ("open | land", "#00FF00", None), ("roof", None, None), ("*", None, None)]
    normalization = Normalization((10.0, 100.0, 200.0), (20.0, 40.0, 80.0))
    description = ModelDescription("small", ClassMap.build(entries), 3, normalization, 2, resolution=0.3)
    return SegmentationModel(Small(), description).eval()
