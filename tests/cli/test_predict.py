"""Scenes through the command line: maps, polygons and pictures; what is skipped, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from PIL import Image
from rasterio.transform import Affine

from segshrink.prediction import Predictor

PLACE = {"crs": "EPSG:32640", "transform": Affine(0.5, 0, 400_000, 0, -0.5, 2_800_000)}


def pixels(height: int, width: int, *, seed: int = 0) -> NDArray[np.uint8]:
    """Colored blocks under noise."""
    rng = np.random.default_rng(seed)
    colors = np.array([(120, 90, 60), (200, 40, 40), (30, 60, 200)])
    blocks = colors[rng.integers(0, 3, (height // 16 + 1, width // 16 + 1))]
    image = np.kron(blocks, np.ones((16, 16, 1), int))[:height, :width] + rng.normal(0, 15, (height, width, 3))
    return np.clip(image, 1, 255).astype(np.uint8)


def write_tif(path: Path, image: NDArray[np.generic], **profile: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width, count = image.shape
    settings = {"driver": "GTiff", "height": height, "width": width, "count": count, "dtype": image.dtype, **PLACE}
    with rasterio.open(path, "w", **{**settings, **profile}) as dataset:
        dataset.write(image.transpose(2, 0, 1))
    return path


def read(path: Path) -> NDArray[np.uint8]:
    with rasterio.open(path) as dataset:
        values: NDArray[np.uint8] = dataset.read(1)
    return values


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    """A GeoTIFF whose left edge has no data."""
    image = pixels(130, 170)
    image[:, :9] = 0
    return write_tif(tmp_path / "tiffs" / "Scène 1.tif", image, nodata=0)


def test_a_geotiff_becomes_a_map_on_its_own_grid(segshrink, onnx_file: Path, scene: Path, tmp_path: Path) -> None:
    out = tmp_path / "maps"
    result = segshrink("predict", onnx_file, scene, "-o", out, "--tile", 64, "--overlap", 32, "--blend", "cosine")
    assert result.status == 0, result.err
    assert result.out.splitlines() == [str(out / "Scène 1.tif"), str(out / "Scène 1.overlay.jpg")]
    with rasterio.open(out / "Scène 1.tif") as made, rasterio.open(scene) as source:
        assert (made.crs, made.transform, made.shape) == (source.crs, source.transform, source.shape)
        assert (made.nodata, made.count, made.dtypes) == (255, 1, ("uint8",))
        assert made.colormap(1)[1] == (200, 40, 40, 255)
        classes = made.read(1)
        image = source.read().transpose(1, 2, 0)
    assert (classes[:, :9] == 255).all()
    expected = Predictor(onnx_file, tile=64, overlap=32, blend="cosine").predict_array(image).index
    assert (classes[:, 40:] == expected[:, 40:]).mean() > 0.999
    with Image.open(out / "Scène 1.overlay.jpg") as overlay:
        assert overlay.size == (170, 130)
    assert "Mpixel" in result.err


def test_tiles_leave_no_trace(segshrink, onnx_file: Path, tmp_path: Path) -> None:
    """A network of stride 4 that sees less than 32 pixels far, on a scene that is no multiple of 4."""
    source = write_tif(tmp_path / "scene.tif", pixels(203, 238))
    for tile, threads in ((512, 1), (128, 1), (128, 3), (96, 2)):
        out = tmp_path / f"{tile}-{threads}"
        options = ("--tile", tile, "--overlap", 64, "--threads", threads)
        assert segshrink("predict", onnx_file, source, "-o", out, *options).status == 0
        np.testing.assert_array_equal(read(out / "scene.tif"), read(tmp_path / "512-1/scene.tif"))
    assert np.unique(read(tmp_path / "512-1/scene.tif")).size > 1


def test_probabilities_confidence_and_polygons(segshrink, onnx_file: Path, scene: Path, tmp_path: Path) -> None:
    out = tmp_path / "maps"
    options = ("--probabilities", "--confidence", "--vectors", "geojson", "--no-overlay", "--tile", 64)
    assert segshrink("predict", onnx_file, scene, "-o", out / "a.tif", *options).status == 0
    assert {path.name for path in out.iterdir()} == {
        "a.tif", "a.tif.aux.xml", "a.qml", "a.probabilities.tif", "a.confidence.tif", "a.geojson",
        "predictions.sqlite",
    }  # fmt: skip
    with rasterio.open(out / "a.probabilities.tif") as dataset:
        probabilities = dataset.read()
        assert dataset.descriptions == ("Ground", "Roof", "Water")
    with rasterio.open(out / "a.confidence.tif") as dataset:
        confidence = dataset.read(1)
    with rasterio.open(out / "a.tif") as dataset:
        classes = dataset.read(1)
    valid = classes != 255
    assert (probabilities[:, ~valid] == 255).all()
    assert np.abs(probabilities[:, valid].astype(int).sum(axis=0) - 254).max() <= 2
    np.testing.assert_array_equal(confidence[valid], probabilities[:, valid].max(axis=0))
    chosen = np.take_along_axis(probabilities, np.where(valid, classes, 0)[np.newaxis], axis=0)[0]
    np.testing.assert_array_equal(chosen[valid], confidence[valid])
    features = json.loads((out / "a.geojson").read_text())["features"]
    assert features
    names = {value for feature in features for value in feature["properties"].values() if isinstance(value, str)}
    found = {("Ground", "Roof", "Water")[number] for number in np.unique(classes[valid])}
    assert found == names & {"Ground", "Roof", "Water"}


def test_polygons_alone_leave_no_other_raster(segshrink, onnx_file: Path, tmp_path: Path) -> None:
    picture = tmp_path / "photo.png"
    Image.fromarray(pixels(50, 60)).save(picture)
    out = tmp_path / "out"
    assert segshrink("predict", onnx_file, picture, "-o", out, "--vectors", "geojson").status == 0
    assert {path.name for path in out.iterdir()} == {
        "photo.png", "photo.qml", "photo.overlay.jpg", "photo.geojson", "predictions.sqlite",
    }  # fmt: skip


def test_folders_and_wildcards_of_scenes(segshrink, onnx_file: Path, tmp_path: Path) -> None:
    for number in range(3):
        write_tif(tmp_path / "in" / f"s{number}.tif", pixels(40, 40, seed=number))
    (tmp_path / "in" / "notes.txt").write_text("not a scene")
    assert segshrink("predict", onnx_file, tmp_path / "in", "-o", tmp_path / "all").status == 0
    assert segshrink("predict", onnx_file, tmp_path / "in" / "s[01].*", "-o", tmp_path / "two").status == 0
    assert len(list((tmp_path / "all").glob("*.tif"))) == 3
    assert len(list((tmp_path / "two").glob("*.tif"))) == 2


def test_an_interrupted_run_goes_on_and_nothing_is_replaced_unasked(segshrink, onnx_file: Path, tmp_path: Path) -> None:
    scenes = [write_tif(tmp_path / "in" / f"s{number}.tif", pixels(40, 40, seed=number)) for number in range(2)]
    run = ("predict", onnx_file, tmp_path / "in", "-o", tmp_path / "out")
    assert segshrink("predict", onnx_file, scenes[0], "-o", tmp_path / "out").status == 0
    before = (tmp_path / "out/s0.tif").stat().st_mtime_ns
    second = segshrink(*run)
    assert second.status == 0
    assert "1 scene was predicted before" in second.err
    assert second.out.splitlines() == [str(tmp_path / "out/s1.tif"), str(tmp_path / "out/s1.overlay.jpg")]
    assert (tmp_path / "out/s0.tif").stat().st_mtime_ns == before

    for changed in (("--tile", 32), ("--blend", "cosine"), ("--no-overlay",)):
        refused = segshrink(*run, *changed)
        assert refused.status == 1
        assert "--overwrite" in refused.sentence
    write_tif(scenes[0], pixels(40, 40, seed=7))
    assert "s0.tif" in segshrink(*run).sentence
    assert (tmp_path / "out/s0.tif").stat().st_mtime_ns == before
    assert segshrink(*run, "--overwrite").status == 0
    assert (tmp_path / "out/s0.tif").stat().st_mtime_ns > before


def test_a_damaged_scene_leaves_nothing_but_the_finished_ones(segshrink, onnx_file: Path, tmp_path: Path) -> None:
    write_tif(tmp_path / "in/a.tif", pixels(40, 40))
    damaged = write_tif(tmp_path / "in/b.tif", pixels(900, 300), tiled=True, blockxsize=256, blockysize=256)
    damaged.write_bytes(damaged.read_bytes()[:-300_000])
    result = segshrink("predict", onnx_file, tmp_path / "in", "-o", tmp_path / "out", "--tile", 256)
    assert result.status == 1
    assert "b.tif" in result.sentence
    assert "row" in result.sentence
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"a.tif", "a.tif.aux.xml", "a.qml", "a.overlay.jpg", "predictions.sqlite"}


@pytest.mark.parametrize("shape", [(1, 1), (1, 70), (33, 5)])
def test_the_smallest_scenes(segshrink, onnx_file: Path, tmp_path: Path, shape: tuple[int, int]) -> None:
    source = write_tif(tmp_path / "tiny.tif", pixels(*shape))
    assert segshrink("predict", onnx_file, source, "-o", tmp_path / "out").status == 0
    with rasterio.open(tmp_path / "out/tiny.tif") as dataset:
        assert dataset.shape == shape
        assert dataset.read(1).max() < 3


def test_no_data_at_all_is_a_map_without_data(segshrink, onnx_file: Path, tmp_path: Path) -> None:
    source = write_tif(tmp_path / "empty.tif", np.zeros((60, 60, 3), np.uint8), nodata=0)
    assert segshrink("predict", onnx_file, source, "-o", tmp_path / "out", "--confidence").status == 0
    for name in ("empty.tif", "empty.confidence.tif"):
        with rasterio.open(tmp_path / "out" / name) as dataset:
            assert (dataset.read() == 255).all()


def test_other_numbers_need_a_scale_and_bands_a_choice(segshrink, onnx_file: Path, tmp_path: Path) -> None:
    image = pixels(48, 48)
    plain = write_tif(tmp_path / "plain.tif", image)
    deep = write_tif(tmp_path / "deep.tif", np.dstack([image[:, :, ::-1], image[:, :, :1]]).astype(np.uint16) * 10)
    run = ("predict", onnx_file, deep, "-o", tmp_path / "out")
    assert "--bands" in segshrink(*run).sentence
    assert "--scale" in segshrink(*run, "--bands", "3,2,1").sentence
    assert "LOW:HIGH" in segshrink(*run, "--bands", "3,2,1", "--scale", "all").sentence
    result = segshrink(*run, "--bands", "3,2,1", "--scale", "0:2550")
    assert result.status == 0, result.err
    assert segshrink("predict", onnx_file, plain, "-o", tmp_path / "out").status == 0
    assert (read(tmp_path / "out/plain.tif") == read(tmp_path / "out/deep.tif")).mean() > 0.99


def test_a_coarser_resolution_gives_a_coarser_map_of_the_same_ground(
    segshrink, onnx_file: Path, tmp_path: Path
) -> None:
    source = write_tif(tmp_path / "fine.tif", pixels(100, 80))
    assert segshrink("predict", onnx_file, source, "-o", tmp_path / "out", "--resolution", 1).status == 0
    with rasterio.open(tmp_path / "out/fine.tif") as made, rasterio.open(source) as fine:
        assert made.shape == (50, 40)
        assert made.bounds == fine.bounds
    assert "--resolution" in segshrink("predict", onnx_file, source, "-o", tmp_path, "--resolution", "far").sentence


def test_a_grid_beyond_reason_is_refused_with_its_size(segshrink, onnx_file: Path, tmp_path: Path) -> None:
    scene = write_tif(tmp_path / "scene.tif", pixels(50, 40))  # half a meter
    result = segshrink("predict", onnx_file, scene, "-o", tmp_path / "out", "--resolution", "1e-6")
    assert result.status == 1
    assert "25000000 × 20000000" in result.sentence
    assert "--resolution" in result.sentence
    assert not (tmp_path / "out").exists()
    assert segshrink("predict", onnx_file, scene, "-o", tmp_path / "out", "--resolution", "0.04").status == 1
    assert segshrink("predict", onnx_file, scene, "-o", tmp_path / "out", "--resolution", "0.1").status == 0


def test_a_scene_of_too_many_pixels_is_refused(segshrink, onnx_file: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("segshrink.prediction.scenes.plan._MOST_PIXELS", 2000)
    result = segshrink("predict", onnx_file, write_tif(tmp_path / "s.tif", pixels(50, 40)), "-o", tmp_path / "out")
    assert result.status == 1
    assert "50 × 40" in result.sentence
    assert "s.tif" in result.sentence


def test_a_value_without_data_can_be_named(segshrink, onnx_file: Path, tmp_path: Path) -> None:
    """The same map as where the file itself names it, at the scene's resolution and at another."""
    image = pixels(60, 70)
    image[:, :13] = 0
    image[30, 30, 1] = 0  # a dark channel of a pixel that has data
    named, silent = write_tif(tmp_path / "named.tif", image, nodata=0), write_tif(tmp_path / "silent.tif", image)
    for name, resolution in (("own", "native"), ("coarse", "1.1")):
        run = ("-o", tmp_path / name, "--resolution", resolution)
        assert segshrink("predict", onnx_file, named, *run).status == 0
        assert segshrink("predict", onnx_file, silent, *run, "--nodata", "0").status == 0
        expected = read(tmp_path / name / "named.tif")
        np.testing.assert_array_equal(read(tmp_path / name / "silent.tif"), expected)
        assert 0.1 < (expected == 255).mean() < 0.25
    assert segshrink("predict", onnx_file, silent, *run, "--nodata", "0").status == 0
    assert "--overwrite" in segshrink("predict", onnx_file, silent, *run).sentence


@pytest.mark.parametrize(
    ("options", "word", "status"),
    [
        (("--overlap", 600), "overlap", 2),
        (("--runtime", "cuda"), "cuda", 2),
        (("--bands", "1,2,9"), "band", 1),
        (("--scale", "5:5"), "--scale takes two different numbers", 2),
        (("--out", "map.jpg"), "--out map.jpg can't be written", 2),
    ],
)
def test_senseless_options_say_so(
    segshrink, onnx_file: Path, scene: Path, tmp_path: Path, options, word, status
) -> None:
    result = segshrink("predict", onnx_file, scene, "-o", tmp_path / "out", *options)
    assert result.status == status
    assert word in result.sentence
    assert not (tmp_path / "out").exists()


def test_works_in_a_process_that_has_no_torch(onnx_file: Path, scene: Path, tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "for name in ('torch', 'torchvision', 'lightning', 'safetensors', 'psutil', 'onnx'): sys.modules[name] = None\n"
        "from segshrink.cli import main\n"
        f"sys.exit(main(['predict', {str(onnx_file)!r}, {str(scene)!r}, '-o', {str(tmp_path / 'out')!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "Scène 1.tif").exists()
