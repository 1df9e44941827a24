"""Model folders: what was saved comes back bit by bit, and damage is named."""

from __future__ import annotations

import json
import os

import pytest
import torch

from segshrink.classes import ClassMap
from segshrink.errors import FileError, ModelError, SegshrinkError
from segshrink.models import ModelDescription, Normalization, build_model, load_model

UNET = {"width": 2, "depth": 2}


@pytest.fixture
def saved(classes, tmp_path):
    build_model("unet", classes, options=UNET).save(tmp_path / "model")
    return tmp_path / "model"


def change(folder, **parts):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **parts}))


@pytest.mark.parametrize(
    ("identity", "options", "bands"),
    [
        ("unet", {"width": 3, "depth": 3, "batch_norm": False}, 1),
        ("mobile", {"width": 0.25}, 4),
        ("separable-unet", {"width": 0.125}, 3),
        ("smp:Unet/mobilenet_v2", {"decoder_channels": [64, 32, 16, 8, 8]}, 3),
        ("torchvision:lraspp_mobilenet_v3_large", {}, 2),
    ],
)
def test_roundtrip_is_exact(classes, tmp_path, identity, options, bands):
    normalization = Normalization(tuple(0.1 + i / 3 for i in range(bands)), tuple(1 / 3 + i for i in range(bands)))
    model = build_model(identity, classes, options=options, bands=bands, normalization=normalization)
    model.to(memory_format=torch.channels_last)
    model(torch.randint(0, 256, (2, bands, 32, 32)))  # running statistics move
    model.eval().save(tmp_path / "model")
    loaded = load_model(tmp_path / "model").eval()
    assert loaded.description == model.description
    assert loaded.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in model.state_dict().items())
    images = torch.randint(0, 256, (1, bands, 45, 37), dtype=torch.uint8)
    with torch.no_grad():
        assert torch.equal(loaded.to(memory_format=torch.channels_last)(images), model(images))


def test_description_keeps_everything():
    classes = ClassMap.build([("a", "#010203", 4), ("b", "#FFFFFF", 9)], ignore=[7])
    description = ModelDescription(
        "unet", classes, 2, Normalization((1.5, 2.5), (3.0, 4.0)), 16, {"width": 8}, ("red", "infrared"), "uint16"
    )
    assert ModelDescription.from_dict(json.loads(json.dumps(description.to_dict()))) == description
    with pytest.raises(ModelError, match="band names"):
        ModelDescription("unet", classes, 2, Normalization((1.5, 2.5), (3.0, 4.0)), 16, band_names=("red",))
    with pytest.raises(ModelError, match="takes 3 bands but its normalization has 2"):
        ModelDescription("unet", classes, 3, Normalization((1.5, 2.5), (3.0, 4.0)), 16)


def test_a_run_folder_gives_its_model(saved, tmp_path):
    (tmp_path / "run.json").write_text("{}")
    assert load_model(tmp_path).description == load_model(saved).description


def test_saving_again_replaces_and_leaves_nothing_behind(classes, saved):
    other = build_model("unet", classes, options={**UNET, "width": 3})
    other.save(saved)
    assert load_model(saved).description.options["width"] == 3
    assert [path.name for path in saved.parent.iterdir()] == ["model"]
    assert {path.name for path in saved.iterdir()} == {"config.json", "model.safetensors"}


def test_saving_over_something_else_is_refused(classes, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"cat")
    with pytest.raises(FileError, match=r"cat\.jpg was not written by segshrink"):
        build_model("unet", classes, options=UNET).save(tmp_path / "photos")
    assert (tmp_path / "photos" / "cat.jpg").exists()


def test_a_failed_save_leaves_the_old_model(classes, saved, monkeypatch):
    before = (saved / "model.safetensors").read_bytes()

    def full(*arguments, **named):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("segshrink.models.folder.save_file", full)
    with pytest.raises(FileError, match="No space left on device"):
        build_model("unet", classes, options={**UNET, "width": 3}).save(saved)
    assert (saved / "model.safetensors").read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == ["model"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_saving_without_permission(classes, tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(FileError, match="permission"):
        build_model("unet", classes, options=UNET).save(tmp_path / "model")


def test_loading_draws_no_random_numbers(saved):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    load_model(saved)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"id": "unett"}, "did you mean 'unet'"),
        ({"id": "smp:Unet/resnet43"}, "unknown encoder 'resnet43'"),
        ({"options": {"widht": 2}}, "did you mean 'width'"),
        ({"options": {"width": 4, "depth": 2}}, "doesn't fit 'unet' of config.json: .* the first is"),
        ({"options": {"width": 2, "depth": 3}}, "doesn't fit"),
        ({"classes": {"names": ["a", "b"], "colors": ["#000000", "#FFFFFF"]}}, "doesn't fit"),
        ({"classes": {"names": ["a", "b"]}}, "config.json: .*damaged"),
        ({"normalization": {"mean": [1, 2], "std": [1, 1]}}, "takes 3 bands but its normalization has 2"),
        ({"normalization": None}, "damaged"),
        ({"bands": "many"}, "damaged"),
        ({"format": 99}, "format 99"),
        ({"format": None}, "format None"),
    ],
)
def test_damaged_configuration_is_named(saved, parts, words):
    change(saved, **parts)
    with pytest.raises(ModelError, match=words) as caught:
        load_model(saved)
    assert "\n" not in str(caught.value)
    assert "config.json" in str(caught.value)


def test_damaged_files_are_named(saved):
    weights = saved / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match=r"model\.safetensors is damaged"):
        load_model(saved)
    weights.unlink()
    with pytest.raises(FileError, match=r"no weight file at .*model\.safetensors"):
        load_model(saved)
    (saved / "config.json").write_text("{")
    with pytest.raises(FileError, match="not valid JSON"):
        load_model(saved)
    (saved / "config.json").write_text("[]")
    with pytest.raises(ModelError, match="must hold a JSON object"):
        load_model(saved)


def test_classes_and_bands_must_match(classes, saved):
    reordered = ClassMap.build([(name, None, None) for name in reversed(classes.names)])
    assert load_model(saved, classes=reordered, bands=3).description.classes == classes
    with pytest.raises(ModelError, match=r"Building.*but road, sky are asked for"):
        load_model(saved, classes=ClassMap.build([("road", None, None), ("sky", None, None)]))
    with pytest.raises(ModelError, match="takes 3 bands, but images have 4"):
        load_model(saved, bands=4)


def test_ids_need_classes(classes):
    assert load_model("mobile", classes=classes, bands=2).description.bands == 2
    with pytest.raises(ModelError, match="'mobile' is a network without classes"):
        load_model("mobile")
    with pytest.raises(ModelError, match="did you mean 'mobile'"):
        load_model("mobille")


@pytest.mark.parametrize("source", ["./absent", "runs/absent", "/absent/model"])
def test_missing_folders_are_not_taken_for_ids(source):
    with pytest.raises(FileError, match="no model folder"):
        load_model(source)


def test_files_and_empty_folders_are_no_models(tmp_path):
    (tmp_path / "model.pth").write_bytes(b"x")
    with pytest.raises(ModelError, match="is a file"):
        load_model(tmp_path / "model.pth")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SegshrinkError, match=r"has no config\.json"):
        load_model(tmp_path / "empty")
