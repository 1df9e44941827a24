"""Pictures: one decoder for training and prediction, upright, transparency as a mask."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from PIL import Image, ImageOps
from rasterio.transform import Affine
from tests.imagery.conftest import write_mask_beside

from segshrink.classes import ClassMap
from segshrink.errors import DataError
from segshrink.imagery import open_scene, probe, read_mask, read_valid_image
from segshrink.imagery.pictures import upright
from segshrink.tiling import Window

RANDOM = np.random.default_rng(8)
RGB: NDArray[np.uint8] = RANDOM.integers(0, 256, (24, 40, 3)).astype(np.uint8)
SMOOTH = np.asarray(Image.fromarray(RGB[:3, :5]).resize((40, 24), Image.Resampling.BICUBIC))
VALUES = ClassMap.build([("a", None, 0), ("b", None, 1)])


def scene(path: Path, **options: object) -> tuple[NDArray[np.generic], NDArray[np.bool_] | None]:
    with open_scene(path, **options) as opened:  # type: ignore[arg-type]
        return opened.read(Window(0, 0, opened.height, opened.width))


def turned(path: Path, picture: Image.Image, orientation: int, **options: object) -> Path:
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture.save(path, exif=exif, **options)
    return path


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_pictures_stand_as_viewers_show_them(tmp_path: Path, orientation: int, suffix: str) -> None:
    path = turned(tmp_path / f"a{suffix}", Image.fromarray(RGB), orientation)
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))

    pixels, valid = read_valid_image(path)
    np.testing.assert_array_equal(pixels, expected)
    assert valid is None
    np.testing.assert_array_equal(scene(path)[0], expected)
    info = probe(path)
    assert (info.height, info.width, info.orientation) == (*expected.shape[:2], orientation)


def test_masks_stand_as_viewers_show_them(tmp_path: Path) -> None:
    index = RANDOM.integers(0, 2, (6, 9), dtype=np.uint8)
    for name, picture in (
        ("gray.png", Image.fromarray(index)),
        ("bits.png", Image.fromarray(index * 255).convert("1")),
    ):
        path = turned(tmp_path / name, picture, 6)
        np.testing.assert_array_equal(read_mask(path, VALUES), np.rot90(index, -1))


def test_a_senseless_orientation_is_passed_over() -> None:
    for orientation in (0, 1, 9):
        np.testing.assert_array_equal(upright(RGB, orientation), RGB)


@pytest.mark.parametrize("big", [False, True])
def test_rasters_that_viewers_turn_are_refused_by_name(tmp_path: Path, big: bool) -> None:
    path = tmp_path / "on its side.tif"
    if big:
        size = {"height": 4, "width": 6, "count": 1, "dtype": "uint8", "transform": Affine(1, 0, 5, 0, -1, 5)}
        with rasterio.open(path, "w", driver="GTiff", bigtiff="yes", **size) as file:
            file.write(RGB[:4, :6, 0], 1)
        content = bytearray(path.read_bytes())
        start = struct.unpack_from("<Q", content, 8)[0]
        for entry in range(struct.unpack_from("<Q", content, start)[0]):
            place = start + 8 + 20 * entry
            if struct.unpack_from("<H", content, place)[0] == 284:  # planes become the orientation
                struct.pack_into("<HHQH", content, place, 274, 3, 1, 6)
        path.write_bytes(content)
    else:
        Image.fromarray(RGB).save(path, tiffinfo={274: 6})

    deep = turned(tmp_path / "on its side.png", Image.fromarray(RGB[:, :, 0].astype(np.uint16)), 6)
    for read in (read_valid_image, open_scene, lambda path: read_mask(path, VALUES)):
        for file in (path, deep):
            with pytest.raises(DataError, match=r"on its side\.(tif|png) says .*orientation tag \(6\)"):
                read(file)


def test_a_turned_picture_with_a_place_on_the_ground_is_refused(tmp_path: Path) -> None:
    path = turned(tmp_path / "a.jpg", Image.fromarray(RGB), 3)
    (tmp_path / "a.jgw").write_text("1\n0\n0\n-1\n500000\n5000000\n")
    with pytest.raises(DataError, match=r"a\.jpg .*orientation tag \(3\)"):
        open_scene(path)
    with pytest.raises(DataError, match=r"a\.jpg .*orientation tag \(3\)"):
        read_valid_image(path)


@pytest.mark.parametrize("resolution", [None, 2.0])
def test_a_picture_with_a_world_file_lies_where_that_says(tmp_path: Path, resolution: float | None) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(RGB).save(path)
    (tmp_path / "a.pgw").write_text("1\n0\n0\n-1\n500000.5\n4999999.5\n")
    (tmp_path / "a.png.aux.xml").write_text("<PAMDataset><SRS>EPSG:32633</SRS></PAMDataset>")
    with open_scene(path, resolution=resolution) as opened:
        step = resolution or 1
        assert opened.georeference.transform == (step, 0, 5e5, 0, -step, 5e6)
        assert {Path(file).name for file in opened.files} == {"a.png", "a.pgw", "a.png.aux.xml"}
        pixels, _ = opened.read(Window(0, 0, opened.height, opened.width))
    expected = RGB if resolution is None else RGB.reshape(12, 2, 20, 2, 3).mean(axis=(1, 3))
    assert np.abs(pixels - expected).max() <= 0.5
    assert probe(path).place.transform == (*Affine(1, 0, 5e5, 0, -1, 5e6)[:6],)


@pytest.mark.parametrize(
    ("mode", "name", "bands"),
    [
        ("RGB", "chroma.jpg", 3),
        ("CMYK", "cmyk.jpg", 3),
        ("CMYK", "cmyk.tif", 3),
        ("L", "gray.bmp", 1),
        ("P", "palette.gif", 3),
        ("1", "bits.png", 1),
        ("L", "gray.webp", 3),
    ],
)
def test_training_and_prediction_read_the_same_numbers(tmp_path: Path, mode: str, name: str, bands: int) -> None:
    path = tmp_path / name
    Image.fromarray(SMOOTH).convert(mode).save(path)
    trained, _ = read_valid_image(path)
    assert trained.shape == (24, 40, bands)
    assert probe(path).bands == bands
    predicted, _ = scene(path)
    np.testing.assert_array_equal(predicted, trained)
    with open_scene(path) as opened:
        np.testing.assert_array_equal(opened.read(Window(5, 7, 9, 11))[0], trained[5:14, 7:18])


def test_any_kind_of_transparency_is_a_mask(tmp_path: Path) -> None:
    clear = np.zeros((24, 40), dtype=bool)
    clear[:6] = True
    alpha = Image.fromarray(np.where(clear, 0, 255).astype(np.uint8))
    gray, color = Image.fromarray(np.where(clear, 0, 9).astype(np.uint8)), Image.fromarray(RGB)
    palette = Image.fromarray(np.where(clear, 1, 0).astype(np.uint8))
    palette.putpalette([9, 8, 7, 255, 255, 255])
    key = Image.fromarray(np.where(clear[:, :, None], (1, 2, 3), 200).astype(np.uint8))
    pictures = {
        "rgba.png": (Image.merge("RGBA", [*color.split(), alpha]), {}),
        "la.png": (Image.merge("LA", [gray, alpha]), {}),
        "l_trns.png": (gray, {"transparency": 0}),
        "rgb_trns.png": (key, {"transparency": (1, 2, 3)}),
        "p_trns.png": (palette, {"transparency": 1}),
        "rgba.webp": (Image.merge("RGBA", [*color.split(), alpha]), {"lossless": True}),
        "p.gif": (palette, {"transparency": 1}),
    }
    for name, (picture, options) in pictures.items():
        picture.save(tmp_path / name, **options)
        for pixels, valid in (read_valid_image(tmp_path / name), scene(tmp_path / name)):
            assert pixels.shape[2] in (1, 3), name
            assert valid is not None, name
            np.testing.assert_array_equal(valid, ~clear, err_msg=name)


@pytest.mark.parametrize("beside", ["a.{}.msk", "a.{}.aux.xml"])
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_mask_or_no_data_value_beside_a_picture_counts(tmp_path: Path, suffix: str, beside: str) -> None:
    pixels = RGB // 4 + np.uint8(90)
    pixels[:8] = 0
    path, companion = tmp_path / f"a.{suffix}", tmp_path / beside.format(suffix)
    Image.fromarray(pixels).save(path, subsampling=1)
    expected, valid = read_valid_image(path)
    assert valid is None
    filled = pixels[:, :, 0] > 0
    if beside.endswith("msk"):
        write_mask_beside(path, filled)
    else:
        band = "<PAMRasterBand band='{}'><NoDataValue>0</NoDataValue></PAMRasterBand>"
        companion.write_text(f"<PAMDataset>{''.join(map(band.format, (1, 2, 3)))}</PAMDataset>")
    for read, valid in (read_valid_image(path), scene(path)):
        np.testing.assert_array_equal(valid, filled)
        np.testing.assert_array_equal(read[filled], expected[filled])
    with open_scene(path) as opened:
        assert companion.name in {Path(file).name for file in opened.files}
    turned(path, Image.fromarray(pixels), 6)
    for open_it in (read_valid_image, open_scene):
        with pytest.raises(DataError, match=rf"a\.{suffix} .*orientation tag \(6\)"):
            open_it(path)
