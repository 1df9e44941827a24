from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from timm.layers import create_conv2d, create_pool2d
from timm.layers.padding import get_same_padding
from torch import nn

from segshrink.classes import ClassMap
from segshrink.errors import FileError, ModelError
from segshrink.export import export_onnx
from segshrink.export.export import export
from segshrink.model_description import ModelDescription, Normalization
from segshrink.models import SegmentationModel, build_model
from segshrink.prediction import OnnxBackend, open_backend

CLASSES = ClassMap.build([("water", "#0000FF", None), ("land", "#00FF00", None), ("road", "#FF0000", None)])


def model_of(network, *, stride=1, dtype="uint8"):
    normalization = Normalization((10.0, 100.0, 200.0), (2.0, 4.0, 8.0))
    return SegmentationModel(network, ModelDescription("own", CLASSES, 3, normalization, stride, dtype=dtype))


class Difference(nn.Module):
    """Image minus its own maximum over blocks of 4 x 4: joins two branches, as U-Nets do, without any weight."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        coarse = nn.functional.max_pool2d(images, 4)
        return images - nn.functional.interpolate(coarse, scale_factor=4.0, mode="nearest")


def difference_by_hand(images):
    """The same in numpy: normalize, repeat the edge to a multiple of 4 and to 8 at least, subtract, crop."""
    normal = (images.astype(np.float64) - np.array([10, 100, 200])) / np.array([2, 4, 8])
    height, width = images.shape[1:3]
    rows = np.minimum(np.arange(max(8, (height + 3) // 4 * 4)), height - 1)
    cols = np.minimum(np.arange(max(8, (width + 3) // 4 * 4)), width - 1)
    padded = normal[:, rows][:, :, cols]
    count, tall, wide, bands = padded.shape
    blocks = padded.reshape(count, tall // 4, 4, wide // 4, 4, bands)
    result = (blocks - blocks.max(axis=(2, 4), keepdims=True)).reshape(padded.shape)
    return result[:, :height, :width].transpose(0, 3, 1, 2)


@pytest.fixture(scope="module")
def unet():
    torch.manual_seed(0)
    model = build_model("unet", CLASSES, options={"width": 8, "depth": 3})
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
    return model.train()


@pytest.fixture(scope="module")
def unet_file(unet, tmp_path_factory):
    return export_onnx(unet, tmp_path_factory.mktemp("export") / "unet.onnx")


@pytest.mark.parametrize("size", [(1, 1, 1), (2, 8, 8), (3, 9, 31), (1, 250, 333)])
def test_plain_runtime_gives_what_is_computed_by_hand(tmp_path_factory, size):
    path = tmp_path_factory.getbasetemp() / "difference.onnx"
    if not path.exists():
        export_onnx(model_of(Difference(), stride=4), path)
    images = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (found,) = session.run(["logits"], {"images": images.transpose(0, 3, 1, 2)})
    np.testing.assert_allclose(found, difference_by_hand(images), atol=1e-4)


def test_real_network_agrees_with_torch_at_other_sizes(unet, unet_file):
    backend = OnnxBackend(unet_file, threads=1)
    unet.eval()
    for size in ((1, 61, 90), (2, 4, 64), (5, 33, 33)):
        images = np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)
        with torch.no_grad():
            expected = unet(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
        np.testing.assert_allclose(backend.run(images), expected, atol=1e-4)


class SamePadded(nn.Module):
    """Layers of timm's with TensorFlow's padding: of stride 2, dilated, and a pool."""

    def __init__(self) -> None:
        super().__init__()
        self.down = create_conv2d(3, 4, 3, stride=2, padding="same")
        self.wide = create_conv2d(4, 3, 5, stride=1, dilation=2, padding="same")
        self.pool = create_pool2d("max", 3, stride=2, padding="same")

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.pool(self.wide(self.down(images)))


def test_tensorflows_padding_becomes_constants(tmp_path):
    torch.manual_seed(0)
    model = model_of(SamePadded(), stride=4)
    file = export_onnx(model, tmp_path / "same.onnx")
    graph = onnx.load(file).graph
    constants = {tensor.name for tensor in graph.initializer}
    constants |= {node.output[0] for node in graph.node if node.op_type == "Constant"}
    # Of the layers with a stride; images are padded by what the graph computes from their size.
    pads = [node for node in graph.node if node.op_type == "Pad" and len(node.input) > 1 and node.input[1] in constants]
    assert len(pads) == 2
    images = np.random.default_rng(0).integers(0, 256, (2, 13, 21, 3), dtype=np.uint8)
    with torch.inference_mode():
        expected = model.eval()(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
    np.testing.assert_allclose(OnnxBackend(file, threads=1).run(images), expected, atol=1e-4)
    assert get_same_padding(7, 3, stride=2, dilation=1) == 2  # timm's own again


def test_model_is_left_as_it_was(unet, tmp_path):
    unet.train()
    before = {name: value.clone() for name, value in unet.state_dict().items()}
    export_onnx(unet, tmp_path / "unet.onnx")
    assert unet.training
    assert all(torch.equal(value, before[name]) for name, value in unet.state_dict().items())


def test_file_describes_the_model_and_not_the_machine(unet, unet_file):
    session = onnxruntime.InferenceSession(unet_file, providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map
    assert ModelDescription.from_dict(json.loads(metadata["segshrink"])) == unet.description
    (images,), (logits, classes) = session.get_inputs(), session.get_outputs()
    assert (images.type, images.shape) == ("tensor(uint8)", ["batch", 3, "height", "width"])
    assert (logits.type, logits.shape) == ("tensor(float)", ["batch", 3, "height", "width"])
    assert (classes.name, classes.type, classes.shape) == ("classes", "tensor(uint8)", ["batch", "height", "width"])
    content = unet_file.read_bytes()
    assert b"site-packages" not in content
    assert b"segshrink/" not in content
    assert [path.name for path in unet_file.parent.iterdir()] == ["unet.onnx"]


def test_prediction_works_without_torch(unet, unet_file, tmp_path):
    image = np.random.default_rng(2).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    np.save(tmp_path / "image.npy", image)
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import numpy as np; from segshrink.prediction import Predictor\n"
        f"p = Predictor({str(unet_file)!r}).predict_array(np.load({str(tmp_path / 'image.npy')!r}))\n"
        f"np.save({str(tmp_path / 'index.npy')!r}, p.index)"
    )
    result = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    with torch.no_grad():
        expected = unet.eval()(torch.from_numpy(image).permute(2, 0, 1)[None])[0].argmax(0).numpy()
    assert (np.load(tmp_path / "index.npy") == expected).mean() > 0.999


def test_models_of_16_bit_images_take_floats(tmp_path):
    path = export_onnx(model_of(Difference(), stride=4, dtype="uint16"), tmp_path / "wide.onnx")
    images = np.random.default_rng(0).integers(0, 60000, (1, 9, 13, 3), dtype=np.uint16)
    np.testing.assert_allclose(
        OnnxBackend(path, threads=1).run(images), difference_by_hand(images), rtol=1e-5, atol=0.01
    )


def test_eight_bit_file_refuses_sixteen_bit_pixels(unet_file):
    with pytest.raises(ModelError, match="8-bit pixels"):
        OnnxBackend(unet_file, threads=1).run(np.zeros((1, 8, 8, 3), np.uint16))


class Cheat(nn.Module):
    """Gives something else while it is exported."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images * (1.01 if torch.compiler.is_exporting() else 1.0)


class Constant(nn.Module):
    """Computes in Python, which the exporter takes for a constant without a word."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images * len(str(images.sum().item()))


class Hopeless(nn.Module):
    """Uses an operator that ONNX doesn't have."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.special.bessel_j0(images)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (Cheat(), "ONNX Runtime's logits differ"),
        (Constant(), "ONNX Runtime's logits differ"),
        (Hopeless(), r"can't be expressed in ONNX \(.*bessel_j0"),
    ],
)
def test_wrong_files_are_not_written(network, message, tmp_path):
    path = tmp_path / "wrong.onnx"
    path.write_bytes(b"what stood here")
    with pytest.raises(ModelError, match=message) as caught:
        export_onnx(model_of(network), path, overwrite=True)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == b"what stood here"
    assert [entry.name for entry in tmp_path.iterdir()] == ["wrong.onnx"]


def test_unwritable_places_say_so(unet, tmp_path):
    with pytest.raises(ModelError, match=r"must end in \.onnx"):
        export_onnx(unet, tmp_path / "model.bin")
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="can't write"):
        export_onnx(model_of(Difference(), stride=4), tmp_path / "file" / "model.onnx")


@pytest.mark.parametrize("resize", [0.5, 0.3, 1 / 6, 2.0, {"longest": 40}, (24, 32)])
def test_the_working_size_is_part_of_the_graph_in_every_runtime(small, tmp_path, resize):
    model = small.with_resize(resize)
    path = export_onnx(model, tmp_path / "small.onnx")
    files = [open_backend(path, runtime=runtime, precision="32", threads=1) for runtime in ("onnxruntime", "openvino")]
    for size in ((2, 64, 48), (1, 97, 130), (1, 5, 3)):
        images = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
        with torch.no_grad():
            expected = model(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
            assert not np.allclose(expected, small(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy(), atol=0.1)
        for backend in files:
            assert backend.description == model.description
            np.testing.assert_allclose(backend.run(images), expected, atol=2e-3)
            assert (backend.classify(images) == expected.argmax(axis=1)).mean() > 0.99


def test_files_for_tiles_are_refused_where_the_image_says_the_working_size(small, tmp_path):
    model = small.with_resize({"longest": 40})
    for kind in ("qgis", "tflite"):
        with pytest.raises(ModelError, match=f"{kind} file is given tiles.*40 pixels on the image's longer side"):
            export(model, tmp_path / "small", formats=["onnx", kind])
    assert not list(tmp_path.iterdir())
    session = onnxruntime.InferenceSession(export_onnx(model, tmp_path / "whole.onnx"))
    assert set(session.get_modelmeta().custom_metadata_map) == {"segshrink"}
    halved = onnxruntime.InferenceSession(export_onnx(small.with_resize(0.5), tmp_path / "half.onnx"))
    assert json.loads(halved.get_modelmeta().custom_metadata_map["tile_size"]) == 1024
