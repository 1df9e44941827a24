from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from segshrink.errors import MissingExtraError, ModelError
from segshrink.export.tflite import export_tflite
from segshrink.prediction import LiteRtBackend


def test_gives_what_torch_gives(small, tmp_path):
    pytest.importorskip("litert_torch", reason="litert-torch isn't installed")
    path = export_tflite(small, tmp_path / "small.tflite", tile=31)
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    with torch.no_grad():
        expected = small(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
    backend = LiteRtBackend(path, threads=1)
    assert backend.tile == 32
    np.testing.assert_allclose(backend.run(images), expected, atol=1e-4)


def test_a_missing_converter_names_the_extra(small, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "litert_torch", None)
    with pytest.raises(MissingExtraError, match=r"\[litert\]"):
        export_tflite(small, tmp_path / "small.tflite")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ModelError, match=r"must end in \.tflite"):
        export_tflite(small, tmp_path / "small.onnx")


def test_tiles_are_as_large_as_the_working_size_wants(small, tmp_path):
    pytest.importorskip("litert_torch", reason="litert-torch isn't installed")
    model = small.with_resize(0.5)
    backend = LiteRtBackend(export_tflite(model, tmp_path / "small.tflite", tile=31), threads=1)
    assert backend.tile == 64
    images = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
    with torch.no_grad():
        expected = model(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
    np.testing.assert_allclose(backend.run(images), expected, atol=1e-3)
