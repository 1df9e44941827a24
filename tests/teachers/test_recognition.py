"""Files and folders of strangers are opened for what they hold, or told in one sentence what they need."""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
from torch import nn

from segshrink import build_model, export_onnx
from segshrink.classes import VOC_CLASSES, ClassMap
from segshrink.config import TeacherSource
from segshrink.errors import ConfigError, FileError, ModelError
from segshrink.teachers import open_teacher
from segshrink.teachers.factory import is_data
from segshrink.teachers.recognition import recognized

CLASSES = ClassMap.build(["ground", "roof"])


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 1)).eval()


def image() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 3, 32, 32), dtype=np.uint8))


def kind_of(path: Path) -> str:
    return recognized(TeacherSource(source=str(path))).source


def told(path: Path) -> str:
    with pytest.raises((ModelError, FileError)) as caught:
        recognized(TeacherSource(source=str(path)))
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_programs_of_torch_teach_as_they_are(tmp_path: Path) -> None:
    expected = network()(image().float())
    torch.jit.trace(network(), image().float()).save(str(tmp_path / "script.pt"))
    sizes = {2: torch.export.Dim("h", min=8, max=512), 3: torch.export.Dim("w", min=8, max=512)}
    torch.export.save(torch.export.export(network(), (image().float(),), dynamic_shapes=(sizes,)), tmp_path / "net.pt2")
    for name, kind in (("script.pt", "torchscript"), ("net.pt2", "exported")):
        assert kind_of(tmp_path / name) == f"{kind}:{tmp_path / name}"
        teacher = open_teacher(str(tmp_path / name), CLASSES)
        assert torch.allclose(teacher.logits(image()), expected, atol=1e-4)


def test_exported_files_need_no_prefix(tmp_path: Path) -> None:
    model = build_model("unet", CLASSES, options={"width": 2, "depth": 2}).eval()
    file = export_onnx(model, tmp_path / "a.onnx")
    assert kind_of(file) == f"onnx:{file}"
    assert open_teacher(str(file), CLASSES).logits(image()).shape == (1, 2, 32, 32)
    light = tmp_path / "a.bin"
    light.write_bytes(b"\x1c\x00\x00\x00TFL3" + bytes(8))
    assert kind_of(light) == f"tflite:{light}"
    assert kind_of(tmp_path / "absent.pt") == str(tmp_path / "absent.pt")


def test_saved_folders_of_libraries_are_opened(tmp_path: Path) -> None:
    torch.manual_seed(1)
    unet = smp.Unet("resnet18", encoder_weights=None, classes=2, decoder_channels=(16, 8, 8, 8, 8)).eval()
    unet.save_pretrained(tmp_path / "smp")
    source = recognized(TeacherSource(source=str(tmp_path / "smp")))
    assert source.source == "smp:Unet/resnet18"
    assert source.weights == tmp_path / "smp" / "model.safetensors"
    assert source.options["decoder_channels"] == [16, 8, 8, 8, 8]
    options = {"decoder_channels": [16, 8, 8, 8, 8]}
    written = TeacherSource(source="smp:Unet/resnet18", weights=source.weights, options=options)
    found, expected = (open_teacher(one, CLASSES).logits(image()) for one in (str(tmp_path / "smp"), written))
    assert torch.equal(found, expected)
    assert expected.std() > 0
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "config.json").write_text(json.dumps({"model_type": "segformer"}))
    assert kind_of(tmp_path / "hf") == f"hf:{tmp_path / 'hf'}"


def test_published_weights_of_espnetv2_need_nothing_else(tmp_path: Path) -> None:
    """Also with their scale and classes unsaid, and those of VOC matched by name."""
    voc = ClassMap.build(VOC_CLASSES)
    model = build_model("espnetv2", voc, options={"scale": 0.5}).eval()
    with torch.no_grad():  # as it starts, only training keeps its answers small
        model.network.bu_dec_l4.merge_layer[-1].weight.mul_(1e-7)
    file = tmp_path / "espnetv2.pth"
    torch.save(model.network.state_dict(), file)
    source = recognized(TeacherSource(source=str(file)))
    assert (source.source, source.weights) == ("espnetv2", file)
    chosen = ClassMap.build(VOC_CLASSES[::-1])
    with torch.no_grad():
        expected = model(image()).flip(1)
    assert expected.std() > 0.01
    for named in (TeacherSource(source=str(file)), TeacherSource(source="espnetv2", weights=file)):
        assert is_data(named)
        assert torch.allclose(open_teacher(named, chosen).logits(image()), expected, atol=1e-4)
    with pytest.raises(ConfigError, match="random weights"):
        open_teacher("espnetv2", chosen)


def test_weights_say_that_they_need_their_network(tmp_path: Path) -> None:
    for name in ("a.pth", "b.ckpt"):
        torch.save({"state_dict": network().state_dict()}, tmp_path / name)
        assert "how it is built (0.weight, 0.bias, ...)" in told(tmp_path / name)
        assert f"{{source: MODULE:FUNCTION, weights: {tmp_path / name}}}" in told(tmp_path / name)
    (tmp_path / "net.py").write_text("")
    assert "name its function as net:FUNCTION" in told(tmp_path / "net.py")
    (tmp_path / "m.xml").write_text("<net/>")
    assert "give the .onnx file" in told(tmp_path / "m.xml")


def test_checkpoints_of_other_programs_name_the_command_that_exports_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    foreign = ModuleType("ultralytics.nn.tasks")
    foreign.Model = type("Model", (), {"__module__": "ultralytics.nn.tasks", "__qualname__": "Model"})  # type: ignore[attr-defined]
    for name in ("ultralytics", "ultralytics.nn", "ultralytics.nn.tasks"):
        monkeypatch.setitem(sys.modules, name, foreign)
    torch.save({"model": foreign.Model()}, tmp_path / "yolo.pt")
    assert f"yolo export model={tmp_path / 'yolo.pt'} format=onnx" in told(tmp_path / "yolo.pt")
    (tmp_path / "old.pt").write_bytes(pickle.dumps({"model": foreign.Model()}, protocol=2))
    assert "checkpoint of Ultralytics" in told(tmp_path / "old.pt")
    tensors: dict[str, Any] = {f"{part}.conv.weight": torch.zeros(2) for part in ("backbone", "decode_head")}
    torch.save({"state_dict": tensors, "meta": {}}, tmp_path / "segformer.pth")
    assert "MMDeploy" in told(tmp_path / "segformer.pth")


def test_the_prefixes_of_training_code_are_taken_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mynet_r.py").write_text(
        "from torch import nn\n"
        "def build(): return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 1))\n"
    )
    monkeypatch.chdir(tmp_path)
    expected = network()(image().float())
    for prefix in ("", "module.", "model.", "net.", "model.net.", "module.model."):
        weights = tmp_path / "weights.ckpt"
        others = {"criterion.weight": torch.ones(2)} if prefix.startswith("model.") else {}
        named = {f"{prefix}{name}": value for name, value in network().state_dict().items()}
        torch.save({"state_dict": {**named, **others}}, weights)
        teacher = open_teacher(TeacherSource(source="mynet_r:build", weights=weights), CLASSES)
        assert torch.allclose(teacher.logits(image()), expected, atol=1e-4)
