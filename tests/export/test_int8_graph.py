from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from segshrink.classes import ClassMap
from segshrink.export.onnx import to_onnx
from segshrink.models import SegmentationModel, build_model
from segshrink.models.normalization import Normalization
from segshrink.prediction.openvino_graphs import OpenVinoGraphs

pytest.importorskip("nncf", reason="NNCF is not installed")
import openvino

from segshrink.export.int8_graph import int8_graph

CLASSES = ClassMap.build([("Land", None, None), ("Water", None, None), ("Road", None, None)])


@pytest.fixture
def images() -> NDArray[np.uint8]:
    coarse = torch.rand(2, 3, 6, 8, generator=torch.Generator().manual_seed(1)) * 255
    return torch.nn.functional.interpolate(coarse, size=(45, 70), mode="bilinear").to(torch.uint8).numpy()


@pytest.fixture
def model() -> SegmentationModel:
    torch.manual_seed(0)
    each_its_own = Normalization((110.0, 120.0, 90.0), (60.0, 50.0, 70.0))
    model = build_model("unet", CLASSES, options={"width": 8, "depth": 2}, normalization=each_its_own)
    with torch.no_grad():
        model.train()(torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8))
    return model.eval()


@pytest.mark.parametrize("float_pixels", [False, True])
def test_8_bits_answer_nearly_the_same_whatever_the_size(
    model: SegmentationModel, images: NDArray[np.uint8], tmp_path: Path, float_pixels: bool
) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(to_onnx(model, outputs=("logits",), float_pixels=float_pixels).SerializeToString())
    given: NDArray[Any] = images.astype(np.float32) if float_pixels else images
    graph = openvino.convert_model(path)
    rounded = int8_graph(graph, [given[:1], given[1:]])
    assert "FakeQuantize" not in {operation.get_type_name() for operation in graph.get_ops()}
    assert "FakeQuantize" in {operation.get_type_name() for operation in rounded.get_ops()}
    graphs = OpenVinoGraphs(rounded, name="net", precision="32", threads=1)
    for part in (given, given[:1], given[:, :, :30], given[:, :, :31], given[:1, :, :, :50]):
        with torch.inference_mode():
            expected = model(torch.from_numpy(part)).numpy()
        found = graphs.run(part, 0)
        assert 0 < np.abs(found - expected).mean() < 0.06 * expected.std()
