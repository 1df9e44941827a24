"""Networks in Keras's files, against Keras's own ``predict``."""

from __future__ import annotations

import json
import os
import sys
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torch import Tensor

from segshrink.compression import shrink
from segshrink.config import Adapter
from segshrink.errors import ConfigError, FileError, ModelError
from segshrink.models import count_parameters, load_model
from segshrink.models.keras import load_keras
from segshrink.models.keras_file import import_keras

NOTHING = Adapter()
# Written by TensorFlow 2.21 with tf_keras 2.21, with what its predict answers about one image.
KERAS_2 = Path(__file__).resolve().parents[1] / "data" / "keras2"
CUSTOM_LAYER = """
import keras

class Twice(keras.layers.Layer):
    def call(self, inputs):
        return 2 * inputs
"""


def pixels(height: int, width: int, count: int = 1) -> Tensor:
    return torch.randint(0, 256, (count, 3, height, width), generator=torch.Generator().manual_seed(1)).byte()


def predicted(model, images: Tensor, *, divide: float = 1.0) -> Tensor:
    """What Keras itself answers, channels first."""
    answer = model.predict(images.permute(0, 2, 3, 1).numpy().astype("float32") / divide, verbose=0)
    return torch.from_numpy(np.ascontiguousarray(answer.transpose(0, 3, 1, 2)))


def probabilities(path: Path, images: Tensor, adapter: Adapter = NOTHING, **settings: bool) -> Tensor:
    with torch.no_grad():
        return load_keras(path, adapter, **settings)(images).softmax(1)


@pytest.mark.parametrize(
    ("kind", "name", "size", "classes"),
    [
        ("unet", "net.keras", 128, 6),
        ("unet", "net.h5", 256, 2),
        ("unet", "net.hdf5", None, 21),
        ("nested", "net.keras", 512, 21),
        ("nested", "net.h5", 128, 3),
        ("nested", "net.keras", None, 2),
        ("one-size", "net.keras", 128, 4),
        ("one-size", "net.h5", 160, 2),
    ],
)
def test_answers_are_those_of_keras(keras_file, kind: str, name: str, size: int | None, classes: int) -> None:
    path, model = keras_file(kind, size=size, classes=classes, name=name)
    images = pixels(size or 128, size or 160)
    expected = predicted(model, images, divide=255.0 if kind == "unet" else 1.0)
    assert expected.std() > 0.003
    assert torch.allclose(probabilities(path, images), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "identity"),
    [("unet.h5", "unet"), ("nested.h5", "custom:nested.h5"), ("nested.keras", "custom:nested.keras")],
)
def test_files_of_tensorflows_keras(name: str, identity: str) -> None:
    answers = np.load(KERAS_2 / "answers.npz")
    images = torch.from_numpy(answers["pixels"]).permute(0, 3, 1, 2)
    expected = torch.from_numpy(answers[name.partition(".")[0]]).permute(0, 3, 1, 2)
    assert torch.allclose(probabilities(KERAS_2 / name, images), expected, rtol=0, atol=1e-4)
    assert load_keras(KERAS_2 / name, NOTHING).description.id == identity


@pytest.mark.parametrize("kind", ["unet", "nested", "one-size"])
def test_sigmoids(keras_file, kind: str) -> None:
    path, model = keras_file(kind, classes=1, head="sigmoid")
    images = pixels(32, 32)
    expected = predicted(model, images, divide=255.0 if kind == "unet" else 1.0)
    assert torch.allclose(probabilities(path, images), torch.cat([1 - expected, expected], 1), rtol=0, atol=1e-4)
    path, model = keras_file(kind, classes=3, head="sigmoid", name="three.keras")
    expected = predicted(model, images, divide=255.0 if kind == "unet" else 1.0)
    assert torch.allclose(probabilities(path, images), expected / expected.sum(1, True), rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", ["unet", "nested"])
def test_scores_without_an_activation_are_logits(keras_file, kind: str) -> None:
    path, model = keras_file(kind, head="linear")
    images = pixels(32, 32)
    with torch.no_grad():
        logits = load_keras(path, NOTHING)(images)
    assert torch.allclose(logits, predicted(model, images, divide=255.0 if kind == "unet" else 1.0), rtol=0, atol=1e-4)


def test_what_is_said_about_the_output_is_believed(keras_file) -> None:
    path, model = keras_file("unet")
    images = pixels(32, 32)
    expected = predicted(model, images, divide=255.0)
    assert torch.allclose(probabilities(path, images, Adapter(output="probabilities")), expected, rtol=0, atol=1e-4)
    assert torch.allclose(probabilities(path, images, Adapter(output="logits")), expected.softmax(1), rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", ["unet", "nested"])
def test_a_file_of_one_size_answers_about_any(keras_file, kind: str) -> None:
    path, fixed = keras_file(kind, size=64)
    _, free = keras_file(kind, size=None, name="free.keras")
    free.set_weights(fixed.get_weights())
    images = pixels(80, 48)
    expected = predicted(free, images, divide=255.0 if kind == "unet" else 1.0)
    assert torch.allclose(probabilities(path, images), expected, rtol=0, atol=1e-4)
    assert load_keras(path, NOTHING).description.stride == (16 if kind == "unet" else 2)


def test_a_network_of_one_size_sees_squares_of_it(keras_file) -> None:
    path, model = keras_file("one-size", size=32)
    images = pixels(64, 96, count=2)
    squares = probabilities(path, images).unfold(2, 32, 32).unfold(3, 32, 32)
    for row in range(2):
        for column in range(3):
            expected = predicted(model, images[:, :, 32 * row :, 32 * column :][:, :, :32, :32])
            assert torch.allclose(squares[:, :, row, column], expected, rtol=0, atol=1e-4)
    assert load_keras(path, NOTHING).description.stride == 32


def test_the_tutorials_unet_becomes_ours(keras_file, tmp_path: Path) -> None:
    path, model = keras_file("unet", classes=6, width=8)
    opened = load_keras(path, NOTHING)
    assert opened.description.id == "unet"
    assert opened.description.options == {"width": 8, "depth": 5, "batch_norm": False}
    assert count_parameters(opened) == model.count_params() == 485_862
    opened.save(tmp_path / "ours")
    images = pixels(48, 80)
    with torch.no_grad():
        assert torch.equal(load_model(tmp_path / "ours")(images), opened(images))
    half = shrink(opened, width=0.5)
    assert half.description.options["width"] == 8  # what was taken away is said by its structure
    assert count_parameters(half) < 0.3 * 485_862


def test_another_network_of_the_same_shapes_is_not_ours(keras_file) -> None:
    keras = import_keras()
    path, model = keras_file("unet")
    model.layers[1].activation = keras.activations.tanh
    model.save(path)
    images = pixels(32, 32)
    assert load_keras(path, NOTHING).description.id == "custom:net.keras"
    assert torch.allclose(probabilities(path, images), predicted(model, images, divide=255.0), rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", ["unet", "nested"])
def test_bands_scaling_and_classes_are_said_beside_the_file(keras_file, kind: str, caplog) -> None:
    path, model = keras_file(kind)
    Path(f"{path}.yaml").write_text("{classes: [Land, Water, Road], order: bgr, mean: [1, 2, 3], std: [4, 5, 6]}")
    images = pixels(32, 32)
    turned = (images.flip(1).float() - torch.tensor([1.0, 2, 3]).view(3, 1, 1)) / torch.tensor([4.0, 5, 6]).view(
        3, 1, 1
    )
    opened = load_model(f"keras:{path}")
    assert opened.description.classes.names == ("Land", "Water", "Road")
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
    with torch.no_grad():
        answer = opened(images).softmax(1)
    assert torch.allclose(answer, predicted(model, turned), rtol=0, atol=1e-4)


def test_what_a_file_does_not_say_is_noticed(keras_file, caplog) -> None:
    path, _ = keras_file("unet")
    assert load_model(path).description.classes.names == ("class 0", "class 1", "class 2")
    notices = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(notices) == 2
    assert all(f"{path}.yaml" in notice for notice in notices)
    assert "name its classes" in notices[0]
    assert "divided by 255" in notices[1]


def test_one_of_several_outputs(keras_file) -> None:
    keras = import_keras()
    path, model = keras_file("unet")
    inner = keras.layers.Conv2D(2, 1, name="deep", activation="softmax")(model.layers[2].output)
    several = keras.Model(model.inputs, [model.outputs[0], inner])
    several.save(path)
    images = pixels(32, 32)
    for choice in (0, 1):
        expected = torch.from_numpy(several.predict(images.permute(0, 2, 3, 1).numpy() / 255.0, verbose=0)[choice])
        answer = probabilities(path, images, Adapter(output_name=choice))
        assert torch.allclose(answer, expected.permute(0, 3, 1, 2), rtol=0, atol=1e-4)
    with pytest.raises(ConfigError, match="no output 'deeper'"):
        load_keras(path, Adapter(output_name="deeper"))


@pytest.mark.parametrize("name", ["net.keras", "net.h5"])
def test_code_in_a_file_runs_only_where_it_is_trusted(tmp_path: Path, name: str) -> None:
    keras, marker = import_keras(), tmp_path / "ran"
    inputs = keras.Input((None, None, 3))
    code = f"lambda images: (__import__('pathlib').Path({str(marker)!r}).touch(), images)[1]"
    scores = keras.layers.Conv2D(2, 1)(keras.layers.Lambda(eval(code), output_shape=(None, None, 3))(inputs))  # noqa: S307
    model = keras.Model(inputs, scores)
    model.save(tmp_path / name)
    marker.unlink(missing_ok=True)
    with pytest.raises(ModelError, match=r"Lambda.*--trust"):
        load_keras(tmp_path / name, NOTHING)
    assert not marker.exists()
    images = pixels(16, 16)
    with torch.no_grad():
        logits = load_keras(tmp_path / name, Adapter(std=1.0), trust=True)(images)
    assert marker.exists()
    assert torch.allclose(logits, predicted(model, images), rtol=1e-4)


@pytest.mark.parametrize("name", ["net.keras", "net.h5"])
def test_layers_of_a_module_are_imported_only_where_it_is_trusted(tmp_path: Path, monkeypatch, name: str) -> None:
    module = f"layers_{tmp_path.name}"
    (tmp_path / f"{module}.py").write_text(CUSTOM_LAYER)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    keras, twice = import_keras(), __import__(module).Twice
    inputs = keras.Input((32, 32, 3))
    model = keras.Model(inputs, twice()(keras.layers.Conv2D(2, 3, padding="same")(inputs)))
    model.save(tmp_path / name)
    del sys.modules[module]
    adapter = Adapter(module=module, std=1.0)
    with pytest.raises(ModelError, match="Twice"):
        load_keras(tmp_path / name, adapter)
    assert module not in sys.modules
    images = pixels(48, 32)
    with torch.no_grad():
        logits = load_keras(tmp_path / name, adapter, trust=True)(images)
    free = keras.Model(anywhere := keras.Input((None, None, 3)), model.layers[2](model.layers[1](anywhere)))
    assert torch.allclose(logits, predicted(free, images), rtol=1e-4)


def test_files_that_are_no_networks(keras_file, tmp_path: Path) -> None:
    keras = import_keras()
    path, model = keras_file("unet")
    model.save_weights(tmp_path / "net.weights.h5")
    (tmp_path / "broken.keras").write_bytes(path.read_bytes()[:200])
    (tmp_path / "broken.h5").write_bytes(b"no HDF5")
    keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Flatten(), keras.layers.Dense(2)]).save(
        tmp_path / "flat.keras"
    )
    (tmp_path / "saved" / "variables").mkdir(parents=True)
    (tmp_path / "saved" / "saved_model.pb").write_bytes(b"")
    for name, kind, words in [
        ("net.weights.h5", ModelError, r"weights alone.*model\.save\('net\.weights\.keras'\)"),
        ("broken.keras", ModelError, "no file that Keras saved"),
        ("broken.h5", ModelError, "no file that Keras saved"),
        ("flat.keras", ModelError, "map of scores"),
        ("absent.keras", FileError, "does not exist"),
        ("saved", ModelError, rf"SavedModel.*load_model\('{tmp_path / 'saved'}'\)\.save\('{tmp_path / 'saved'}\.h5'\)"),
    ]:
        with pytest.raises(kind, match=words) as caught:
            load_keras(f"keras:{tmp_path / name}", NOTHING)
        assert "\n" not in str(caught.value)


def test_adapters_that_do_not_fit(keras_file) -> None:
    path, _ = keras_file("unet")
    with pytest.raises(ModelError, match="3 channels, but 2 classes"):
        load_keras(path, Adapter(classes=["Land", "Water"]))
    with pytest.raises(ConfigError, match="'size'"):
        load_keras(path, Adapter(size=32))


@pytest.mark.parametrize("harm", ["deep", "large", "list"])
def test_harmful_descriptions_are_one_sentence(tmp_path: Path, monkeypatch, harm: str) -> None:
    monkeypatch.setattr("segshrink.models.keras_file._LARGEST_CONFIG", 10_000_000)
    text = {"deep": "[" * 1_000_000, "large": " " * 10_000_001, "list": "[1]"}[harm]
    with zipfile.ZipFile(tmp_path / "net.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", text)
    with pytest.raises(ModelError) as caught:
        load_keras(tmp_path / "net.keras", NOTHING)
    assert "\n" not in str(caught.value)
    with h5py.File(tmp_path / "net.h5", "w") as archive:
        archive.attrs["model_config"] = json.dumps({"class_name": "Lambda", "config": {}})
    with pytest.raises(ModelError, match="--trust"):
        load_keras(tmp_path / "net.h5", NOTHING)
    with h5py.File(tmp_path / "odd.h5", "w") as archive:
        layers = [{"config": {"name": ["a"], "layers": 1}, "inbound_nodes": [[3]]}]
        archive.attrs["model_config"] = json.dumps({"class_name": "Functional", "config": {"layers": layers}})
    with pytest.raises(ModelError, match="can't be opened"):
        load_keras(tmp_path / "odd.h5", NOTHING)


def test_the_backend_is_chosen_for_the_import_alone(monkeypatch) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    import_keras()
    assert os.environ["KERAS_BACKEND"] == "jax"
    monkeypatch.setattr(import_keras().backend, "backend", lambda: "jax")
    with pytest.raises(ModelError, match="KERAS_BACKEND=torch"):
        import_keras()
