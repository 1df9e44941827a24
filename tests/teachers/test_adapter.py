from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from segshrink.errors import ModelError
from segshrink.teachers.adapter import Intake

BYTES = Intake(
    path="net.tflite",
    layout="NHWC",
    size=None,
    dtype=np.dtype(np.uint8),
    bgr=False,
    mean=(127.5,),
    std=(127.5,),
    quantization=(1 / 64, 64),
)
PIXELS = torch.tensor([0.0, 127.5, 191.25, 255.0]).view(1, 1, 1, 4)


def test_quantised_networks_take_scaled_pixels_by_their_scale_and_zero_point() -> None:
    # -1, 0, 0.5 and 1, 64 steps to one, from 64; the array is (N, h, w, bands)
    assert BYTES.array(PIXELS).ravel().tolist() == [0, 64, 96, 128]
    signed = replace(BYTES, dtype=np.dtype(np.int8), quantization=(1 / 128, 0))
    assert signed.array(PIXELS).ravel().tolist() == [-128, 0, 64, 127]
    assert signed.array(PIXELS).dtype == np.int8


def test_networks_of_bytes_without_scaling_take_the_pixels_themselves() -> None:
    raw = replace(BYTES, mean=(0.0,), std=(1.0,), quantization=None)
    pixels = torch.tensor([0, 7, 255], dtype=torch.uint8).view(1, 1, 1, 3)
    assert raw.array(pixels).ravel().tolist() == [0, 7, 255]
    assert replace(raw, dtype=np.dtype(np.int8)).array(pixels).ravel().tolist() == [-128, -121, 127]
    with pytest.raises(ModelError, match=r"takes 8-bit pixels \(0 to 255\), found 0 to 300"):
        raw.array(torch.tensor([0.0, 300.0]).view(1, 1, 1, 2))


def test_half_precision_is_kept() -> None:
    half = replace(BYTES, dtype=np.dtype(np.float16), layout="NCHW", quantization=None)
    array = half.array(PIXELS)
    assert array.dtype == np.float16
    assert array.ravel().tolist() == [-1.0, 0.0, 0.5, 1.0]
