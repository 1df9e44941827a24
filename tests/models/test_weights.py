"""Weights of strangers: safe to read, and fitted to the right encoder."""

from __future__ import annotations

import argparse
import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from segshrink.errors import FileError, ModelError
from segshrink.models import build_model, read_tensors

FILE = "mobilenet_v2_imagenet.safetensors"


class Evil:
    """A pickle that would run a command when it is loaded the usual way."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("kind", ["zip", "legacy", "raw", "raw-0"])
def test_malicious_pickle_is_refused_in_one_sentence(classes, tmp_path, kind):
    path, mark = tmp_path / "weights.pth", tmp_path / "owned"
    content = {"state_dict": {"weight": torch.zeros(2)}, "extra": Evil(mark)}
    if kind.startswith("raw"):
        path.write_bytes(pickle.dumps(Evil(mark), protocol=0 if kind == "raw-0" else None))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")
    with pytest.raises(ModelError, match="could run code, so it is not loaded") as caught:
        build_model("mobile", classes, encoder_weights=path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not mark.exists()


def test_pickled_objects_without_harm_are_refused_too(tmp_path):
    torch.save({"weight": torch.zeros(2), "args": argparse.Namespace(rate=1)}, tmp_path / "weights.pth")
    with pytest.raises(ModelError, match="Python objects"):
        read_tensors(tmp_path / "weights.pth")


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
@pytest.mark.parametrize("content", [b"", b"hello, this is text\n" * 9, b"\xff\xd8\xff\xe0JFIF" * 9])
def test_files_that_are_no_weights(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ModelError, match="damaged"):
        read_tensors(path)


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
def test_truncated_weights(tmp_path, name):
    path = tmp_path / name
    tensors = {"weight": torch.zeros(500)}
    if path.suffix == ".pth":
        torch.save(tensors, path)
    else:
        save_file(tensors, path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ModelError, match="damaged"):
        read_tensors(path)


def test_missing_and_misnamed_files(tmp_path):
    with pytest.raises(FileError, match="no weight file"):
        read_tensors(tmp_path / "absent.pth")
    (tmp_path / "weights.h5").write_bytes(b"keras")
    with pytest.raises(ModelError, match="not a weight file by its name"):
        read_tensors(tmp_path / "weights.h5")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ModelError, match="no named tensors"):
        read_tensors(tmp_path / "list.pth")


@pytest.mark.parametrize(
    ("prefix", "wrapper"), [("", None), ("encoder.", "state_dict"), ("module.", None), ("network.encoder.", "model")]
)
def test_wrapped_and_prefixed_names_are_found(classes, tmp_path, prefix, wrapper):
    source = build_model("mobile", classes).network.encoder
    tensors = {prefix + name: value for name, value in source.state_dict().items()}
    torch.save({wrapper: tensors, "epoch": 3} if wrapper else tensors, tmp_path / "weights.pth")
    model = build_model("mobile", classes, encoder_weights=tmp_path / "weights.pth")
    for name, value in model.network.encoder.state_dict().items():
        assert torch.equal(value, source.state_dict()[name])


def test_weights_that_lack_a_tenth_are_refused_and_named(classes, tmp_path):
    tensors = build_model("mobile", classes).network.encoder.state_dict()
    kept = {name: value for name, value in tensors.items() if not name.startswith(("features.11.", "features.12."))}
    save_file(kept, tmp_path / "weights.safetensors")
    with pytest.raises(ModelError, match=r"features\.11\.conv\.0\.0\.weight is missing.* and \d+ more"):
        build_model("mobile", classes, encoder_weights=tmp_path / "weights.safetensors")


def test_weights_of_another_network_are_refused(classes, tmp_path):
    save_file({"layer1.0.conv1.weight": torch.zeros(64, 64, 3, 3)}, tmp_path / "weights.safetensors")
    for identity in ("mobile", "unet", "smp:Unet/mobilenet_v2", "torchvision:lraspp_mobilenet_v3_large"):
        with pytest.raises(ModelError, match="fits 0 of the encoder's"):
            build_model(identity, classes, encoder_weights=tmp_path / "weights.safetensors")


@pytest.mark.parametrize("identity", ["mobile", "smp:Unet/mobilenet_v2"])
def test_shared_weights_load_whole_and_set_their_normalization(classes, shared_weights, identity):
    model = build_model(identity, classes, encoder_weights=shared_weights / FILE)
    given = load_file(shared_weights / FILE)
    found = {name: value for name, value in model.network.encoder.state_dict().items() if "num_batches" not in name}
    assert all(torch.equal(value, given[name]) for name, value in found.items())
    assert model.description.normalization.mean == (128.0, 128.0, 128.0)
    assert model.description.normalization.std == (128.0, 128.0, 128.0)


def test_pretrained_weights_fit_width_one_only(classes, shared_weights):
    with pytest.raises(ModelError, match=r"there but .* at this width"):
        build_model("mobile", classes, options={"width": 0.5}, encoder_weights=shared_weights / FILE)


@pytest.mark.parametrize("bands", [1, 4, 6])
def test_first_convolution_keeps_its_answer_to_gray(classes, shared_weights, bands):
    # An image whose bands are all alike gives the same first features with 3 bands and any multiple of it.
    weight = load_file(shared_weights / FILE)["features.0.0.weight"]
    model = build_model("mobile", classes, bands=bands, encoder_weights=shared_weights / FILE)
    fitted = model.network.encoder.features[0][0].weight
    assert fitted.shape == (32, bands, 3, 3)
    for band in range(bands):
        assert torch.allclose(fitted[:, band], weight[:, band % 3] * 3 / bands)
    if bands % 3 == 0:
        assert torch.allclose(fitted.sum(1), weight.sum(1), atol=1e-6)


def test_pretrained_features_tell_images_apart(classes, shared_weights):
    # Random weights behind batch statistics of ImageNet would give numbers near zero or far too large.
    model = build_model("mobile", classes, encoder_weights=shared_weights / FILE).eval()
    images = torch.rand(2, 3, 64, 64) * 255
    with torch.no_grad():
        features = model.network.encoder(model.normalize(images))
    assert all(0.05 < value.std() < 50 for value in features)


def test_a_folder_whose_name_is_not_utf_8_holds_weights_as_any_other(tmp_path):
    folder = tmp_path / os.fsdecode(b"Gel\xe4nde")
    folder.mkdir()
    save_file({"a": torch.arange(3.0)}, tmp_path / "w.safetensors")
    moved = (tmp_path / "w.safetensors").rename(folder / "w.safetensors")
    assert read_tensors(moved)["a"].tolist() == [0, 1, 2]
