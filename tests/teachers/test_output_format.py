from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from segshrink.errors import ModelError
from segshrink.teachers.output_format import AnswerReader, one_hot_logits
from segshrink.teachers.runtimes import Port


def reader(classes: int, quantization: tuple[float, int] | None, *, kind: str = "auto") -> AnswerReader:
    port = Port("scores", (1, None, None, classes), np.dtype(np.uint8), quantization)
    return AnswerReader(Path("net.tflite"), port, 0, classes, 3, kind, 0.9)  # type: ignore[arg-type]


def test_integers_become_the_numbers_they_stand_for() -> None:
    raw = np.array([[0, 100, 255]], np.uint8).reshape(1, 1, 1, 3)
    assert reader(3, (0.5, 100)).logits(raw).ravel().tolist() == [-50.0, 0.0, 77.5]


def test_probabilities_are_recognised_though_they_were_rounded() -> None:
    rng = np.random.default_rng(0)
    probabilities = torch.from_numpy(rng.normal(size=(1, 21, 8, 8)).astype(np.float32)).softmax(1)
    raw = (probabilities * 256).round().clamp(max=255).byte().permute(0, 2, 3, 1).numpy()
    quantised = reader(21, (1 / 256, 0))
    found = quantised.logits(raw).softmax(1)
    assert quantised.kind == "probabilities"
    assert (found - probabilities).abs().max() < 0.02
    exact = reader(21, None)
    exact.logits(probabilities.permute(0, 2, 3, 1).numpy())
    assert exact.kind == "probabilities"


def test_what_has_other_axes_than_expected_is_refused() -> None:
    with pytest.raises(ModelError, match=r"'scores' answers \(1, 4, 4\), expected \(N, h, w, 3\)"):
        reader(3, None).logits(np.zeros((1, 4, 4), np.uint8))
    with pytest.raises(ModelError, match=r"'scores' answers \(1, 4, 4, 5\), expected \(N, h, w, 1\)"):
        reader(3, None, kind="labels").logits(np.zeros((1, 4, 4, 5), np.uint8))


def test_a_single_class_has_one_answer() -> None:
    assert one_hot_logits(torch.zeros(1, 2, 2), 1, 0.9, "net").tolist() == [[[[0.0, 0.0], [0.0, 0.0]]]]
    with pytest.raises(ModelError, match=r"net answers with the class number -1, but it has 4 classes \(0 to 3\)"):
        one_hot_logits(torch.full((1, 2, 2), -1), 4, 0.9, "net")
