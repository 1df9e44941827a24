"""Folders of transformers and segmentation-models-pytorch are opened like folders of ours."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import segmentation_models_pytorch as smp
import torch
from torch import nn

from segshrink.errors import ConfigError, FileError, ModelError
from segshrink.model_file import ModelFile
from segshrink.models import load_model
from segshrink.prediction import open_backend

CHANNELS = (16, 8, 8, 8, 8)


@pytest.fixture
def unet(tmp_path: Path) -> nn.Module:
    network = smp.Unet("resnet18", encoder_weights=None, classes=3, in_channels=4, decoder_channels=CHANNELS).eval()
    network.save_pretrained(tmp_path / "unet")
    return network


@torch.no_grad()
def test_a_folder_of_smp_is_a_model(tmp_path: Path, unet: nn.Module, caplog: pytest.LogCaptureFixture) -> None:
    model = load_model(tmp_path / "unet")
    assert model.description.id == "smp:Unet/resnet18"
    assert model.description.classes.names == ("class 0", "class 1", "class 2")
    assert "doesn't name its classes; name them in order" in caplog.text
    (tmp_path / "unet.yaml").write_text("classes: [a, b, c]\nmean: 10\nstd: 20\n")
    model = load_model(tmp_path / "unet")
    assert model.description.classes.names == ("a", "b", "c")
    images = torch.randint(0, 256, (1, 4, 64, 96), dtype=torch.uint8)
    assert torch.allclose(model(images), unet((images - 10.0) / 20), atol=1e-4)
    assert open_backend(tmp_path / "unet").bands == 4


def test_what_is_wrong_with_it_is_said(tmp_path: Path, unet: nn.Module) -> None:
    (tmp_path / "unet.yaml").write_text("classes: [a, b]\n")
    with pytest.raises(ModelError, match=r"tells 3 classes apart, but .*unet\.yaml names 2"):
        load_model(tmp_path / "unet")
    (tmp_path / "unet.yaml").write_text("layout: NHWC\n")
    with pytest.raises(ConfigError, match="says 'layout' itself"):
        load_model(tmp_path / "unet")
    (tmp_path / "unet.yaml").unlink()
    (tmp_path / "unet" / "model.safetensors").unlink()
    with pytest.raises(FileError, match=r"holds no model\.safetensors"):
        load_model(tmp_path / "unet")
    del unet


@torch.no_grad()
def test_a_folder_of_transformers_is_a_model_with_its_classes(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_sizes": [8, 8, 8, 8], "depths": [1] * 4, "num_attention_heads": [1] * 4, "decoder_hidden_size": 8}
    names = {0: "water", 1: "roof"}
    config = transformers.SegformerConfig(**sizes, id2label=names, label2id={name: key for key, name in names.items()})
    network = transformers.SegformerForSemanticSegmentation(config).eval()
    network.save_pretrained(tmp_path / "big", max_shard_size="10KB")
    transformers.SegformerImageProcessor().save_pretrained(tmp_path / "big")
    model = load_model(tmp_path / "big")
    assert model.description.classes.names == ("water", "roof")
    images = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    logits = network(pixel_values=model.normalize(images)).logits
    expected = nn.functional.interpolate(logits, size=(64, 64), mode="bilinear", align_corners=False)
    assert torch.allclose(model(images), expected, atol=1e-4)
    # Its weights lie in several files, all of which count.
    file = ModelFile.find(tmp_path / "big")
    files = list((tmp_path / "big").glob("*.safetensors"))
    assert len(files) > 1
    assert file.size_bytes == sum(path.stat().st_size for path in files)
    assert len(file.sha256()) == 64


def test_other_folders_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"name": "x"}))
    with pytest.raises(ModelError, match="not of a model that segshrink saved"):
        load_model(tmp_path)
