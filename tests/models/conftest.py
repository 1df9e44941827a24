from __future__ import annotations

import pytest
import torch

from segshrink.classes import ClassMap


@pytest.fixture
def classes() -> ClassMap:
    return ClassMap.build([(name, None, None) for name in ("Building", "Land", "Road", "Vegetation", "Water", "Other")])


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
