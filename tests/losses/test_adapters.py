"""Adapters between the channels of student and teacher."""

from __future__ import annotations

import pytest
import torch

from segshrink.errors import ModelError
from segshrink.losses import ChannelAdapter


def test_adapter_mixes_channels_pixel_by_pixel():
    adapter = ChannelAdapter(3, 2)
    features = torch.randn(2, 3, 4, 5)
    expected = torch.einsum("ts,nshw->nthw", adapter.weight[:, :, 0, 0], features)
    torch.testing.assert_close(adapter(features), expected)
    assert list(adapter.state_dict()) == ["weight"]


def test_adapter_refuses_a_side_without_channels():
    with pytest.raises(ModelError, match="at least 1 channel on both sides, found student_channels=3 and"):
        ChannelAdapter(3, 0)
