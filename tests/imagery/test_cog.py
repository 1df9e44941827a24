from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from rasterio.crs import CRS
from rio_cogeo import cog_validate

from segshrink.classes import ClassMap
from segshrink.errors import FileError
from segshrink.imagery.cog import CLASSES_TAG, PROBABILITY_STEPS, encode_probabilities, open_cog
from segshrink.imagery.georeference import ControlPoint, Georeference
from segshrink.tiling import Window, grid

UTM = CRS.from_epsg(32618).to_wkt()
CLASSES = ClassMap.build([("Häuser & Höfe", "#FF0000", None), ("b", "#00FF00", None), ("c", "#0000FF", None)])
NORTH_UP = (0.5, 0.0, 500000.0, 0.0, -0.5, 4500000.0)


def class_map(height: int, width: int) -> Any:
    rng = np.random.default_rng(height * width)
    coarse = rng.integers(0, 4, (height // 16 + 1, width // 16 + 1))
    index = np.array([0, 1, 2, 255], dtype=np.uint8)[np.kron(coarse, np.ones((16, 16), dtype=int))]
    return np.ascontiguousarray(index[:height, :width])


def georeference(height: int, width: int, **changes: Any) -> Georeference:
    return Georeference(height, width, **{"crs": UTM, "transform": NORTH_UP, **changes})


def write(path: Path, pixels: Any, where: Georeference, *, tile: int = 384, **options: Any) -> None:
    with open_cog(path, where, **options) as writer:
        for window in grid(*pixels.shape[-2:], tile=tile, overlap=0):
            writer.write(window, pixels[(..., *window.slices)])


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Any]:
    with rasterio.Env(), rasterio.open(path) as dataset:
        yield dataset


def assert_valid(path: Path) -> None:
    valid, errors, warnings = cog_validate(path, strict=True)
    assert (valid, errors, warnings) == (True, [], [])


@pytest.mark.parametrize(("height", "width", "tile"), [(1500, 1301, 384), (1300, 700, 1024), (512, 512, 100)])
def test_class_maps_are_valid_and_keep_pixels_place_and_colors(
    tmp_path: Path, height: int, width: int, tile: int
) -> None:
    index = class_map(height, width)
    where = georeference(height, width)
    write(tmp_path / "Straße 1.tif", index, where, tile=tile, classes=CLASSES)
    assert_valid(tmp_path / "Straße 1.tif")
    with opened(tmp_path / "Straße 1.tif") as dataset:
        np.testing.assert_array_equal(dataset.read(1), index)
        assert dataset.dtypes == ("uint8",)
        assert dataset.nodata == 255
        assert Georeference.of(dataset) == where
        assert dataset.block_shapes == [(512, 512)]
        assert dataset.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert dataset.tags(ns="IMAGE_STRUCTURE")["COMPRESSION"] == "ZSTD"
        colors = dataset.colormap(1)
        assert [colors[number] for number in (0, 1, 2)] == [(255, 0, 0, 255), (0, 255, 0, 255), (0, 0, 255, 255)]
        assert colors[255][3] == 0
        assert ClassMap.from_dict(json.loads(dataset.tags()[CLASSES_TAG])) == CLASSES


def test_overviews_take_every_second_pixel_down_to_one_tile(tmp_path: Path) -> None:
    index = class_map(2112, 1104)
    write(tmp_path / "m.tif", index, georeference(2112, 1104), classes=CLASSES)
    with opened(tmp_path / "m.tif") as dataset:
        assert dataset.overviews(1) == [2, 4, 8]
    for level, step in enumerate((2, 4, 8)):
        with rasterio.open(tmp_path / "m.tif", OVERVIEW_LEVEL=level) as overview:
            np.testing.assert_array_equal(overview.read(1), index[::step, ::step])
            assert overview.nodata == 255
            assert overview.colormap(1)[1] == (0, 255, 0, 255)


def test_class_names_are_where_gdal_and_qgis_look_for_them(tmp_path: Path) -> None:
    index = class_map(40, 30)
    write(tmp_path / "m.tif", index, georeference(40, 30), classes=CLASSES)
    beside = (tmp_path / "m.tif.aux.xml").read_text(encoding="utf-8")
    assert "<Category>Häuser &amp; Höfe</Category><Category>b</Category>" in beside
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.tif", "m.tif.aux.xml"]
    with opened(tmp_path / "m.tif") as dataset:
        assert {Path(name).name for name in dataset.files} == {"m.tif", "m.tif.aux.xml"}
    rasterio.shutil.copy(tmp_path / "m.tif", tmp_path / "gdal.vrt", driver="VRT")
    names = ElementTree.parse(tmp_path / "gdal.vrt").findall(".//Category")  # noqa: S314
    assert tuple(name.text for name in names) == CLASSES.names


def test_what_described_an_older_file_goes_with_it(tmp_path: Path) -> None:
    write(tmp_path / "m.tif", class_map(40, 30), georeference(40, 30), classes=CLASSES)
    write(tmp_path / "m.tif", class_map(20, 30), georeference(20, 30))
    assert [path.name for path in tmp_path.iterdir()] == ["m.tif"]


@pytest.mark.parametrize(
    "where",
    [
        Georeference(90, 70, UTM, (0.5, 0.1, 500000.0, 0.1, -0.5, 4500000.0)),
        Georeference(90, 70, None, NORTH_UP),
        Georeference(90, 70),
        Georeference(
            90,
            70,
            gcps=tuple(
                ControlPoint(row, col, 5e5 + col, 4.5e6 - row, 7) for row, col in [(0, 0), (0, 70), (90, 0), (90, 70)]
            ),
            gcp_crs=UTM,
        ),
    ],
    ids=["rotated", "no crs", "nowhere", "control points"],
)
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_any_georeference_is_kept(tmp_path: Path, where: Georeference) -> None:
    index = class_map(90, 70)
    write(tmp_path / "m.tif", index, where, classes=CLASSES)
    assert_valid(tmp_path / "m.tif")
    with opened(tmp_path / "m.tif") as dataset:
        assert Georeference.of(dataset) == where
        np.testing.assert_array_equal(dataset.read(1), index)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize(
    "name", ["RGB.byte.tif", "sample_geotiff_custom_proj.tif", "pix4d_alpha_nodata.tif", "cog_nodata_nan.tif"]
)
def test_the_grids_of_real_scenes_are_kept(tmp_path: Path, shared_data: Path, name: str) -> None:
    with opened(shared_data / "geotiff" / name) as scene:
        where = Georeference.of(scene)
        crs = scene.crs
    write(tmp_path / "m.tif", class_map(where.height, where.width), where, classes=CLASSES)
    assert_valid(tmp_path / "m.tif")
    with opened(tmp_path / "m.tif") as dataset:
        assert dataset.transform[:6] == pytest.approx(where.transform, rel=1e-12)
        assert dataset.crs == crs


def test_a_single_pixel_is_a_scene(tmp_path: Path) -> None:
    write(tmp_path / "m.tif", np.array([[2]], dtype=np.uint8), georeference(1, 1), classes=CLASSES)
    assert_valid(tmp_path / "m.tif")
    with opened(tmp_path / "m.tif") as dataset:
        assert dataset.read(1).tolist() == [[2]]


def test_pixels_that_no_window_covers_are_nodata(tmp_path: Path) -> None:
    with open_cog(tmp_path / "m.tif", georeference(1200, 600), classes=CLASSES) as writer:
        writer.write(Window(600, 100, 10, 20), np.ones((10, 20), dtype=np.uint8))
    expected = np.full((1200, 600), 255)
    expected[600:610, 100:120] = 1
    with opened(tmp_path / "m.tif") as dataset:
        np.testing.assert_array_equal(dataset.read(1), expected)


@pytest.mark.parametrize("bands", [2, 3, 4])
def test_probabilities_are_scaled_bands_with_names(tmp_path: Path, bands: int) -> None:
    values = np.random.default_rng(0).random((bands, 600, 530), dtype=np.float32)
    valid = np.ones((600, 530), dtype=bool)
    valid[:50, :60] = False
    names = [f"class {number}" for number in range(bands)]
    stored = encode_probabilities(values, valid)
    where = georeference(600, 530)
    write(tmp_path / "p.tif", stored, where, bands=bands, descriptions=names, scale=1 / PROBABILITY_STEPS)
    assert_valid(tmp_path / "p.tif")
    with opened(tmp_path / "p.tif") as dataset:
        assert list(dataset.descriptions) == names
        assert [color.name for color in dataset.colorinterp] == ["gray", *["undefined"] * (bands - 1)]
        read = dataset.read(masked=True) * np.array(dataset.scales)[:, None, None]
        np.testing.assert_array_equal(read.mask, np.broadcast_to(~valid, values.shape))
        assert np.abs(read - values).max() <= 0.5 / PROBABILITY_STEPS + 1e-6


def test_certain_probabilities_are_told_from_nodata() -> None:
    np.testing.assert_array_equal(encode_probabilities(np.array([[0.0, 0.5, 1.0, 1.0000001]])), [[0, 127, 254, 254]])


@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32"])
def test_other_numbers_are_kept(tmp_path: Path, dtype: str) -> None:
    values = np.random.default_rng(0).integers(-100 if dtype != "uint16" else 0, 9000, (600, 530)).astype(dtype)
    write(tmp_path / "v.tif", values, georeference(600, 530), dtype=dtype, nodata=7)
    assert_valid(tmp_path / "v.tif")
    with opened(tmp_path / "v.tif") as dataset:
        assert dataset.nodata == 7
        np.testing.assert_array_equal(dataset.read(1), values)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_nothing_is_left_after_an_error_and_an_older_file_stands(tmp_path: Path, error: type[BaseException]) -> None:
    (tmp_path / "old.tif").write_bytes(b"before")

    def fail(name: str) -> None:
        with open_cog(tmp_path / name, georeference(1200, 600), classes=CLASSES) as writer:
            writer.write(Window(0, 0, 600, 600), np.zeros((600, 600), dtype=np.uint8))
            raise error

    for name in ("new.tif", "old.tif"):
        with pytest.raises(error):
            fail(name)
    assert [path.name for path in tmp_path.iterdir()] == ["old.tif"]
    assert (tmp_path / "old.tif").read_bytes() == b"before"


@pytest.mark.parametrize("limit", [1 << 12, 1 << 18, 3 << 19])
def test_a_full_disk_is_one_sentence_and_nothing_left(tmp_path: Path, limit: int, small_files: Any) -> None:
    noise = np.random.default_rng(0).integers(0, 250, (1100, 1100)).astype(np.uint8)
    told = r"can't write .*m\.tif: .*; free some space or choose another folder"
    with small_files(limit), pytest.raises(FileError, match=told):
        write(tmp_path / "m.tif", noise, georeference(1100, 1100))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_a_file_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(FileError, match=r"can't write .*m\.tif"):
        write(tmp_path / "out" / "m.tif", class_map(20, 20), georeference(20, 20))


def test_windows_must_fit(tmp_path: Path) -> None:
    part = np.zeros((10, 10), dtype=np.uint8)
    with open_cog(tmp_path / "m.tif", georeference(40, 40)) as writer:
        writer.write(Window(10, 0, 10, 10), part)
        with pytest.raises(ValueError, match="beyond the grid of 40 × 40"):
            writer.write(Window(31, 0, 10, 10), part)
        with pytest.raises(ValueError, match=r"expected \(1, 10, 10\) uint8, found \(1, 10, 10\) int64"):
            writer.write(Window(10, 0, 10, 10), part.astype(np.int64))
    with (
        pytest.raises(ValueError, match="2 bands need as many descriptions, found 1"),
        open_cog(tmp_path / "m.tif", georeference(40, 40), bands=2, descriptions=["a"]),
    ):
        pass


def test_windows_may_come_from_another_thread(tmp_path: Path) -> None:
    index = class_map(1300, 700)
    with open_cog(tmp_path / "m.tif", georeference(1300, 700), classes=CLASSES) as writer:

        def work() -> None:
            for window in grid(1300, 700, tile=300, overlap=0):
                writer.write(window, index[window.slices])

        thread = Thread(target=work)
        thread.start()
        thread.join()
    with opened(tmp_path / "m.tif") as dataset:
        np.testing.assert_array_equal(dataset.read(1), index)


def test_tiles_are_smaller_where_many_bands_are_wide(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 255, (30, 20, 3000)).astype(np.uint8)
    write(tmp_path / "p.tif", values, georeference(20, 3000), tile=3000, bands=30)
    assert_valid(tmp_path / "p.tif")
    with opened(tmp_path / "p.tif") as dataset:
        assert dataset.block_shapes[0] == (256, 256)
        np.testing.assert_array_equal(dataset.read(), values)
