"""Teachers that are networks of torch, opened from what a recipe says about them."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
import torchvision
from torch import Tensor

from segshrink.classes import ClassMap
from segshrink.config import Adapter, TeacherSource, Teaching
from segshrink.errors import ConfigError, FileError, ModelError
from segshrink.models import build_model
from segshrink.teachers import Augmented, Ensemble, Teacher, TorchTeacher, open_teacher, open_teachers

CLASSES = ClassMap.build([("Land", None, None), ("Water", None, None), ("Road", None, None)])
LRASPP = "torchvision:lraspp_mobilenet_v3_large"

# What users write: networks that want their pixels each in its own way.
CODE = '''
import torch
from torch import nn

class Mean(nn.Module):
    """Answers with the first three bands as it gets them, and keeps what it got."""

    def __init__(self, power=1, kind="tensor"):
        super().__init__()
        self.factor = nn.Parameter(torch.ones(1))
        self.power, self.kind, self.seen = power, kind, None

    def forward(self, images):
        self.seen = images
        if self.kind == "last":
            return (images[:, ::2, ::2] * self.factor) ** self.power
        scores = (images[:, :3].float() * self.factor) ** self.power
        if self.kind == "dict":
            return {"aux": -scores, "out": scores}
        if self.kind == "list":
            return [-scores, scores]
        if self.kind == "nested":
            return [(scores, scores)]
        if self.kind == "labels":
            return scores.argmax(1)
        if self.kind == "one":
            return scores[:, :1].sigmoid()
        if self.kind == "softmax":
            return scores.softmax(1)
        if self.kind == "fixed":
            assert images.shape[2:] == (32, 48), "32 x 48 only"
        return scores

def make(**options):
    return Mean(**options)

def broken():
    raise ValueError("no such\\nweights")

def nothing():
    return 3
'''


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module in the working folder; returns the source of its function."""
    name = f"users_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return f"{name}:make"


def images(height: int = 20, width: int = 24) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (2, 3, height, width), dtype=torch.uint8, generator=generator)


def opened(source: str, adapter: dict | None = None, **more: object) -> Teacher:
    said = None if adapter is None else Adapter.model_validate(adapter)
    return open_teacher(TeacherSource(source=source, adapter=said, **more), CLASSES)


def refused(kind: type[Exception], source: str, adapter: dict | None = None, **more: object) -> str:
    with pytest.raises(kind) as caught:
        opened(source, adapter, **more)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_users_function_gets_raw_pixels_unless_its_adapter_says_more(code: str) -> None:
    pixels = images().float()
    assert torch.equal(opened(code).logits(images()), pixels)
    scaled = opened(code, {"mean": [10, 20, 30], "std": 2.0, "order": "bgr"})
    # Means are in the order in which it takes the bands.
    expected = (pixels.flip(1) - torch.tensor([10.0, 20, 30]).view(1, 3, 1, 1)) / 2
    assert torch.allclose(scaled.logits(images()), expected)
    named = opened(code, {"classes": ["road", "LAND", "other"]})
    assert named.known == (0, 2)
    # Where "other" is likelier than both together, nothing is said.
    speaks = pixels[:, :2].logsumexp(1, keepdim=True) >= pixels[:, 2:]
    assert torch.equal(named.logits(images())[:, [0, 2]], pixels[:, [1, 0]] * speaks)
    assert named.overlooked == ("other",)
    assert (named.logits(images())[:, 1] == -torch.inf).all()
    assert torch.equal(opened(code, options={"power": 2}).logits(images()), pixels**2)


@pytest.mark.parametrize(
    ("options", "adapter"),
    [
        ({"kind": "dict"}, {}),
        ({"kind": "dict"}, {"output_name": "out"}),
        ({"kind": "list"}, {"output_name": 1}),
        ({"kind": "last"}, {"layout": "NHWC"}),
    ],
)
def test_the_output_that_counts_is_found(code: str, options: dict, adapter: dict) -> None:
    found = opened(code, adapter, options=options).logits(images())
    assert found.shape == (2, 3, 20, 24)
    # A map of half the size is resized.
    place = np.s_[:, :, 1:-1:2, 1:-1:2] if options["kind"] == "last" else np.s_[:]
    expected = images().float()
    if options["kind"] == "last":
        small = expected[:, :, ::2, ::2]
        expected = torch.nn.functional.interpolate(small, size=(20, 24), mode="bilinear")
    assert torch.allclose(found[place], expected[place])


def test_what_comes_out_may_be_probabilities_labels_or_one_channel(code: str, caplog: pytest.LogCaptureFixture) -> None:
    scaling = {"mean": 128.0, "std": 64.0}
    expected = opened(code, scaling).logits(images()).softmax(1)
    with caplog.at_level(logging.WARNING):
        found = opened(code, scaling, options={"kind": "softmax"})
        assert torch.allclose(found.logits(images()).softmax(1), expected, atol=1e-5)
    assert any("answers with probabilities" in message for message in caplog.messages)
    # Said to be logits, they are taken as they come.
    raw = opened(code, scaling | {"output": "logits"}, options={"kind": "softmax"})
    assert torch.allclose(raw.logits(images()), expected, atol=1e-6)
    labels = opened(code, scaling | {"output": "labels", "confidence": 0.7}, options={"kind": "labels"})
    answer = labels.logits(images()).softmax(1)
    assert torch.allclose(answer.amax(1), torch.tensor(0.7))
    assert torch.equal(answer.argmax(1), expected.argmax(1))
    two = ClassMap.build([("no", None, None), ("yes", None, None)])
    adapter = Adapter(classes=["no", "yes"], mean=128.0, std=64.0)
    one = open_teacher(TeacherSource(source=code, adapter=adapter, options={"kind": "one"}), two)
    chance = ((images()[:, 0].float() - 128) / 64).sigmoid()
    assert torch.allclose(one.logits(images()).softmax(1)[:, 1], chance, atol=1e-5)


def test_a_network_of_one_size_sees_letterboxed_images_and_whole_scenes(code: str) -> None:
    adapter = {"size": [32, 48], "fit": "letterbox", "place": "corner", "fill": 9.0}
    teacher = opened(code, adapter, options={"kind": "fixed"})
    flat = torch.full((1, 3, 64, 64), 77, dtype=torch.uint8)
    assert torch.allclose(teacher.logits(flat), torch.tensor(77.0))
    assert isinstance(teacher, TorchTeacher)
    seen = teacher.module.network.seen
    assert seen.shape == (1, 3, 32, 48)
    assert (seen[:, :, :, :32] == 77).all()
    assert (seen[:, :, :, 32:] == 9).all()
    # A scene larger than any tile is seen whole.
    scene = np.full((900, 600, 3), 77, np.uint8)
    assert np.allclose(teacher.scene_logits(scene, "x"), 77)
    assert teacher.module.network.seen.shape == (1, 3, 32, 48)
    assert "failed on an image of 3 x 64 x 64" in refused(ModelError, code, options={"kind": "fixed"})


def test_what_is_wrong_with_a_function_is_one_sentence(code: str) -> None:
    module = code.partition(":")[0]
    assert "has no function 'mkae'; did you mean 'make'" in refused(ModelError, f"{module}:mkae")
    assert "there is no module absent_module in" in refused(ModelError, "absent_module:make")
    assert "broken() failed with ValueError: no such weights" in refused(ModelError, f"{module}:broken")
    assert "returned int, expected a torch.nn.Module" in refused(ModelError, f"{module}:nothing")
    assert "unexpected keyword argument 'pwer'" in refused(ModelError, code, options={"pwer": 1})
    Path("bad_import.py").write_text("import not_installed_anywhere")
    assert "No module named 'not_installed_anywhere'" in refused(ModelError, "bad_import:make")
    assert "4 are named" in refused(ModelError, code, {"classes": ["a", "b", "c", "Land"]})
    assert "has no output 'logit'" in refused(ConfigError, code, {"output_name": "logit"}, options={"kind": "dict"})
    assert "numbered from 0" in refused(ConfigError, code, {"output_name": 7}, options={"kind": "list"})
    assert "answers with tuple, expected a tensor" in refused(ModelError, code, options={"kind": "nested"})
    assert "'mean' has 2 values, but the images have 3 bands" in refused(ConfigError, code, {"mean": [1, 2]})
    assert "answers (1, 64, 64), expected scores" in refused(ModelError, code, options={"kind": "labels"})


def test_a_functions_network_gets_weights(code: str, tmp_path: Path) -> None:
    torch.save({"factor": torch.tensor([3.0])}, tmp_path / "three.pth")
    teacher = opened(code, weights=tmp_path / "three.pth")
    assert torch.equal(teacher.logits(images()), images().float() * 3)
    assert teacher.identity != opened(code).identity
    torch.save({"other": torch.tensor([3.0])}, tmp_path / "three.pth")
    assert "doesn't fit the network of" in refused(ModelError, code, weights=tmp_path / "three.pth")


def test_identity_depends_on_the_adapter_but_not_on_where_names_are_written(code: str, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("Land\nWater\nRoad\n")
    plain = opened(code).identity
    assert opened(code, {"classes": ["Land", "Water", "Road"]}).identity == plain
    assert opened(code, {"classes": tmp_path / "names.txt"}).identity == plain
    others = [opened(code, {"mean": 1.0}), opened(code, {"order": "bgr"}), opened(code, options={"power": 2})]
    assert len({plain, *(teacher.identity for teacher in others)}) == 4


@torch.no_grad()
def test_a_network_of_smp_needs_its_weights(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    options = {"decoder_channels": [16, 8, 8, 8, 8]}
    source = "smp:Unet/mobilenet_v2"
    assert "would have random weights; give the file" in refused(ConfigError, source)
    for count in (3, 4):
        network = smp.Unet("mobilenet_v2", encoder_weights=None, classes=count, **options).eval()
        torch.save(network.state_dict(), tmp_path / f"{count}.pth")
    with caplog.at_level(logging.WARNING):
        teacher = opened(source, weights=tmp_path / "3.pth", options=options)
    assert "they are taken for Land, Water, Road" in caplog.text
    assert teacher.known == (0, 1, 2)
    four = {"weights": tmp_path / "4.pth", "options": options}
    assert "answers with 4 classes and doesn't name them" in refused(ModelError, source, **four)
    assert "4 classes, but 3 are named" in refused(ModelError, source, {"classes": ["Land", "Sea", "Way"]}, **four)
    names = ["Sky", "Road", "Lake", "Sea"]
    said = {"classes": names, "mean": 127.5, "std": 127.5, "order": "bgr"}
    teacher = opened(source, said, classes={"Water": ["Lake", "Sea"]}, **four)
    assert teacher.known == (1, 2)
    image = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    scores = network((image.flip(1).float() - 127.5) / 127.5).softmax(1)
    found = teacher.logits(image).softmax(1)
    expected = torch.stack([scores[:, 2] + scores[:, 3], scores[:, 1]], dim=1)
    assert torch.allclose(found[:, 1:], expected / expected.sum(1, keepdim=True), atol=1e-5)


def test_torchvisions_weights_bring_their_class_names(tmp_path: Path) -> None:
    network = torchvision.models.segmentation.lraspp_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=21
    )
    torch.save(network.state_dict(), tmp_path / "lraspp.pth")
    classes = ClassMap.build([(name, None, None) for name in ("person", "vehicle", "Background", "roof")])
    source = TeacherSource(
        source=LRASPP, weights=tmp_path / "lraspp.pth", classes={"vehicle": ["car", "bus", "train", "motorbike"]}
    )
    teacher = open_teacher(source, classes)
    assert isinstance(teacher, TorchTeacher)
    assert teacher.known == (0, 1, 2)
    assert teacher.mapping is not None
    assert teacher.mapping.channels == ((15,), (7, 6, 19, 14), (0,), ())
    assert teacher.module.description.normalization.mean == pytest.approx((123.675, 116.28, 103.53))
    assert "would have random weights" in refused(ConfigError, LRASPP)
    assert "torchvision publishes" in refused(ConfigError, LRASPP)


def test_a_model_folder_takes_an_adapter_too(tmp_path: Path) -> None:
    model = build_model("unet", CLASSES, options={"width": 4, "depth": 2}).eval()
    model.save(tmp_path / "model")
    plain, turned = opened(str(tmp_path / "model")), opened(str(tmp_path / "model"), {"order": "bgr"})
    assert torch.equal(turned.logits(images().flip(1)), plain.logits(images()))
    assert not torch.allclose(turned.logits(images()), plain.logits(images()), atol=1e-2)
    scaled = opened(str(tmp_path / "model"), {"mean": 0.0, "std": 255.0})
    assert isinstance(scaled, TorchTeacher)
    assert scaled.module.description.normalization.std == (255, 255, 255)
    assert "takes no 'weights'" in refused(ConfigError, str(tmp_path / "model"), weights=tmp_path / "x.pth")
    assert "no teacher at absent; give a run folder" in refused(FileError, "absent")
    assert "no teacher at absent/x/y" in refused(FileError, "absent/x/y")
    for kind in ("onnx", "tflite", "labels"):
        assert "there is no user of that name" in refused(FileError, f"{kind}:~nobody-has-this-name/x")
    with pytest.raises(ModelError, match="takes 3 bands, but images have 4"):
        open_teacher(tmp_path / "model", CLASSES, bands=4)


def test_a_folder_of_transformers_is_a_teacher(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    transformers.utils.logging.disable_progress_bar()
    names = ["road", "building", "water"]
    config = transformers.SegformerConfig(
        depths=[1, 1, 1, 1], hidden_sizes=[8, 8, 16, 16], num_attention_heads=[1, 1, 2, 2], decoder_hidden_size=16,
        id2label=dict(enumerate(names)),
    )  # fmt: skip
    transformers.SegformerForSemanticSegmentation(config).save_pretrained(tmp_path)
    transformers.SegformerImageProcessor().save_pretrained(tmp_path)
    teacher = opened(f"hf:{tmp_path}", classes={"Land": "building"})
    assert isinstance(teacher, TorchTeacher)
    assert teacher.mapping is not None
    assert teacher.mapping.channels == ((1,), (2,), (0,))
    logits = teacher.module(images())
    assert torch.equal(teacher.logits(images()), logits[:, [1, 2, 0]])
    assert "takes no 'options'" in refused(ConfigError, f"hf:{tmp_path}", options={"config": {}})
    assert "share no name" in refused(ModelError, f"hf:{tmp_path}", {"classes": ["a", "b", "c"]})


def test_several_teachers_are_opened_as_one(tmp_path: Path, code: str) -> None:
    build_model("unet", CLASSES, options={"width": 4, "depth": 2}).save(tmp_path / "model")
    sources = [
        {"source": str(tmp_path / "model"), "weight": 3},
        {"source": code, "adapter": {"mean": 128, "std": 64, "classes": ["Land", "Sea", "Way"]}},
    ]
    one = open_teachers(Teaching.model_validate({"teachers": sources[:1]}), CLASSES)
    assert isinstance(one, TorchTeacher)
    teaching = Teaching.model_validate({"teachers": sources, "combine": "confidence", "flips": True})
    both = open_teachers(teaching, CLASSES)
    assert isinstance(both, Ensemble)
    assert both.weights == (3, 1)
    assert both.combine == "confidence"
    assert both.known == (0, 1, 2)
    assert all(isinstance(teacher, Augmented) and len(teacher.views) == 4 for teacher in both.parts)
    assert both.name == f"{tmp_path / 'model'} + {code}"
    assert torch.allclose(both.logits(images()).exp().sum(1), torch.ones(1))
    with pytest.raises(ConfigError, match="no teacher is named"):
        open_teachers(Teaching(), CLASSES)
