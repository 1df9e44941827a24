from __future__ import annotations

import pytest

from segshrink.classes import ClassMap
from segshrink.errors import ModelError
from segshrink.models import ModelDescription, Normalization


def described(**changes):
    classes = ClassMap.build([("a", None, None), ("b", None, None)])
    return ModelDescription("unet", classes, 1, Normalization((0.0,), (1.0,)), 8, **changes)


def test_the_resolution_is_kept_and_may_be_absent():
    description = described(resolution=0.3)
    assert ModelDescription.from_dict(description.to_dict()) == description
    older = described().to_dict()
    del older["resolution"]
    assert ModelDescription.from_dict(older).resolution is None


@pytest.mark.parametrize("resolution", [0.0, -1.0, float("nan"), float("inf")])
def test_a_senseless_resolution_says_so(resolution):
    with pytest.raises(ModelError, match="metres per pixel"):
        described(resolution=resolution)
