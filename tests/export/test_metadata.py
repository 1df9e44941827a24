"""What QGIS's plugin Deepness makes of a file: its own steps, repeated here in numpy."""

from __future__ import annotations

import json

import numpy as np
import onnxruntime
import torch

from segshrink.export import export_onnx
from segshrink.export.metadata import describe_onnx
from segshrink.prediction import OnnxBackend


def as_deepness_does(path, images):
    """Its ``ModelBase.process`` and the class choice of its ``MapProcessorSegmentation``, without a threshold."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map
    mean, std = (np.array(json.loads(metadata[f"standardization_{name}"]), np.float32) for name in ("mean", "std"))
    batch = (np.float32(images * 1.0 / 255.0) - mean) / std
    (answer,) = session.run(None, {session.get_inputs()[0].name: batch.transpose(0, 3, 1, 2)})
    return session, metadata, answer


def test_deepness_gets_the_models_probabilities(small, tmp_path):
    path = export_onnx(small, tmp_path / "small.onnx", outputs=("probabilities",), float_pixels=True)
    images = np.random.default_rng(0).integers(0, 256, (2, 10, 12, 3), dtype=np.uint8)
    session, metadata, found = as_deepness_does(path, images)
    with torch.no_grad():
        expected = small(torch.from_numpy(images).permute(0, 3, 1, 2)).softmax(1).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert json.loads(metadata["model_type"]) == "Segmentor"
    assert json.loads(metadata["class_names"]) == {"0": "water", "1": "open | land", "2": "roof", "3": "*"}
    assert json.loads(metadata["resolution"]) == 30  # centimeters
    assert isinstance(json.loads(metadata["tile_size"]), int)
    assert [output.shape[-3] for output in session.get_outputs()] == [4]
    backend = OnnxBackend(path, threads=1)
    np.testing.assert_array_equal(backend.classify(images), expected.argmax(axis=1))


def test_files_for_bytes_name_no_standardization(small):
    entries = describe_onnx(small.description, takes_bytes=True)
    assert not [key for key in entries if key.startswith("standardization")]
    assert json.loads(entries["class_colors"])["0"] == "#0000FF"
