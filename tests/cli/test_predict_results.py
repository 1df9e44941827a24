"""Whose results stand where: names that collide, folders of folders, and what an older model left behind."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import onnx
import pytest
import rasterio
from PIL import Image
from rasterio.transform import Affine

PLACE = {"crs": "EPSG:32640", "transform": Affine(0.5, 0, 400_000, 0, -0.5, 2_800_000)}


def write(path: Path, *, seed: int = 0, size: int = 24) -> Path:
    """Noise: a GeoTIFF on the ground, or a picture that lies nowhere."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.random.default_rng(seed).integers(1, 255, (size, size, 3), dtype=np.uint8)
    if path.suffix != ".tif":
        Image.fromarray(image).save(path)
        return path
    with rasterio.open(path, "w", driver="GTiff", height=size, width=size, count=3, dtype="uint8", **PLACE) as dataset:
        dataset.write(image.transpose(2, 0, 1))
    return path


@pytest.fixture
def another_model(onnx_file: Path, tmp_path: Path) -> Path:
    """A file that does the same and isn't the same."""
    model = onnx.load(onnx_file)
    model.doc_string = "another"
    onnx.save(model, tmp_path / "another.onnx")
    return tmp_path / "another.onnx"


@pytest.mark.parametrize(
    ("names", "options", "shared"),
    [
        (("a.tif", "a.jpg"), (), "a.overlay.jpg"),
        (("a.tif", "a.jpg"), ("--no-overlay", "--confidence"), "a.confidence.tif"),
        (("a.tif", "a.png"), ("--no-overlay", "--vectors", "geojson"), "a.geojson"),
        (("am.tif", "am.confidence.tif"), ("--confidence",), "am.confidence.tif"),
        (("am.tif", "am.probabilities.tif"), ("--probabilities", "--no-overlay"), "am.probabilities.tif"),
        (("a.tif", "b/a.tif"), ("--no-overlay",), "a.tif"),
        (("a.png", "a.jpg"), ("--no-overlay",), "a.png"),
    ],
)
def test_no_file_of_one_scene_becomes_that_of_another(
    segshrink, onnx_file: Path, tmp_path: Path, names, options, shared: str
) -> None:
    scenes = [write(tmp_path / "in" / name) for name in names]
    result = segshrink("predict", onnx_file, *scenes, "-o", tmp_path / "out", *options)
    assert result.status == 1
    assert all(Path(name).name in result.sentence for name in (*names, shared))
    assert not (tmp_path / "out").exists()


def test_names_that_share_a_beginning_are_fine(segshrink, onnx_file: Path, tmp_path: Path) -> None:
    scenes = [write(tmp_path / "in" / name) for name in ("am.tif", "am.confidence.tif", "am.2.tif")]
    assert segshrink("predict", onnx_file, *scenes, "-o", tmp_path / "out").status == 0


@pytest.mark.parametrize("scene", ["s.overlay.jpg", "s.confidence.tif", "s.tif"])
def test_a_scene_is_never_overwritten_by_a_product(segshrink, onnx_file: Path, tmp_path: Path, scene: str) -> None:
    write(tmp_path / "s.tif")
    before = write(tmp_path / scene, seed=1).read_bytes()
    scenes = dict.fromkeys((tmp_path / "s.tif", tmp_path / scene))
    result = segshrink("predict", onnx_file, *scenes, "-o", tmp_path, "--confidence", "--overwrite")
    assert result.status == 1
    assert "overwrite a scene" in result.sentence or "both become" in result.sentence
    assert (tmp_path / scene).read_bytes() == before


def test_an_older_models_products_go_and_what_is_foreign_stays(
    segshrink, onnx_file: Path, another_model: Path, tmp_path: Path
) -> None:
    scene, out = write(tmp_path / "s.tif"), tmp_path / "out"
    assert segshrink("predict", onnx_file, scene, "-o", out, "--vectors", "geojson", "--confidence").status == 0
    (out / "s.notes.txt").write_text("mine")
    (out / "s.gpkg").write_text("mine")
    assert segshrink("predict", another_model, scene, "-o", out).status == 1
    assert segshrink("predict", another_model, scene, "-o", out, "--overwrite", "--no-overlay").status == 0
    assert {path.name for path in out.iterdir()} == {
        "s.tif", "s.tif.aux.xml", "s.qml", "s.notes.txt", "s.gpkg", "predictions.sqlite",
    }  # fmt: skip


@pytest.mark.parametrize(
    "name", ["s.tif", "s.overlay.jpg", "s.confidence.tif", "s.geojson", "s.qml", "s.tif.aux.xml", "predictions.sqlite"]
)
def test_somebody_elses_files_stay_as_they_are(segshrink, onnx_file: Path, tmp_path: Path, name: str) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_bytes(b"mine")
    run = ("predict", onnx_file, write(tmp_path / "s.tif"), "-o", out, "--confidence", "--vectors", "geojson")
    result = segshrink(*run)
    assert result.status == 1
    assert name in result.sentence
    assert [(path.name, path.read_bytes()) for path in out.iterdir()] == [(name, b"mine")]


def test_one_file_asked_for_by_name_is_recorded_too(segshrink, onnx_file: Path, tmp_path: Path) -> None:
    run = ("predict", onnx_file, write(tmp_path / "s.tif"), "-o", tmp_path / "map.tif")
    assert segshrink(*run).status == 0
    assert "predicted before" in segshrink(*run).err
    assert "--overwrite" in segshrink(*run, "--confidence").sentence
    assert segshrink(*run, "--confidence", "--overwrite").status == 0


def test_what_gdal_notes_beside_a_scene_counts_but_for_statistics(segshrink, onnx_file: Path, tmp_path: Path) -> None:
    run = ("predict", onnx_file, write(tmp_path / "s.tif"), "-o", tmp_path / "out", "--no-overlay")
    assert segshrink(*run).status == 0
    notes, band = tmp_path / "s.tif.aux.xml", '<PAMDataset><PAMRasterBand band="1">{}</PAMRasterBand></PAMDataset>'
    notes.write_text(band.format('<Metadata><MDI key="STATISTICS_MEAN">90</MDI></Metadata>'))
    assert "predicted before" in segshrink(*run).err
    notes.write_text(band.format("<NoDataValue>7</NoDataValue>"))
    assert "--overwrite" in segshrink(*run).sentence


def test_folders_inside_a_folder_become_folders_of_results(segshrink, onnx_file: Path, tmp_path: Path) -> None:
    for name in ("north/a.tif", "south/a.tif", "south/deep/b.png", ".hidden/c.tif"):
        write(tmp_path / "in" / name)
    run = ("predict", onnx_file, tmp_path / "in", "--no-overlay", "-o", tmp_path / "in" / "maps")
    assert segshrink(*run).status == 0
    made = [path.relative_to(tmp_path / "in/maps").as_posix() for path in sorted((tmp_path / "in/maps").rglob("*.*"))]
    assert made == [
        "north/a.qml", "north/a.tif", "north/a.tif.aux.xml", "predictions.sqlite", "south/a.qml", "south/a.tif",
        "south/a.tif.aux.xml", "south/deep/b.png", "south/deep/b.qml",
    ]  # fmt: skip
    assert "3 scenes were predicted before" in segshrink(*run).err


def test_a_picture_of_a_place_keeps_the_place(segshrink, onnx_file: Path, tmp_path: Path) -> None:
    scene = write(tmp_path / "s.tif")
    assert segshrink("predict", onnx_file, scene, "-o", tmp_path / "out" / "map.png").status == 0
    with rasterio.open(tmp_path / "out/map.png") as made, rasterio.open(scene) as source:
        assert made.transform == source.transform
        assert made.crs == source.crs
    (tmp_path / "out/map.png.aux.xml").unlink()
    with rasterio.open(tmp_path / "out/map.png") as made:
        assert made.transform.almost_equals(PLACE["transform"])


def test_names_that_hold_controls_command_no_terminal(segshrink, onnx_file: Path, tmp_path: Path) -> None:
    scene = write(tmp_path / "in" / "a\nb\x1b[31m.png")
    result = segshrink("predict", onnx_file, scene, "-o", tmp_path / "out", "--no-overlay")
    assert result.status == 0
    assert "\x1b" not in result.out
    assert (tmp_path / "out" / "a_b_[31m.png").exists()


def test_a_name_that_is_not_utf_8_is_refused_by_name(segshrink, onnx_file: Path, tmp_path: Path) -> None:
    scene = write(tmp_path / "x.png").rename(tmp_path / os.fsdecode(b"Gel\xe4nde.png"))
    result = segshrink("predict", onnx_file, scene, "-o", tmp_path / "out")
    assert result.status == 1
    assert "nde.png" in result.sentence
    assert "UTF-8" in result.sentence


def test_the_others_are_predicted_when_a_name_is_not_utf_8(segshrink, onnx_file: Path, tmp_path: Path) -> None:
    write(tmp_path / "in" / "a.png")
    odd = write(tmp_path / "x.png").rename(tmp_path / "in" / os.fsdecode(b"Gel\xe4nde.png"))
    run = ("predict", onnx_file, tmp_path / "in", "-o", tmp_path / "out", "--no-overlay")
    for _ in range(2):
        result = segshrink(*run)
        assert result.status == 1
        assert "1 of 2 scenes" in result.sentence
        assert "nde.png" in result.sentence
    assert "predicted before" not in result.err  # the sentence says it
    assert [path.name for path in (tmp_path / "out").iterdir() if path.suffix == ".png"] == ["a.png"]
    with closing(sqlite3.connect(tmp_path / "out" / "predictions.sqlite")) as database:
        ((source, reason, _),) = database.execute("SELECT * FROM left_out").fetchall()
    assert "nde.png" in source
    assert "UTF-8" in reason
    odd.rename(tmp_path / "in" / "b.png")
    result = segshrink(*run)
    assert result.status == 0
    assert "1 scene was predicted before" in result.err
