"""Scenes that a model isn't for: what predict says about them, and where it stays."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from segshrink import Misuse, Predictor, SegmentationModel, export_onnx, load_model, predict_scenes
from segshrink.imagery.image_features import ImageSample, image_distribution


def pixels(seed: int, *, size: int = 260) -> NDArray[np.uint8]:
    """Noise of some octaves, brown and green."""
    rng = np.random.default_rng(seed)
    octaves = [
        ndimage.gaussian_filter(rng.normal(size=(size, size)), sigma) * 40 * sigma for sigma in (0.5, 1, 2, 4, 8)
    ]
    light, green = sum(octaves), ndimage.gaussian_filter(rng.normal(size=(size, size)), 6) * 300
    return np.clip(np.stack([150 + light, 120 + light + green, 90 + 0.8 * light], axis=-1), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def informed(model: Path) -> SegmentationModel:
    """A model that knows its training images."""
    loaded = load_model(model)
    known = image_distribution([ImageSample.of(pixels(seed)) for seed in range(16)], low=0, high=255)
    loaded.description = replace(loaded.description, images=known)
    return loaded


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """A sound scene, and one in gray."""
    folder = tmp_path / "scenes"
    folder.mkdir()
    Image.fromarray(pixels(100)).save(folder / "sound.png")
    Image.fromarray(pixels(101)[..., [1, 1, 1]]).save(folder / "odd.png")
    return folder


def recorded(folder: Path) -> dict[str, str]:
    with closing(sqlite3.connect(folder / "predictions.sqlite")) as database:
        return dict(database.execute("SELECT name, misuse FROM misused"))


def test_the_odd_scene_is_named_and_predicted(
    segshrink, informed: SegmentationModel, scenes: Path, tmp_path: Path
) -> None:
    file, out = export_onnx(informed, tmp_path / "informed.onnx"), tmp_path / "maps"
    result = segshrink("predict", file, scenes, "-o", out)
    assert result.status == 0, result.err
    (note,) = (line for line in result.err.splitlines() if line.startswith("note: "))
    assert str(scenes / "odd.png") in note
    assert "gray" in note
    assert (out / "odd.png").is_file()
    assert list(recorded(out)) == ["odd.png"]
    assert recorded(out)["odd.png"] in note

    again = segshrink("predict", file, scenes, "-o", out)
    assert "gray" not in again.err, "what was predicted before isn't looked at again"
    assert list(recorded(out)) == ["odd.png"]

    Image.fromarray(pixels(101)).save(scenes / "odd.png")
    assert segshrink("predict", file, scenes, "-o", out, "--overwrite").status == 0
    assert recorded(out) == {}


def test_the_odd_scene_is_named_though_another_fails(
    segshrink, informed: SegmentationModel, scenes: Path, tmp_path: Path
) -> None:
    (scenes / "torn.tif").write_bytes(b"II*\0")
    result = segshrink("predict", export_onnx(informed, tmp_path / "informed.onnx"), scenes, "-o", tmp_path / "maps")
    assert result.status == 1
    assert "torn.tif" in result.sentence
    assert [line for line in result.err.splitlines() if str(scenes / "odd.png") in line and "gray" in line]


def test_in_python(informed: SegmentationModel, scenes: Path, tmp_path: Path) -> None:
    for model in (informed, export_onnx(informed, tmp_path / "informed.onnx")):
        results = predict_scenes(model, [scenes], tmp_path / f"maps-{type(model).__name__}")
        misuses = {Path(result.source).name: result.misuse for result in results}
        assert misuses["sound.png"] is None
        assert isinstance(misuses["odd.png"], Misuse)
        assert misuses["odd.png"].cause == "gray"
        assert Predictor(model).find_misuse(pixels(101)[..., [1, 1, 1]]) == misuses["odd.png"]


def test_the_files_know_the_same_images(informed: SegmentationModel, tmp_path: Path) -> None:
    informed.save(tmp_path / "saved")
    saved = load_model(tmp_path / "saved").description.images
    assert saved is not None
    assert saved.scenes == 16
    assert Predictor(export_onnx(informed, tmp_path / "informed.onnx")).backend.description.images == saved
    with_images, without = (tmp_path / name for name in ("informed.onnx", "older.onnx"))
    older = SegmentationModel(informed.network, replace(informed.description, images=None))
    assert with_images.stat().st_size - export_onnx(older, without).stat().st_size < 1000


def test_an_older_model_says_nothing(segshrink, onnx_file: Path, scenes: Path, tmp_path: Path) -> None:
    result = segshrink("predict", onnx_file, scenes, "-o", tmp_path / "maps")
    assert result.status == 0, result.err
    assert "note: " not in result.err
    assert recorded(tmp_path / "maps") == {}
