from __future__ import annotations

import json

import numpy as np
import openvino
import pytest
import torch
from torch import nn

from segshrink import files
from segshrink.errors import FileError, ModelError
from segshrink.export import export_openvino
from segshrink.model_description import ModelDescription
from segshrink.models import SegmentationModel
from segshrink.prediction import OpenVinoBackend


class Cheat(nn.Module):
    """Gives something else while it is exported."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        factor = 1.01 if torch.compiler.is_exporting() else 1.0
        return torch.cat([images, images[:, :1]], dim=1) * factor


@pytest.fixture(scope="module")
def file(small, tmp_path_factory):
    return export_openvino(small, tmp_path_factory.mktemp("openvino") / "small.xml")


@pytest.mark.parametrize("size", [(1, 1, 1), (2, 8, 6), (3, 9, 31)])
def test_gives_what_torch_gives_at_any_size(small, file, size):
    images = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    with torch.no_grad():
        expected = small(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
    backend = OpenVinoBackend(file, precision="32", threads=1)
    for _ in range(2):
        np.testing.assert_allclose(backend.run(images), expected, atol=1e-5)
        np.testing.assert_array_equal(backend.classify(images), expected.argmax(axis=1))


def test_files_describe_the_model(small, file):
    assert sorted(path.name for path in file.parent.iterdir()) == ["small.bin", "small.xml"]
    text = openvino.Core().read_model(file).get_rt_info(["segshrink"]).astype(str)
    assert ModelDescription.from_dict(json.loads(text)) == small.description
    assert b"/segshrink/" not in file.read_bytes()


def test_half_weights_take_half_the_room(small, file, tmp_path):
    half = export_openvino(small, tmp_path / "half.xml", outputs=("classes",), half=True)
    assert half.with_suffix(".bin").stat().st_size < 0.6 * file.with_suffix(".bin").stat().st_size
    assert OpenVinoBackend(half, threads=1).outputs == ("classes",)


def test_wrong_files_are_not_written(small, tmp_path):
    cheat = SegmentationModel(Cheat(), small.description)
    with pytest.raises(ModelError, match=r"wrong\.xml was not written: .* OpenVINO's logits differ"):
        export_openvino(cheat, tmp_path / "wrong.xml")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ModelError, match=r"must end in \.xml"):
        export_openvino(small, tmp_path / "model.onnx")


def test_an_xml_alone_says_what_is_missing(file, tmp_path):
    (tmp_path / "alone.xml").write_bytes(file.read_bytes())
    with pytest.raises(FileError, match=r"alone\.bin is missing"):
        OpenVinoBackend(tmp_path / "alone.xml")


def test_an_export_that_is_killed_leaves_no_graph_with_older_weights(small, tmp_path, monkeypatch):
    path = export_openvino(small, tmp_path / "small.xml", outputs=("classes",))
    real = files._move

    def killed(source, target, *, aside):
        if target.suffix == ".bin":
            raise KeyboardInterrupt
        real(source, target, aside=aside)

    with monkeypatch.context() as patched:
        patched.setattr(files, "_move", killed)
        with pytest.raises(KeyboardInterrupt):
            export_openvino(small, path)
    with pytest.raises(FileError, match=r"small\.bin is missing"):
        OpenVinoBackend(path)
    assert OpenVinoBackend(export_openvino(small, path)).outputs == ("logits", "classes")
