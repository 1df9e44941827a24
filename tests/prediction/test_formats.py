"""How a file's network takes pixels and what it answers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from segshrink.config import Adapter
from segshrink.errors import ModelError
from segshrink.model_description import Normalization
from segshrink.prediction.formats import InputFormat, Kind, OutputFormat
from segshrink.prediction.runtimes.network import Port, output_number
from segshrink.teachers.probabilities import one_hot_logits, two_class_logits

BYTES = InputFormat(
    "net.tflite",
    Normalization((127.5,), (127.5,)),
    layout="NHWC",
    dtype=np.dtype(np.uint8),
    quantization=(1 / 64, 64),
)
PIXELS = np.array([0.0, 127.5, 191.25, 255.0], np.float32).reshape(1, 1, 1, 4)


def test_quantized_networks_take_scaled_pixels_by_their_scale_and_zero_point() -> None:
    # -1, 0, 0.5 and 1, 64 steps to one, from 64; the array is (N, h, w, bands)
    assert BYTES.array(PIXELS).shape == (1, 1, 4, 1)
    assert BYTES.array(PIXELS).ravel().tolist() == [0, 64, 96, 128]
    signed = replace(BYTES, dtype=np.dtype(np.int8), quantization=(1 / 128, 0))
    assert signed.array(PIXELS).ravel().tolist() == [-128, 0, 64, 127]
    assert signed.array(PIXELS).dtype == np.int8


def test_networks_of_bytes_without_scaling_take_the_pixels_themselves() -> None:
    raw = replace(BYTES, scaling=Normalization((0.0,), (1.0,)), quantization=None)
    pixels = np.array([0, 7, 255], np.uint8).reshape(1, 1, 1, 3)
    assert raw.array(pixels).ravel().tolist() == [0, 7, 255]
    assert replace(raw, dtype=np.dtype(np.int8)).array(pixels).ravel().tolist() == [-128, -121, 127]
    with pytest.raises(ModelError, match=r"takes 8-bit pixels \(0 to 255\), found 0 to 300"):
        raw.array(np.array([0.0, 300.0]).reshape(1, 1, 1, 2))


def test_half_precision_and_order_are_kept() -> None:
    half = replace(BYTES, dtype=np.dtype(np.float16), layout="NCHW", quantization=None)
    assert half.array(PIXELS).dtype == np.float16
    assert half.array(PIXELS).ravel().tolist() == [-1.0, 0.0, 0.5, 1.0]
    four = InputFormat("net", Normalization((0.0,) * 4, (1.0,) * 4), bgr=True)
    assert four.array(np.arange(4).reshape(1, 4, 1, 1)).ravel().tolist() == [2, 1, 0, 3]


def reader(classes: int, quantization: tuple[float, int] | None, *, kind: Kind = "auto") -> OutputFormat:
    port = Port("scores", (1, None, None, classes), np.dtype(np.uint8), quantization)
    return OutputFormat("net.tflite", kind, classes, 3, port)


def test_integers_become_the_numbers_they_stand_for() -> None:
    raw = np.array([0, 100, 255], np.uint8).reshape(1, 1, 1, 3)
    assert reader(3, (0.5, 100)).logits(raw).ravel().tolist() == [-50.0, 0.0, 77.5]


def test_probabilities_are_recognized_though_they_were_rounded() -> None:
    scores = np.random.default_rng(0).normal(size=(1, 8, 8, 21)).astype(np.float32)
    probabilities = torch.from_numpy(scores).softmax(3).numpy()
    raw = (probabilities * 256).round().clip(max=255).astype(np.uint8)
    quantized = reader(21, (1 / 256, 0))
    softmax = torch.from_numpy(quantized.logits(raw)).softmax(1).permute(0, 2, 3, 1).numpy()
    assert quantized.returns_probabilities
    assert np.abs(softmax - probabilities).max() < 0.02
    exact = reader(21, None)
    assert exact.returns_probabilities is None
    exact.logits(probabilities)
    assert exact.returns_probabilities
    assert reader(21, None).logits(scores).shape == (1, 21, 8, 8)


def test_one_channel_and_labels_give_what_torch_gives() -> None:
    scores = np.random.default_rng(0).normal(size=(2, 3, 4, 1)).astype(np.float32)
    chances = 1 / (1 + np.exp(-scores))
    for values, probable in ((scores, False), (chances, True)):
        expected = two_class_logits(torch.from_numpy(values).permute(0, 3, 1, 2), probabilities=probable)
        np.testing.assert_allclose(reader(2, None).logits(values), expected.numpy(), atol=1e-5)
    labels = np.random.default_rng(0).integers(0, 5, (2, 3, 4, 1))
    expected = one_hot_logits(torch.from_numpy(labels)[..., 0], 5, 0.9, "net")
    np.testing.assert_allclose(reader(5, None, kind="labels").logits(labels), expected.numpy(), rtol=1e-6)
    with pytest.raises(ModelError, match=r"net\.tflite answers with the class number 4, but it has 4 classes"):
        reader(4, None, kind="labels").logits(labels)


def test_what_has_other_axes_than_expected_is_refused() -> None:
    with pytest.raises(ModelError, match=r"'scores' answers \(1, 4, 4\), expected \(N, h, w, 3\)"):
        reader(3, None).logits(np.zeros((1, 4, 4)))
    with pytest.raises(ModelError, match=r"'scores' answers \(1, 4, 4, 5\), expected \(N, h, w, 1\)"):
        reader(3, None, kind="labels").logits(np.zeros((1, 4, 4, 5)))


def test_a_single_class_has_one_answer() -> None:
    assert one_hot_logits(torch.zeros(1, 2, 2), 1, 0.9, "net").tolist() == [[[[0.0, 0.0], [0.0, 0.0]]]]
    with pytest.raises(ModelError, match=r"net answers with the class number -1, but it has 4 classes \(0 to 3\)"):
        one_hot_logits(torch.full((1, 2, 2), -1), 4, 0.9, "net")


@pytest.mark.parametrize(
    ("outputs", "adapter", "number", "noticed"),
    [
        (("aux", "out"), {}, 1, False),
        (("aux", "seg"), {}, 0, True),
        (("aux", "seg"), {"output_name": "seg"}, 1, False),
        (("aux", "seg"), {"output_name": 0}, 0, False),
        (("seg",), {}, 0, False),
    ],
)
def test_of_several_outputs_the_usual_name_counts_or_the_choice_is_said(
    caplog: pytest.LogCaptureFixture, outputs: tuple[str, ...], adapter: dict[str, Any], number: int, noticed: bool
) -> None:
    network: Any = SimpleNamespace(path=Path("net.onnx"), outputs=outputs)
    assert output_number(network, Adapter(**adapter)) == number
    assert ("net.onnx answers with aux, seg; 'aux' is taken" in caplog.text) is noticed
