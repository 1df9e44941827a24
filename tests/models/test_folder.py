"""Model folders: what was saved comes back bit by bit, and damage is named."""

from __future__ import annotations

import json
import os
import struct
import zipfile

import pytest
import torch

from segshrink.classes import ClassMap
from segshrink.errors import FileError, ModelError, SegshrinkError
from segshrink.model_description import ModelDescription, Normalization
from segshrink.models import SegmentationModel, build_model, load_model, read_tensors

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
    loaded = load_model(tmp_path / "model")
    assert not any(module.training for module in loaded.modules())
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
    with pytest.raises(FileError, match="something other than a model"):
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


@pytest.mark.skipif(getattr(os, "geteuid", lambda: 0)() == 0, reason="root may write anywhere")
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
    with pytest.raises(ModelError, match="not a file of weights"):
        load_model(tmp_path / "model.pth")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SegshrinkError, match=r"has no config\.json"):
        load_model(tmp_path / "empty")


@pytest.fixture
def offline(monkeypatch):
    def refuse(*arguments, **named):
        pytest.fail("a network connection was tried")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("socket.getaddrinfo", refuse)


@pytest.mark.parametrize(
    "parts",
    [
        {"id": "mobile", "options": {"decoder_channels": [20_000] * 4}},
        {"id": "mobile", "options": {"decoder_channels": [10**12] * 4}},
        {"id": "unet", "options": {"width": 512, "depth": 8}},
        {"id": "smp:Unet/resnet18", "options": {"decoder_channels": [20_000] * 5}},
        {"id": "smp:Unet/resnet18", "options": {"decoder_channels": ["x"] * 5}},
        {"id": "smp:Unet/resnet18", "options": {"decoder_channels": [-1] * 5}},
    ],
)
def test_a_network_larger_than_its_weights_is_refused_without_memory_for_it(saved, parts):
    from segshrink.machine import peak_memory_mb

    change(saved, **parts)
    before = peak_memory_mb()
    with pytest.raises(ModelError, match=r"config\.json"):
        load_model(saved)
    assert peak_memory_mb() < before + 200


def test_no_folder_asks_a_network_or_imports_what_it_names(classes, tmp_path, offline, monkeypatch):
    for name, identity in (("smp", "smp:Unet/resnet18"), ("torchvision", "torchvision:lraspp_mobilenet_v3_large")):
        build_model(identity, classes).save(tmp_path / name)
        change(tmp_path / name, options={"weights": "imagenet"})
        assert load_model(tmp_path / name).description.id == identity
    (tmp_path / "strangers.py").write_text("raise SystemExit('ran')")
    monkeypatch.syspath_prepend(tmp_path)
    for identity in ("strangers:network", "os:system", "hf:nvidia/segformer-b0", "smp:Unet/tu-hf-hub:timm/resnet18"):
        change(tmp_path / "smp", id=identity, options={})
        with pytest.raises(ModelError, match=r"config\.json"):
            load_model(tmp_path / "smp")


@pytest.mark.parametrize("stride", [1, 3, 0, 10**9])
def test_a_stride_that_is_not_the_networks_is_refused(saved, stride):
    change(saved, stride=stride)
    with pytest.raises(ModelError, match="stride"):
        load_model(saved)


def test_a_network_that_cannot_be_built_again_is_not_saved(classes, tmp_path):
    other = ModelDescription("my-net", classes, 3, Normalization.named("half"), 1)
    with pytest.raises(ModelError, match="'my-net'"):
        SegmentationModel(torch.nn.Conv2d(3, len(classes), 1), other).save(tmp_path / "own")
    known = build_model("unet", classes, options=UNET)
    with pytest.raises(ModelError, match=r"'unet'.*tensors differ"):
        SegmentationModel(torch.nn.Conv2d(3, len(classes), 1), known.description).save(tmp_path / "own")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"architectures": ["X"], "model_type": "segformer"}, r"hf:.*other"),
        ({"name": "my web app"}, "not of a model that segshrink saved"),
    ],
)
def test_folders_of_other_libraries_are_told_by_name(tmp_path, config, words):
    folder = tmp_path / "other"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "weights.safetensors").touch()
    with pytest.raises(ModelError, match=words):
        load_model(folder)


def header(entries, data=b""):
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.mark.parametrize(
    "content",
    [
        struct.pack("<Q", 10**15),
        struct.pack("<Q", 90 << 20) + b"{}",
        header({"a": {"dtype": "F32", "shape": [10**9, 10**9], "data_offsets": [0, 4]}}, bytes(4)),
        header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 10**12]}}, bytes(4)),
        header({n: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for n in "ab"}, bytes(4)),
        header({"a": {"dtype": "X99", "shape": [1], "data_offsets": [0, 4]}}, bytes(4)),
        header({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, bytes(4)),
        b"\x80\x04cos\nsystem\n(S'true'\ntR.",
    ],
)
def test_weights_whose_header_lies_are_refused(saved, content):
    (saved / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match=r"model\.safetensors"):
        load_model(saved)


def test_a_packed_checkpoint_is_not_unpacked(tmp_path):
    torch.save({"weight": torch.zeros(1 << 20)}, tmp_path / "plain.pth")
    with (
        zipfile.ZipFile(tmp_path / "plain.pth") as plain,
        zipfile.ZipFile(tmp_path / "packed.pth", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
    assert read_tensors(tmp_path / "plain.pth")["weight"].shape == (1 << 20,)
    with pytest.raises(ModelError, match=r"packed\.pth claims to hold 4,19"):
        read_tensors(tmp_path / "packed.pth")


class Own(torch.nn.Module):
    """A network that no id builds; gives a dictionary of half-size logits."""

    def __init__(self, channels: int = 3, width: int = 4) -> None:
        super().__init__()
        self.first = torch.nn.Conv2d(3, width, 3, padding=1, stride=2)
        self.norm = torch.nn.BatchNorm2d(width)
        self.last = torch.nn.Conv2d(width, channels, 1)

    def forward(self, images):
        return {"out": self.last(self.norm(self.first(images))), "aux": images}


def test_a_wrapped_network_normalizes_and_resizes_as_its_description_says():
    network = Own().eval()
    model = SegmentationModel.wrap(network, classes=["a", "b", "c"], stride=8).eval()
    assert model.network is network
    assert (model.num_classes, model.description.bands) == (3, 3)
    images = torch.randint(0, 256, (1, 3, 30, 45), dtype=torch.uint8)
    scale = Normalization.named("imagenet")
    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (scale.mean, scale.std))
    padded = torch.nn.functional.pad((images - mean) / std, (0, 3, 0, 2), mode="replicate")
    with torch.no_grad():
        logits = torch.nn.functional.interpolate(network(padded)["out"], scale_factor=2, mode="bilinear")
        torch.testing.assert_close(model(images), logits[:, :, :30, :45])


@pytest.mark.parametrize("channels", [1, 2])
def test_one_channel_is_wrapped_for_two_classes(channels):
    model = SegmentationModel.wrap(Own(channels), classes=["a", "b"])
    assert model.description.sigmoid == (channels == 1)
    assert model(torch.zeros(2, 3, 64, 64)).shape == (2, 2, 64, 64)


def test_a_network_of_other_classes_or_bands_is_not_wrapped():
    with pytest.raises(ModelError, match=r"Own gives 3 channels, but 2 .*\(a, b\)"):
        SegmentationModel.wrap(Own(), classes=["a", "b"])
    with pytest.raises(ModelError, match="4 bands"):
        SegmentationModel.wrap(Own(), classes=["a", "b", "c"], bands=4)


def test_a_normalization_of_pixels_from_0_to_1_is_not_taken_for_whole_numbers():
    unit = Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    for dtype in ("uint8", "uint16"):
        with pytest.raises(ModelError, match=r"0\.485.* are for pixels from 0 to 1.*255"):
            SegmentationModel.wrap(Own(), classes=["a", "b", "c"], normalization=unit, dtype=dtype)
    assert SegmentationModel.wrap(Own(), classes=["a", "b", "c"], normalization=unit, dtype="float32")
    assert SegmentationModel.wrap(Own(), classes=["a", "b", "c"], normalization=Normalization((0,) * 3, (1,) * 3))


def test_a_network_of_ones_own_comes_back_with_its_weights(tmp_path):
    classes = ClassMap.build([("a", "#010203", 4), ("b", "#FFFFFF", 9), ("c", "#000000", 1)])
    scale = Normalization((1.5, 2, 3), (4, 5, 6))
    model = SegmentationModel.wrap(Own(), classes=classes, normalization=scale, dtype="uint16")
    model(torch.randint(0, 256, (2, 3, 64, 64)))  # running statistics move
    model.eval().save(tmp_path / "own")
    network = Own()
    loaded = load_model(tmp_path / "own", network=network)
    assert not any(module.training for module in loaded.modules())
    assert loaded.network is network
    assert loaded.description == model.description
    images = torch.randint(0, 256, (1, 3, 45, 37), dtype=torch.uint8)
    with torch.no_grad():
        assert torch.equal(loaded(images), model(images))
    with pytest.raises(ModelError, match=r"'custom:Own'.*network="):
        load_model(tmp_path / "own")
    with pytest.raises(ModelError, match=r"model\.safetensors doesn't fit Own: \d+ tensors"):
        load_model(tmp_path / "own", network=Own(width=5))


def test_a_network_that_an_id_builds_may_be_given_as_well(classes, saved):
    built = build_model("unet", classes, options=UNET).network
    loaded = load_model(saved, network=built)
    assert loaded.description == load_model(saved).description
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), load_model(saved).parameters(), strict=True))


def test_the_working_size_is_saved_and_older_versions_refuse_it(classes, tmp_path):
    model = build_model("unet", classes, options=UNET).eval()
    model.save(tmp_path / "plain")
    small = model.with_resize({"longest": 30})
    small.save(tmp_path / "small")
    formats = [json.loads((tmp_path / name / "config.json").read_text())["format"] for name in ("plain", "small")]
    assert formats == [1, 2]
    loaded = load_model(tmp_path / "small").eval()
    assert loaded.description == small.description
    images = torch.randint(0, 256, (1, 3, 50, 60), dtype=torch.uint8)
    torch.testing.assert_close(loaded(images), small(images))
    assert not torch.allclose(loaded(images), model(images))
    assert "resize" not in json.loads((tmp_path / "plain" / "config.json").read_text())
