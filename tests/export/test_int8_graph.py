from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from segshrink.classes import ClassMap
from segshrink.export.onnx import to_onnx
from segshrink.model_description import ModelDescription, Normalization
from segshrink.models import SegmentationModel, build_model
from segshrink.prediction import open_backend
from segshrink.prediction.runtimes.openvino import OpenVinoNetwork

pytest.importorskip("nncf", reason="NNCF is not installed")
import openvino

from segshrink.compression.quantization.onnx_int8 import OnnxQuantizer
from segshrink.compression.quantization.openvino_int8 import write_openvino_int8
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
    network = OpenVinoNetwork(path, model=rounded, precision="32", threads=1)
    for part in (given, given[:1], given[:, :, :30], given[:, :, :31], given[:1, :, :, :50]):
        with torch.inference_mode():
            expected = model(torch.from_numpy(part)).numpy()
        found = network.run(part, 0)
        assert 0 < np.abs(found - expected).mean() < 0.06 * expected.std()


class Bright(nn.Module):
    """Layers all of whose weights and activations are large and positive: two 8-bit products don't fit in 16 bits."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1),
                                    nn.ReLU(), nn.Conv2d(16, 3, 1))  # fmt: skip
        with torch.no_grad():
            for value in self.parameters():
                value.abs_().add_(0.5 * value.max())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layers(images)


@pytest.fixture
def bright() -> SegmentationModel:
    torch.manual_seed(0)
    description = ModelDescription("bright", CLASSES, 3, Normalization((0.0,) * 3, (255.0,) * 3), 1)
    return SegmentationModel(Bright(), description).eval()


def test_no_processor_overflows(bright: SegmentationModel, tmp_path: Path) -> None:
    """Products of unsigned and signed bytes are added by twos in 16 bits where there is no VNNI."""
    path = tmp_path / "fp32.onnx"
    path.write_bytes(to_onnx(bright).SerializeToString())
    images = torch.randint(200, 256, (1, 3, 32, 32), dtype=torch.uint8).numpy()
    expected = open_backend(path, threads=1).run(images.transpose(0, 2, 3, 1))
    quantizer = OnnxQuantizer(path.read_bytes(), list(images))
    (tmp_path / "int8.onnx").write_bytes(quantizer.serialized())
    write_openvino_int8(quantizer.model, tmp_path / "int8.xml", list(images), nodes=quantizer.nodes)
    for name, runtime in (("int8.onnx", "onnxruntime"), ("int8.onnx", "openvino"), ("int8.xml", "openvino")):
        found = open_backend(tmp_path / name, runtime=runtime, threads=1).run(images.transpose(0, 2, 3, 1))
        assert 0 < np.abs(found - expected).max() < 0.03 * np.abs(expected).max(), (name, runtime)


def test_activations_have_one_range_a_tensor_and_weights_seven_bits(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build_model("mobile", CLASSES, options={"width": 0.1, "blocks": 7}).eval()  # has depthwise convolutions
    (tmp_path / "net.onnx").write_bytes(to_onnx(model, outputs=("logits",)).SerializeToString())
    tile = np.random.default_rng(0).integers(0, 256, (1, 3, 64, 64), dtype=np.uint8)
    rounded = int8_graph(openvino.convert_model(tmp_path / "net.onnx"), [tile])
    openvino.save_model(rounded, tmp_path / "int8.xml", compress_to_fp16=False)
    operations = openvino.Core().read_model(tmp_path / "int8.xml").get_ops()
    roundings = [operation for operation in operations if operation.get_type_name() == "FakeQuantize"]
    assert len(roundings) > 10
    assert {int(np.prod(one.input(end).get_shape())) for one in roundings for end in range(1, 5)} == {1}
    depthwise, others = [], []
    for operation in operations:
        if operation.get_type_name() == "Constant" and operation.get_element_type() == openvino.Type.i8:
            weights = operation.get_data()
            (depthwise if weights.ndim == 5 else others).append(int(np.abs(weights.astype(int)).max()))
    assert max(others) == 64
    assert depthwise  # their products are added in 32 bits everywhere
