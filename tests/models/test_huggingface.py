"""Networks of transformers, from local folders: nothing is downloaded."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from segshrink.classes import ClassMap
from segshrink.errors import FileError, MissingExtraError, ModelError
from segshrink.models import SegmentationModel, Taps, build_model, load_model
from segshrink.models.huggingface import load_huggingface

transformers = pytest.importorskip("transformers")

SEGFORMER = {
    "depths": [1, 1, 1, 1], "hidden_sizes": [8, 8, 16, 16], "num_attention_heads": [1, 1, 2, 2],
    "decoder_hidden_size": 16,
}  # fmt: skip
NAMES = ("wall", "sky", "door", "door")


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **named: object) -> None:
        raise AssertionError("a network connection was tried")

    monkeypatch.setattr("socket.socket.connect", refuse)


def save(model: torch.nn.Module, folder: Path) -> Path:
    """Save a model with weights and running averages that, unlike those of its first step, tell inputs apart."""
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.kaiming_normal_(parameter)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    model.train()(pixel_values=torch.rand(2, 3, 64, 64))
    transformers.utils.logging.disable_progress_bar()
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def segformer(tmp_path: Path) -> Path:
    """A folder as the hub has them: a SegFormer of four classes and its preprocessor."""
    config = transformers.SegformerConfig(**SEGFORMER, id2label=dict(enumerate(NAMES)))
    folder = save(transformers.SegformerForSemanticSegmentation(config), tmp_path / "segformer")
    processor = transformers.SegformerImageProcessor(
        image_mean=[0.1, 0.2, 0.3], image_std=[0.5, 0.6, 0.7], do_resize=False
    )
    processor.save_pretrained(folder)
    return folder


def upernet() -> torch.nn.Module:
    backbone = transformers.ConvNextConfig(
        depths=[1, 1, 1, 1], hidden_sizes=[8, 8, 8, 16], out_features=["stage1", "stage2", "stage3", "stage4"]
    )
    config = transformers.UperNetConfig(
        backbone_config=backbone, hidden_size=8, num_labels=3, auxiliary_in_channels=8, auxiliary_channels=4
    )
    return transformers.UperNetForSemanticSegmentation(config)


@torch.no_grad()
def reference(folder: Path, image: np.ndarray) -> torch.Tensor:
    """What transformers itself answers, by its own preprocessor and its own resizing."""
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    inputs = processor(images=image, return_tensors="pt")
    model = transformers.AutoModelForSemanticSegmentation.from_pretrained(folder).eval()
    logits = model(**inputs).logits
    return torch.nn.functional.interpolate(logits, size=image.shape[:2], mode="bilinear", align_corners=False)


@torch.no_grad()
def answer(model: SegmentationModel, image: np.ndarray) -> torch.Tensor:
    return model.eval()(torch.from_numpy(image).permute(2, 0, 1)[None])


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_a_trained_folder_answers_as_transformers_does(segformer: Path) -> None:
    model = load_huggingface(str(segformer))
    assert model.description.classes.names == ("wall", "sky", "door", "door (2)")
    assert model.description.normalization.mean == pytest.approx((25.5, 51, 76.5))
    image = noise(64, 96)
    expected = reference(segformer, image)
    assert expected.std() > 0.1
    assert torch.allclose(answer(model, image), expected, atol=1e-4)
    assert answer(model, noise(37, 50)).shape == (1, 4, 37, 50)


def test_a_single_label_has_a_background(tmp_path: Path) -> None:
    config = transformers.SegformerConfig(**SEGFORMER, id2label={0: "building"})
    folder = save(transformers.SegformerForSemanticSegmentation(config), tmp_path / "one")
    model = load_huggingface(str(folder))
    assert model.description.classes.names == ("background", "building")
    # It has no preprocessor either, so that its pixels are scaled as ImageNet's.
    with torch.no_grad():
        z = model.network((torch.full((1, 3, 64, 64), 9.0) - model.mean) / model.std)
        found = model(torch.full((1, 3, 64, 64), 9, dtype=torch.uint8))
    assert torch.allclose(found[:, 1:], torch.nn.functional.interpolate(z, size=(64, 64), mode="bilinear"), atol=1e-5)
    assert (found[:, 0] == 0).all()
    model.save(tmp_path / "ours")
    assert load_model(tmp_path / "ours").description == model.description


def test_bands_that_its_preprocessor_reverses_are_reversed(tmp_path: Path) -> None:
    config = transformers.MobileViTConfig(
        hidden_sizes=[8, 8, 8], neck_hidden_sizes=[8, 8, 8, 8, 8, 8, 16], num_attention_heads=2, aspp_out_channels=8,
        atrous_rates=[1, 2, 3], num_labels=3,
    )  # fmt: skip
    folder = save(transformers.MobileViTForSemanticSegmentation(config), tmp_path / "mobilevit")
    transformers.MobileViTImageProcessor(do_resize=False, do_center_crop=False).save_pretrained(folder)
    image = noise(64, 64)
    model = load_huggingface(str(folder))
    assert model.description.normalization.std == (255, 255, 255)
    assert torch.allclose(answer(model, image), reference(folder, image), atol=1e-4)
    assert not torch.allclose(answer(model, image[:, :, ::-1].copy()), answer(model, image), atol=0.1)
    model.save(tmp_path / "ours")
    assert torch.equal(answer(load_model(tmp_path / "ours"), image), answer(model, image))


def test_networks_of_square_images_take_others_too(tmp_path: Path) -> None:
    config = transformers.DPTConfig(
        hidden_size=8, num_hidden_layers=4, num_attention_heads=2, intermediate_size=8, image_size=64,
        backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[8, 8, 8, 8], fusion_hidden_size=8, num_labels=3,
    )  # fmt: skip
    model = load_huggingface(str(save(transformers.DPTForSemanticSegmentation(config), tmp_path / "dpt")))
    wide = noise(64, 96)
    square = np.concatenate([wide, np.repeat(wide[-1:], 32, axis=0)])
    expected = answer(model, square)[:, :, :64]
    # Apart from the border, where resizing meets the padding.
    assert torch.allclose(answer(model, wide)[:, :, :56], expected[:, :, :56], atol=1e-4)
    assert expected.std() > 1e-3


def test_a_saved_model_needs_neither_the_folder_nor_a_network(tmp_path: Path, classes: ClassMap) -> None:
    folder = save(upernet(), tmp_path / "upernet")
    model = build_model(f"hf:{folder}", classes)
    trained = transformers.UperNetForSemanticSegmentation.from_pretrained(folder)
    # The trained backbone, a new head for other classes, and no auxiliary head.
    for name, value in trained.backbone.state_dict().items():
        assert torch.equal(model.network.encoder.state_dict()[name], value)
    assert not any("auxiliary" in name for name in model.network.state_dict())
    assert model.description.id == "hf:upernet"
    model.save(tmp_path / "ours")
    folder.rename(tmp_path / "gone")
    assert {path.name for path in (tmp_path / "ours").iterdir()} == {"config.json", "model.safetensors"}
    assert str(tmp_path) not in (tmp_path / "ours" / "config.json").read_text()
    loaded = load_model(tmp_path / "ours")
    assert loaded.description == model.description
    image = noise(50, 40)
    assert torch.equal(answer(loaded, image), answer(model, image))
    again = tmp_path / "again"
    loaded.save(again)
    assert json.loads((again / "config.json").read_text()) == json.loads((tmp_path / "ours/config.json").read_text())


def test_a_network_from_a_configuration_alone(classes: ClassMap) -> None:
    model = build_model("hf:segformer", classes, bands=5, options={"config": SEGFORMER})
    assert model.network.model.config.hidden_sizes == [8, 8, 16, 16]
    assert model.train()(torch.zeros(2, 5, 40, 33)).shape == (2, 6, 40, 33)
    assert model.description.normalization.bands == 5
    assert model.description.options["config"]["hidden_sizes"] == [8, 8, 16, 16]


@pytest.mark.parametrize(
    ("identity", "options", "words"),
    [
        ("hf:segfromer", {"config": {}}, "did you mean 'segformer'"),
        ("hf:segformer", {"config": 3}, "config must be a mapping"),
        ("hf:segformer", {"config": {"depths": "many"}}, "can't be opened"),
        ("hf:segformer", {"config": SEGFORMER | {"sr_ratios": [100, 1, 1, 1]}}, "can't be opened"),
        ("hf:segformer", {"cofnig": {}}, "did you mean 'config'"),
        ("hf:segformer", {"config": {}, "order": "gbr"}, "order must be rgb or bgr"),
    ],
)
def test_wrong_options_are_one_sentence(classes: ClassMap, identity: str, options: dict, words: str) -> None:
    with pytest.raises(ModelError, match=words) as caught:
        build_model(identity, classes, options=options)
    assert "\n" not in str(caught.value)


def test_what_is_no_trained_model_is_refused(tmp_path: Path, segformer: Path, classes: ClassMap) -> None:
    with pytest.raises(FileError, match="no folder at"):
        load_huggingface(str(tmp_path / "absent"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="can't be opened"):
        load_huggingface(str(tmp_path / "empty"))
    backbone = save(transformers.SegformerModel(transformers.SegformerConfig(**SEGFORMER)), tmp_path / "backbone")
    with pytest.raises(ModelError, match=r"lacks weights of \d+ tensors, the first is decode_head"):
        load_huggingface(str(backbone))
    # A student may start from a backbone alone.
    assert build_model(f"hf:{backbone}", classes).num_classes == 6
    config = json.loads((segformer / "config.json").read_text())
    (segformer / "config.json").write_text(json.dumps({**config, "model_type": "bert"}))
    with pytest.raises(ModelError, match="can't be opened"):
        load_huggingface(str(segformer))


def test_code_from_strangers_is_never_run(tmp_path: Path, segformer: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple:
            return os.mkdir, (str(tmp_path / "ran"),)

    weights = torch.nn.Linear(1, 1).state_dict()
    (segformer / "model.safetensors").unlink()
    torch.save({**weights, "x": Payload()}, segformer / "pytorch_model.bin")
    with pytest.raises(ModelError) as caught:
        load_huggingface(str(segformer))
    assert "\n" not in str(caught.value)
    config = json.loads((segformer / "config.json").read_text())
    code = {"AutoConfig": "code.Config", "AutoModelForSemanticSegmentation": "code.Model"}
    (segformer / "code.py").write_text(f"import os; os.mkdir({str(tmp_path / 'ran')!r})")
    (segformer / "config.json").write_text(json.dumps({**config, "model_type": "strange", "auto_map": code}))
    with pytest.raises(ModelError, match="can't be opened"):
        load_huggingface(str(segformer))
    assert not (tmp_path / "ran").exists()


def test_its_stages_can_be_tapped(classes: ClassMap) -> None:
    model = build_model("hf:segformer", classes, options={"config": SEGFORMER}).eval()
    images = torch.arange(3 * 64 * 64).remainder(251).reshape(1, 3, 64, 64).to(torch.uint8)
    names = ("stage:2", "stage:3", "stage:4", "stage:5", "encoder", "decoder")
    with torch.no_grad(), Taps(model, names) as taps:
        model(images)
        *stages, encoder, decoder = (taps.features[name] for name in names)
        inner = model.network.model
        expected = inner(pixel_values=model.normalize(images), output_hidden_states=True)
        for stage, state in zip([*stages, encoder], [*expected.hidden_states, expected.hidden_states[-1]], strict=True):
            assert torch.equal(stage, state)
        assert torch.allclose(inner.decode_head.classifier(decoder), expected.logits, atol=1e-6)


def test_the_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, segformer: Path) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtraError, match=r"'hf:.*\[hf\]"):
        load_huggingface(str(segformer))
