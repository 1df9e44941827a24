"""Weights of strangers: safe to read, and fitted to the right encoder."""

from __future__ import annotations

import argparse
import json
import os
import pickle
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from segshrink.errors import FileError, ModelError
from segshrink.models import build_model, read_tensors
from segshrink.models.weights import pickled_class

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


class Harmless:
    """What training code saves beside its weights; making it is seen."""

    made: ClassVar[list[object]] = []

    def __init__(self) -> None:
        self.rate = 1

    def __setstate__(self, state: object) -> None:
        self.made.append(state)


class Evaluated:
    """Runs code when it is loaded the usual way."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return eval, ("__import__('os').environ.setdefault('SEGSHRINK_OWNED', '1')",)


def test_tensors_are_read_beside_python_objects_of_which_none_is_made(tmp_path):
    content = {
        "model": {"weight": torch.ones(2)},
        "args": argparse.Namespace(rate=1),
        "path": tmp_path,
        "best": np.float64(0.5),
        "own": Harmless(),
        "called": Evaluated(),
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 1.0}]},
    }
    torch.save(content, tmp_path / "weights.pth")
    assert read_tensors(tmp_path / "weights.pth")["weight"].tolist() == [1, 1]
    assert Harmless.made == []
    assert "SEGSHRINK_OWNED" not in os.environ
    torch.save(content, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    with pytest.raises(ModelError, match="Python objects"):
        read_tensors(tmp_path / "old.pth")


def test_a_network_that_was_pickled_whole_gives_its_tensors_and_its_class(tmp_path):
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    for name, content in (("whole.pth", network), ("inside.ckpt", {"ema": network, "epoch": 3})):
        torch.save(content, tmp_path / name)
        tensors = read_tensors(tmp_path / name)
        assert tensors.keys() == network.state_dict().keys()
        assert all(torch.equal(tensors[name], value) for name, value in network.state_dict().items())
        assert pickled_class(tmp_path / name) == "torch.nn.modules.container:Sequential"
    torch.save(network.state_dict(), tmp_path / "plain.pth")
    assert pickled_class(tmp_path / "plain.pth") is None


def test_a_network_that_contains_itself_is_refused(tmp_path):
    network = nn.Sequential(nn.Conv2d(3, 4, 1))
    network._modules["again"] = network
    torch.save(network, tmp_path / "loop.pth")
    with pytest.raises(ModelError, match=r"loop\.pth is not a file of weights or is damaged"):
        read_tensors(tmp_path / "loop.pth")


@pytest.mark.parametrize("wrapper", ["ema", "teacher", "params", "state_dict", "net", "anything"])
def test_weights_under_any_single_name_are_found(tmp_path, wrapper):
    torch.save({wrapper: {"weight": torch.ones(2)}, "epoch": 3, "loss": [0.5]}, tmp_path / "weights.pth")
    assert read_tensors(tmp_path / "weights.pth")["weight"].tolist() == [1, 1]
    torch.save({"state": {wrapper: {"weight": torch.ones(2)}}}, tmp_path / "deep.pth")
    assert read_tensors(tmp_path / "deep.pth")["weight"].tolist() == [1, 1]


def test_of_several_the_usual_name_is_taken_with_a_word_and_others_are_asked_for(tmp_path, caplog):
    weights = {"weight": torch.ones(2)}, {"weight": torch.zeros(2)}
    torch.save(dict(zip(("model", "model_ema"), weights, strict=True)), tmp_path / "weights.pth")
    assert read_tensors(tmp_path / "weights.pth")["weight"].tolist() == [1, 1]
    assert "'model_ema' as well as 'model'" in caplog.text
    torch.save(dict(zip(("student", "teacher"), weights, strict=True)), tmp_path / "weights.pth")
    with pytest.raises(ModelError, match="under 'student', 'teacher'; save those that you mean alone"):
        read_tensors(tmp_path / "weights.pth")


def test_weights_in_several_files_are_read_by_their_index(tmp_path):
    for number in range(2):
        save_file({f"weight{number}": torch.full((2,), float(number))}, tmp_path / f"part{number}.safetensors")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {f"weight{n}": f"../x/part{n}.safetensors" for n in range(2)}}))
    assert {name: value.tolist() for name, value in read_tensors(index).items()} == {
        "weight0": [0, 0],
        "weight1": [1, 1],
    }
    index.write_text("[]")
    with pytest.raises(ModelError, match="lists no files of weights"):
        read_tensors(index)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty; copy, download"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 12\n", "git lfs pull"),
        (b"\n<!DOCTYPE html>\n<html><body>404</body></html>", "a web page, not a model"),
    ],
)
@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
def test_what_a_failed_download_leaves_is_named(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FileError, match=words):
        read_tensors(tmp_path / name)


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
@pytest.mark.parametrize("content", [b"hello, this is text\n" * 9, b"\xff\xd8\xff\xe0JFIF" * 9])
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
