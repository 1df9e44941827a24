from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from segshrink.classes import ClassMap
from segshrink.config import Adapter, TeacherSource, load_adapter, load_dataset
from segshrink.data import open_dataset
from segshrink.errors import ConfigError, FileError, MissingExtraError, ModelError
from segshrink.evaluation import Confusion
from segshrink.imagery import read_image, read_mask
from segshrink.model_description import ModelDescription, Normalization
from segshrink.prediction.exported import METADATA_KEY
from segshrink.teachers import open_teacher
from segshrink.teachers.black_box import BlackBox

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
CLASSES = ClassMap.build([("Land", "#804000", None), ("Water", "#0000FF", None), ("Road", "#808080", None)])
TWO = ClassMap.build([("Land", "#804000", None), ("Water", "#0000FF", None)])
# Answers (c + 1) * value of band c: what it saw can be read from its logits.
MIXING = np.diag([1.0, 2.0, 3.0]).astype(np.float32)


def write_onnx(
    path: Path,
    *,
    weights: np.ndarray = MIXING,
    size: tuple[Any, Any] = ("height", "width"),
    batch: Any = "batch",
    nodes: tuple[Any, ...] = (),
    output: str = "scores",
    output_type: int = TensorProto.FLOAT,
    shape: tuple[Any, ...] | None = None,
    pixels: int = TensorProto.FLOAT,
) -> Path:
    """Write a 1 x 1 convolution from "images" to "scores", and what comes after it, as an ONNX file."""
    tensor = numpy_helper.from_array(weights[:, :, None, None], "weights")
    source = "images"
    before = []
    if pixels != TensorProto.FLOAT:
        before.append(helper.make_node("Cast", ["images"], ["float_images"], to=TensorProto.FLOAT))
        source = "float_images"
    graph = helper.make_graph(
        [*before, helper.make_node("Conv", [source, "weights"], ["scores"]), *nodes],
        "net",
        [helper.make_tensor_value_info("images", pixels, [batch, weights.shape[1], *size])],
        [helper.make_tensor_value_info(output, output_type, shape or (batch, len(weights), *size))],
        [tensor],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, path)
    return path


def opened(path: Path, student: ClassMap = CLASSES, *, bands: int = 3, **adapter: Any) -> BlackBox:
    teacher = open_teacher(TeacherSource(source=f"onnx:{path}", adapter=Adapter(**adapter)), student, bands=bands)
    assert isinstance(teacher, BlackBox)
    return teacher


@pytest.fixture
def net(tmp_path: Path) -> Path:
    return write_onnx(tmp_path / "net.onnx")


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randint(0, 256, (2, 3, 24, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_pixels_are_scaled_and_bands_turned_round_as_the_adapter_says(net: Path, images: torch.Tensor) -> None:
    factors = torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1, 1)
    plain = opened(net).logits(images)
    assert plain.dtype == torch.float32
    assert torch.equal(plain, images.float() * factors)
    scaled = opened(net, mean=[1, 2, 3], std=2.0).logits(images)
    assert torch.allclose(scaled, (images.float() - torch.tensor([1.0, 2, 3]).view(1, 3, 1, 1)) / 2 * factors)
    turned = opened(net, order="bgr", mean=[1, 2, 3]).logits(images)
    assert torch.equal(turned, (images.float().flip(1) - torch.tensor([1.0, 2, 3]).view(1, 3, 1, 1)) * factors)


def test_a_letterbox_keeps_proportions_and_cuts_the_padding(tmp_path: Path, images: torch.Tensor) -> None:
    # A blur over 5 pixels of the network shows what lies around the image.
    blur = np.full((1, 1, 1, 5), 0.2, np.float32)
    nodes = (
        helper.make_node("Constant", [], ["kernel"], value=numpy_helper.from_array(np.repeat(blur, 3, axis=0))),
        helper.make_node("Conv", ["scores", "kernel"], ["blurred"], group=3, pads=[0, 2, 0, 2]),
    )
    path = write_onnx(tmp_path / "net.onnx", size=(20, 20), nodes=nodes, output="blurred", shape=("batch", 3, 20, 20))
    tall = images.permute(0, 1, 3, 2)  # 40 x 24: 20 x 12 inside
    seen = np.stack([np.asarray(Image.fromarray(image.permute(1, 2, 0).numpy()).resize((12, 20), 2)) for image in tall])
    inside = torch.from_numpy(seen).permute(0, 3, 1, 2).float()
    for place, left in (("center", 4), ("corner", 0)):
        canvas = torch.full((2, 3, 20, 20), 50.0)
        canvas[..., left : left + 12] = inside
        blurred = torch.nn.functional.conv1d(canvas.reshape(-1, 1, 20), torch.full((1, 1, 5), 0.2), padding=2)
        expected = blurred.reshape(2, 3, 20, 20)[..., left : left + 12] * torch.tensor([1.0, 2, 3]).view(1, 3, 1, 1)
        expected = torch.nn.functional.interpolate(expected, size=(40, 24), mode="bilinear")
        found = opened(path, fit="letterbox", place=place, fill=50).logits(tall)
        # Pillow rounds between its two passes: one level of the pixels, three of the last channel.
        assert (found - expected).abs().max() < 3.1
        assert (found - expected).abs().mean() < 0.1


def test_a_stretched_image_fills_the_network_and_comes_back(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "net.onnx", size=(16, 16))
    ramp = torch.arange(32.0).view(1, 1, 1, 32).expand(1, 3, 8, 32) * 4
    logits = opened(path, fit="stretch").logits(ramp)
    assert logits.shape == (1, 3, 8, 32)
    assert torch.allclose(logits[0, 0, :, 4:-4], ramp[0, 0, :, 4:-4], atol=0.5)


@pytest.mark.parametrize("shape", [(24, 40), (8, 9), (16, 24), (70, 65)])
def test_tiles_of_a_fixed_size_cover_an_image_of_any(tmp_path: Path, shape: tuple[int, int]) -> None:
    path = write_onnx(tmp_path / "net.onnx", size=(16, 24), batch=1)
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    logits = opened(path).scene_logits(image, "scene")
    expected = image.transpose(2, 0, 1) * np.float32([1, 2, 3])[:, None, None]
    assert logits.shape == (3, *shape)
    assert np.abs(logits - expected).max() < 1e-3


def test_scenes_of_a_network_of_any_size_are_tiled_as_in_deployment(net: Path) -> None:
    image = np.random.default_rng(0).integers(0, 60000, (40, 600, 3), dtype=np.uint16)
    logits = opened(net).scene_logits(image, "scene")
    assert np.abs(logits - image.transpose(2, 0, 1) * np.float32([1, 2, 3])[:, None, None]).max() < 0.1


def test_channels_last_is_seen_in_the_shapes(tmp_path: Path, images: torch.Tensor) -> None:
    there = helper.make_node("Transpose", ["images"], ["first"], perm=[0, 3, 1, 2])
    conv = helper.make_node("Conv", ["first", "weights"], ["scores"])
    back = helper.make_node("Transpose", ["scores"], ["last"], perm=[0, 2, 3, 1])
    graph = helper.make_graph(
        [there, conv, back],
        "net",
        [helper.make_tensor_value_info("images", 1, ["n", 24, 40, 3])],
        [helper.make_tensor_value_info("last", 1, ["n", 24, 40, 4]), helper.make_tensor_value_info("scores", 1, None)],
        [numpy_helper.from_array(np.eye(4, 3, dtype=np.float32)[:, :, None, None], "weights")],
    )
    path = tmp_path / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    names = ["land", "water", "road", "nothing"]
    logits = opened(path, classes=names).logits(images)
    assert torch.equal(logits, images.float())
    with pytest.raises(ModelError, match=r"takes 24 bands \(as the adapter's 'layout: NCHW' has it\)"):
        opened(path, classes=names, layout="NCHW")


def test_probabilities_are_found_and_their_logarithms_taken(
    tmp_path: Path, images: torch.Tensor, caplog: pytest.LogCaptureFixture
) -> None:
    softmax = helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1)
    path = write_onnx(tmp_path / "net.onnx", nodes=(softmax,), output="probabilities")
    teacher = opened(path, std=100.0)
    assert teacher.returns_probabilities is None
    found = teacher.logits(images).softmax(1)
    expected = opened(write_onnx(tmp_path / "logits.onnx"), std=100.0).logits(images).softmax(1)
    assert teacher.returns_probabilities
    assert torch.allclose(found, expected, atol=1e-5)
    assert "answers with probabilities" in caplog.text


@pytest.mark.parametrize("sigmoid", [False, True])
def test_one_channel_becomes_logits_of_two_classes(tmp_path: Path, images: torch.Tensor, sigmoid: bool) -> None:
    weights = np.array([[0.01, 0.02, -0.04]], np.float32)
    nodes = (helper.make_node("Sigmoid", ["scores"], ["p"]),) if sigmoid else ()
    path = write_onnx(tmp_path / "net.onnx", weights=weights, nodes=nodes, output="p" if sigmoid else "scores")
    logits = opened(path, TWO).logits(images)
    z = (images.float() * torch.from_numpy(weights[0]).view(1, 3, 1, 1)).sum(1)
    assert torch.allclose(logits[:, 0], torch.zeros(1))
    assert torch.allclose(logits[:, 1], z, atol=1e-3)


def test_a_label_map_becomes_logits_of_that_confidence(tmp_path: Path, images: torch.Tensor) -> None:
    nodes = (helper.make_node("ArgMax", ["scores"], ["labels"], axis=1, keepdims=0),)
    path = write_onnx(
        tmp_path / "net.onnx",
        nodes=nodes,
        output="labels",
        output_type=TensorProto.INT64,
        shape=("batch", "height", "width"),
    )
    expected = (images.float() * torch.tensor([1.0, 2, 3]).view(1, 3, 1, 1)).argmax(1)
    probabilities = opened(path).logits(images).softmax(1)
    assert torch.equal(probabilities.argmax(1), expected)
    assert torch.allclose(probabilities.amax(1), torch.tensor(0.9))
    assert torch.allclose(probabilities.amin(1), torch.tensor(0.05))
    assert torch.allclose(opened(path, confidence=0.6).logits(images).softmax(1).amax(1), torch.tensor(0.6))
    with pytest.raises(ModelError, match=r"class number 2, but it has 2 classes"):
        opened(path, TWO).logits(images)


def test_classes_are_mapped_by_name_and_others_silence_a_pixel(tmp_path: Path, images: torch.Tensor) -> None:
    path = write_onnx(tmp_path / "net.onnx", weights=np.eye(5, 3, dtype=np.float32), size=(24, 40))
    (tmp_path / "names.txt").write_text("\ufeffroof\nWATER\nstreet\nlawn\ntree\n\n", encoding="utf-8")
    (tmp_path / "adapter.yaml").write_text("{fit: letterbox, classes: names.txt, std: 50}")
    source = TeacherSource(
        source=f"onnx:{path}", adapter=tmp_path / "adapter.yaml", classes={"Land": ["lawn", "street"]}
    )
    teacher = open_teacher(source, CLASSES, bands=3)
    assert teacher.known == (0, 1)
    logits, pixels = teacher.logits(images), images.float() / 50
    # Roof and tree stand for nothing: where they hold more than half of the probability, nothing is said.
    powers = pixels.exp()
    speaks = powers[:, 1] + powers[:, 2] + 1 >= powers[:, 0] + 1
    assert 0.2 < speaks.float().mean() < 0.9
    assert torch.allclose(logits[:, 1], pixels[:, 1] * speaks)
    assert torch.allclose(logits[:, 0], torch.log(powers[:, 2] + 1) * speaks, atol=1e-5)
    assert teacher.overlooked == ("roof",)
    assert (logits[:, 2] == -torch.inf).all()
    for size in ((30, 30), (60, 20)):
        resized = teacher.logits(torch.full((1, 3, *size), 100.0))
        assert not resized.isnan().any()
        assert torch.allclose(resized[:, 1], torch.tensor(2.0))


def test_files_of_segshrink_need_no_adapter(tmp_path: Path, images: torch.Tensor) -> None:
    path = write_onnx(tmp_path / "net.onnx", pixels=TensorProto.UINT8)
    model = onnx.load(path)
    description = ModelDescription("unet", CLASSES, 3, Normalization.named("imagenet"), 32)
    onnx.helper.set_model_props(model, {METADATA_KEY: json.dumps(description.to_dict())})
    onnx.save(model, path)
    source = TeacherSource(source=f"onnx:{path}")
    turned = ClassMap.build([(name, None, None) for name in ("Road", "Land", "Water")])
    teacher = open_teacher(source, turned, bands=3)
    expected = images.float()[:, [2, 0, 1]] * torch.tensor([3.0, 1, 2]).view(1, 3, 1, 1)
    assert torch.equal(teacher.logits(images), expected)
    assert torch.equal(teacher.logits(images.float()), expected)
    with pytest.raises(ModelError, match=r"takes 8-bit pixels .* found 0 to 700"):
        teacher.logits(torch.tensor([0.0, 700]).expand(1, 3, 8, 2))
    with pytest.raises(ModelError, match="takes 3 bands, but the images have 4"):
        open_teacher(source, turned, bands=4)
    with pytest.raises(ConfigError, match="scales pixels itself; leave out 'mean' and 'std'"):
        opened(path, turned, mean=5.0)
    with pytest.raises(ModelError, match=r"classes \(Land, Water, Road\) share no name with the data set's \(Roof\)"):
        open_teacher(source, ClassMap.build([("Roof", None, None)]), bands=3)


def test_identity_follows_the_file_the_adapter_and_the_classes(tmp_path: Path, net: Path) -> None:
    same = opened(net, std=2.0).identity
    assert opened(net, std=2.0).identity == same
    copy = tmp_path / "copy.onnx"
    copy.write_bytes(net.read_bytes())
    assert opened(copy, std=2.0).identity == same
    (tmp_path / "names.txt").write_text("land\nwater\nroad")
    assert opened(net, std=2.0, classes=tmp_path / "names.txt").identity == same
    other = write_onnx(tmp_path / "other.onnx", weights=MIXING * 2)
    changed = [
        opened(other, std=2.0),
        opened(net, std=2.5),
        opened(net, std=2.0, order="bgr"),
        opened(net, std=2.0, size=16),
        opened(net, std=2.0, classes=["water", "land", "road"]),
    ]
    assert len({same, *(teacher.identity for teacher in changed)}) == 1 + len(changed)


@pytest.mark.parametrize(
    ("adapter", "error", "message"),
    [
        ({"size": 32}, ConfigError, r"takes images of 16 x 24 pixels .* 'size' 32 x 32"),
        ({"classes": ["a", "b"]}, ModelError, r"\(\?, 3, 16, 24\) has 3 channel\(s\), but 2 class names are given"),
        ({"classes": ["a", "b", "A"]}, ConfigError, r"names the class 'a' 2 times"),
        ({"output_name": "scroes"}, ConfigError, r"no output 'scroes'; did you mean 'scores'"),
        ({"output_name": 1}, ConfigError, r"has 1 output\(s\) \(scores\), numbered from 0.* is 1"),
        ({"output": "labels"}, ConfigError, r"has 3 channels, but the adapter says 'output: labels'"),
        ({"dtype": "uint8"}, ConfigError, r"takes float32 numbers, but the adapter says 'dtype: uint8'"),
        ({"mean": [1, 2]}, ConfigError, r"'mean' has 2 values, but the images have 3 bands"),
        ({"std": 0}, ConfigError, r"'std' must be above 0, found 0"),
        ({"classes": Path("missing.txt")}, FileError, r"can't read the class names in missing\.txt"),
    ],
)
def test_contradictions_are_one_sentence(
    tmp_path: Path, adapter: dict[str, Any], error: type[Exception], message: str
) -> None:
    path = write_onnx(tmp_path / "net.onnx", size=(16, 24))
    with pytest.raises(error, match=message):
        opened(path, **adapter)


def test_sources_that_make_no_sense_are_refused(tmp_path: Path, net: Path) -> None:
    with pytest.raises(ModelError, match=r"has 3 channel\(s\), but the data set has 2 classes and no names"):
        opened(net, TWO)
    with pytest.raises(ModelError, match="takes 3 bands, but the images have 4"):
        opened(net, bands=4)
    with pytest.raises(ConfigError, match=r"takes images of any size, but the adapter says 'fit: stretch'"):
        opened(net, fit="stretch")
    with pytest.raises(ConfigError, match="takes no 'weights'"):
        open_teacher(TeacherSource(source=f"onnx:{net}", weights=net), CLASSES, bands=3)
    with pytest.raises(FileError, match="does not exist"):
        opened(tmp_path / "absent.onnx")
    (tmp_path / "text.onnx").write_text("hello, this is no network")
    with pytest.raises(ModelError, match=r"text\.onnx can't be loaded by ONNX Runtime"):
        opened(tmp_path / "text.onnx")
    path = write_onnx(tmp_path / "int.onnx", pixels=TensorProto.UINT8)
    with pytest.raises(ConfigError, match=r"takes uint8 numbers and doesn't say their scale.*leave them out"):
        opened(path, mean=5.0)
    assert torch.equal(opened(path).logits(torch.full((1, 3, 2, 2), 7.0))[0, :, 0, 0], torch.tensor([7.0, 14, 21]))


def test_weights_in_other_files_are_read_from_the_models_folder_only(
    tmp_path: Path, images: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, elsewhere = tmp_path / "model", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    model = onnx.load(write_onnx(tmp_path / "whole.onnx"))
    onnx.save(model, folder / "net.onnx", save_as_external_data=True, location="net.data", size_threshold=0)
    expected = opened(tmp_path / "whole.onnx").logits(images)
    before = opened(folder / "net.onnx")
    assert torch.equal(before.logits(images), expected)
    (folder / "net.data").write_bytes((MIXING * 5).tobytes())
    assert opened(folder / "net.onnx").identity != before.identity
    (folder / "net.data").rename(elsewhere / "net.data")
    monkeypatch.chdir(elsewhere)  # where the runtime alone would look
    with pytest.raises(FileError, match="keeps weights in other files"):
        opened(folder / "net.onnx")
    hostile = onnx.load(folder / "net.onnx", load_external_data=False)
    for entry in hostile.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = "../elsewhere/net.data"
    (folder / "net.onnx").write_bytes(hostile.SerializeToString())
    with pytest.raises(FileError, match="keeps weights in other files"):
        opened(folder / "net.onnx")


def test_litert_is_an_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(MissingExtraError, match=r"\[tflite\]"):
        open_teacher(TeacherSource(source=f"tflite:{tmp_path / 'net.tflite'}"), CLASSES, bands=3)


def test_files_that_are_no_tflite_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert.interpreter", reason="LiteRT is not installed")
    (tmp_path / "net.tflite").write_bytes(b"hello" * 20)
    with pytest.raises(ModelError, match=r"can't be loaded by LiteRT \(.*Flatbuffer"):
        open_teacher(TeacherSource(source=f"tflite:{tmp_path / 'net.tflite'}"), CLASSES, bands=3)


def deeplab_mean_iou(data: Path, source: TeacherSource, *, every: int) -> float:
    """Return the mIoU in percent of a teacher on every so-manieth image of VOC's validation list."""
    dataset = open_dataset(load_dataset(CONFIGS / "data" / "voc.yaml", [f"root={data / 'VOCdevkit' / 'VOC2012'}"]))
    teacher = open_teacher(source, dataset.classes, bands=dataset.bands)
    confusion = Confusion(len(dataset.classes))
    for sample in dataset.val[::every]:
        assert sample.mask is not None
        logits = teacher.scene_logits(read_image(sample.image), sample.name)
        confusion.update(logits.argmax(0).astype(np.uint8), read_mask(sample.mask, dataset.classes))
    return 100 * confusion.scores().mean_iou


def test_deeplab_scores_what_was_measured(shared_data: Path, shared_weights: Path) -> None:
    pytest.importorskip("ai_edge_litert.interpreter", reason="LiteRT is not installed")
    file = shared_weights / "deeplabv3_257_mv_gpu.tflite"
    source = TeacherSource(source=f"tflite:{file}", adapter=CONFIGS / "teachers" / "deeplab_voc.yaml")
    assert deeplab_mean_iou(shared_data, source, every=16) == pytest.approx(50.93, abs=0.2)


def test_a_quantized_deeplab_answers_with_label_maps(shared_data: Path, shared_weights: Path) -> None:
    pytest.importorskip("ai_edge_litert.interpreter", reason="LiteRT is not installed")
    file = shared_weights / "deeplabv3_mnv2_pascal_quant.tflite"
    adapter = load_adapter(CONFIGS / "teachers" / "deeplab_voc.yaml").model_copy(update={"mean": 0.0, "std": 1.0})
    source = TeacherSource(source=f"tflite:{file}", adapter=adapter)
    assert deeplab_mean_iou(shared_data, source, every=48) == pytest.approx(42.16, abs=0.2)
