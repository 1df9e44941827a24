"""How a network takes pixels and what it answers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from segshrink.errors import ModelError
from segshrink.model_description import Normalization
from segshrink.prediction.runtimes.network import Port
from segshrink.teachers.adapter import InputFormat, OutputFormat
from segshrink.teachers.probabilities import one_hot_logits

BYTES = InputFormat(
    "net.tflite",
    Normalization((127.5,), (127.5,)),
    layout="NHWC",
    dtype=np.dtype(np.uint8),
    quantization=(1 / 64, 64),
)
PIXELS = torch.tensor([0.0, 127.5, 191.25, 255.0]).view(1, 1, 1, 4)


def test_quantized_networks_take_scaled_pixels_by_their_scale_and_zero_point() -> None:
    # -1, 0, 0.5 and 1, 64 steps to one, from 64; the tensor is (N, h, w, bands)
    assert BYTES.tensor(PIXELS).shape == (1, 1, 4, 1)
    assert BYTES.tensor(PIXELS).ravel().tolist() == [0, 64, 96, 128]
    signed = replace(BYTES, dtype=np.dtype(np.int8), quantization=(1 / 128, 0))
    assert signed.tensor(PIXELS).ravel().tolist() == [-128, 0, 64, 127]
    assert signed.tensor(PIXELS).dtype == torch.int8


def test_networks_of_bytes_without_scaling_take_the_pixels_themselves() -> None:
    raw = replace(BYTES, scaling=Normalization((0.0,), (1.0,)), quantization=None)
    pixels = torch.tensor([0, 7, 255], dtype=torch.uint8).view(1, 1, 1, 3)
    assert raw.tensor(pixels).ravel().tolist() == [0, 7, 255]
    assert replace(raw, dtype=np.dtype(np.int8)).tensor(pixels).ravel().tolist() == [-128, -121, 127]
    with pytest.raises(ModelError, match=r"takes 8-bit pixels \(0 to 255\), found 0 to 300"):
        raw.tensor(torch.tensor([0.0, 300.0]).view(1, 1, 1, 2))


def test_half_precision_is_kept() -> None:
    half = replace(BYTES, dtype=np.dtype(np.float16), layout="NCHW", quantization=None)
    assert half.tensor(PIXELS).dtype == torch.float16
    assert half.tensor(PIXELS).ravel().tolist() == [-1.0, 0.0, 0.5, 1.0]


def reader(classes: int, quantization: tuple[float, int] | None, *, kind: str = "auto") -> OutputFormat:
    port = Port("scores", (1, None, None, classes), np.dtype(np.uint8), quantization)
    return OutputFormat("net.tflite", kind, classes, axis=3, port=port)  # type: ignore[arg-type]


def test_integers_become_the_numbers_they_stand_for() -> None:
    raw = torch.tensor([[0, 100, 255]], dtype=torch.uint8).reshape(1, 1, 1, 3)
    assert reader(3, (0.5, 100)).logits(raw).ravel().tolist() == [-50.0, 0.0, 77.5]


def test_probabilities_are_recognized_though_they_were_rounded() -> None:
    rng = np.random.default_rng(0)
    probabilities = torch.from_numpy(rng.normal(size=(1, 21, 8, 8)).astype(np.float32)).softmax(1)
    raw = (probabilities * 256).round().clamp(max=255).byte().permute(0, 2, 3, 1)
    quantized = reader(21, (1 / 256, 0))
    softmax = quantized.logits(raw).softmax(1)
    assert quantized.returns_probabilities
    assert (softmax - probabilities).abs().max() < 0.02
    exact = reader(21, None)
    assert exact.returns_probabilities is None
    exact.logits(probabilities.permute(0, 2, 3, 1))
    assert exact.returns_probabilities


def test_what_has_other_axes_than_expected_is_refused() -> None:
    with pytest.raises(ModelError, match=r"'scores' answers \(1, 4, 4\), expected \(N, h, w, 3\)"):
        reader(3, None).logits(torch.zeros(1, 4, 4))
    with pytest.raises(ModelError, match=r"'scores' answers \(1, 4, 4, 5\), expected \(N, h, w, 1\)"):
        reader(3, None, kind="labels").logits(torch.zeros(1, 4, 4, 5))


def test_a_single_class_has_one_answer() -> None:
    assert one_hot_logits(torch.zeros(1, 2, 2), 1, 0.9, "net").tolist() == [[[[0.0, 0.0], [0.0, 0.0]]]]
    with pytest.raises(ModelError, match=r"net answers with the class number -1, but it has 4 classes \(0 to 3\)"):
        one_hot_logits(torch.full((1, 2, 2), -1), 4, 0.9, "net")
