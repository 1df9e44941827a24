"""Scenes against plain rasterio reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp
from tests.imagery.conftest import PLACE, RGB, Paint, whole

from segshrink.errors import ConfigError, DataError, FileError
from segshrink.imagery.scenes import open_scene
from segshrink.tiling import Window, grid

RANDOM = np.random.default_rng(7)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32", "float64"])
def test_windows_are_parts_of_what_rasterio_reads(paint: Paint, dtype: str) -> None:
    path = paint("scene.tif", RGB.astype(dtype), tiled=True, blockxsize=32, blockysize=32, **PLACE)
    with rasterio.open(path) as dataset:
        expected = dataset.read().transpose(1, 2, 0)

    with open_scene(path) as scene:
        assert (scene.height, scene.width, scene.bands) == (70, 90, 3)
        assert scene.dtype == {"float64": "float32"}.get(dtype, dtype)
        for window in grid(70, 90, tile=40, overlap=10):
            pixels, valid = scene.read(window)
            assert valid is None
            assert pixels.dtype == scene.dtype
            assert pixels.flags.c_contiguous
            np.testing.assert_array_equal(pixels, expected[window.slices])


@pytest.mark.parametrize(
    ("driver", "suffix"), [("PNG", "png"), ("JPEG", "jpg"), ("VRT", "vrt"), ("JP2OpenJPEG", "jp2")]
)
def test_other_formats_open_too(paint: Paint, driver: str, suffix: str) -> None:
    if driver == "VRT":
        tif = paint("plain.tif", RGB)
        path = tif.with_suffix(".vrt")
        path.write_text(
            '<VRTDataset rasterXSize="90" rasterYSize="70">'
            + "".join(
                f'<VRTRasterBand dataType="Byte" band="{band}"><SimpleSource><SourceFilename relativeToVRT="1">'
                f"{tif.name}</SourceFilename><SourceBand>{band}</SourceBand></SimpleSource></VRTRasterBand>"
                for band in (1, 2, 3)
            )
            + "</VRTDataset>"
        )
    else:
        options = {"quality": "100", "reversible": "YES"} if driver == "JP2OpenJPEG" else {}
        path = paint(f"plain.{suffix}", RGB, driver=driver, **options)

    pixels, valid = whole(path)

    assert valid is None
    if driver == "JPEG":
        assert pixels.shape == RGB.shape
    else:
        np.testing.assert_array_equal(pixels, RGB)


def test_names_with_spaces_and_letters_beyond_ascii_open(paint: Paint) -> None:
    path = paint("Überflug süd [1] #2?.tif", RGB)

    with open_scene(path) as scene:
        assert scene.name == "Überflug süd [1] #2?"
        np.testing.assert_array_equal(scene.read(Window(3, 4, 5, 6))[0], RGB[3:8, 4:10])
    np.testing.assert_array_equal(whole(str(path))[0], RGB)


def test_nothing_is_written_beside_a_scene(paint: Paint, tmp_path: Path) -> None:
    whole(paint("scene.jp2", RGB, driver="JP2OpenJPEG", **PLACE))

    assert [path.name for path in tmp_path.iterdir()] == ["scene.jp2"]


def test_one_pixel_is_a_scene(paint: Paint) -> None:
    pixels, valid = whole(paint("one.tif", RGB[:1, :1], nodata=0))

    assert pixels.tolist() == RGB[:1, :1].tolist()
    assert valid is None


@pytest.mark.parametrize("window", [Window(-1, 0, 4, 4), Window(0, 0, 71, 4), Window(0, 88, 4, 4), Window(0, 0, 0, 4)])
def test_windows_outside_are_refused(paint: Paint, window: Window) -> None:
    with open_scene(paint("scene.tif", RGB)) as scene, pytest.raises(ValueError, match=r"is no window|outside"):
        scene.read(window)


# --- what is valid


def test_nodata_of_bytes_counts_where_all_bands_have_it(paint: Paint) -> None:
    pixels = RGB.copy()
    pixels[10:20, 30:50] = 0
    pixels[40, 40] = (0, 90, 80)

    found, valid = whole(paint("scene.tif", pixels, nodata=0))

    assert valid is not None
    expected = np.ones((70, 90), dtype=bool)
    expected[10:20, 30:50] = False
    np.testing.assert_array_equal(valid, expected)
    np.testing.assert_array_equal(found[expected], pixels[expected])
    # The nearest valid pixel in the row or column.
    np.testing.assert_array_equal(found[11, 35], pixels[9, 35])
    np.testing.assert_array_equal(found[14, 31], pixels[14, 29])


def test_a_nodata_value_that_is_no_measurement_counts_in_any_band(paint: Paint) -> None:
    pixels = RGB.astype(np.int16)
    pixels[5, 5, 1] = -9999

    found, valid = whole(paint("scene.tif", pixels, nodata=-9999))

    assert valid is not None
    assert np.argwhere(~valid).tolist() == [[5, 5]]
    assert found.min() > 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("nodata", [None, np.nan, 0, -3.4028234663852886e38])
def test_values_that_are_not_finite_are_invalid(paint: Paint, bad: float, nodata: float | None) -> None:
    pixels = RGB.astype(np.float32)
    pixels[7, 8, 2] = bad

    found, valid = whole(paint("scene.tif", pixels, nodata=nodata))

    assert valid is not None
    assert np.argwhere(~valid).tolist() == [[7, 8]]
    assert np.isfinite(found).all()


def test_transparency_is_no_band_but_tells_what_is_valid(paint: Paint) -> None:
    alpha = np.full((70, 90, 1), 255, dtype=np.uint8)
    alpha[:, :20] = 0
    colors = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
    path = paint("scene.tif", np.concatenate([RGB, alpha], axis=2), colorinterp=colors, nodata=3)

    found, valid = whole(path)

    assert found.shape == (70, 90, 3)
    assert valid is not None
    np.testing.assert_array_equal(valid, alpha[:, :, 0] > 0)
    np.testing.assert_array_equal(found[:, 5], RGB[:, 20])
    with open_scene(path, count=4) as scene:
        assert scene.bands == 4


def test_masks_inside_and_beside_the_file_count(paint: Paint, tmp_path: Path) -> None:
    mask = np.ones((70, 90), dtype=bool)
    mask[30:, 60:] = False
    _, inside = whole(paint("inside.tif", RGB, mask=mask))
    assert inside is not None
    np.testing.assert_array_equal(inside, mask)

    path = paint("beside.tif", RGB, **PLACE)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(path, "r+") as dataset:
        dataset.write_mask(mask)
    assert (tmp_path / "beside.tif.msk").exists()
    _, beside = whole(path)
    assert beside is not None
    np.testing.assert_array_equal(beside, mask)


def test_a_scene_without_any_value_reads_as_zeros(paint: Paint) -> None:
    found, valid = whole(paint("empty.tif", np.full((20, 30, 2), -9999, np.int16), nodata=-9999))

    assert valid is not None
    assert not valid.any()
    assert not found.any()


def test_filling_does_not_depend_on_the_tiles_where_the_edge_is_in_sight(paint: Paint) -> None:
    pixels = RGB.copy()
    pixels[20:30, 35:47] = 0
    with open_scene(paint("scene.tif", pixels, nodata=0)) as scene:
        expected, _ = scene.read(Window(0, 0, 70, 90))
        for window in (Window(15, 30, 20, 20), Window(10, 20, 40, 40), Window(19, 34, 12, 14)):
            np.testing.assert_array_equal(scene.read(window)[0], expected[window.slices])


# --- bands


def test_bands_are_chosen_by_number_and_by_name(paint: Paint) -> None:
    pixels = RANDOM.integers(0, 9, (5, 6, 4), dtype=np.uint8)
    names = ["Blue", "Green", "Red", "Near_Infrared"]
    path = paint("bgrn.tif", pixels, descriptions=names)

    with open_scene(path, bands=["red", "2", 1, "near infrared"]) as scene:
        assert scene.band_names == ("Red", "Green", "Blue", "Near_Infrared")
        np.testing.assert_array_equal(scene.read(Window(0, 0, 5, 6))[0], pixels[:, :, [2, 1, 0, 3]])
    colors = paint("rgb.tif", RGB, photometric="RGB")
    np.testing.assert_array_equal(whole(colors, bands=["blue", "RED"])[0], RGB[:, :, [2, 0]])
    np.testing.assert_array_equal(whole(colors, bands=[1, 1, 1])[0], RGB[:, :, [0, 0, 0]])


def test_a_fourth_band_that_was_marked_as_transparency_can_be_asked_for(paint: Paint) -> None:
    pixels = RANDOM.integers(0, 3, (9, 9, 4), dtype=np.uint8)
    pixels[3, 3:5] = 0
    path = paint("rgbn.tif", pixels)
    with rasterio.open(paint("placed.tif", pixels, **PLACE)) as dataset:
        assert dataset.colorinterp[3] == ColorInterp.alpha  # so GDAL writes four bands of bytes

    for found, valid in (whole(path, bands=[1, 2, 3, 4]), whole(path, count=4)):
        assert valid is not None
        np.testing.assert_array_equal(valid, pixels.any(axis=2))
        np.testing.assert_array_equal(found[valid], pixels[valid])


def test_bands_that_are_not_there_are_refused(paint: Paint) -> None:
    path = paint("rgb.tif", RGB, photometric="RGB")

    with pytest.raises(DataError, match=r"no band 4; it has 3 bands: 1 \(red\), 2 \(green\), 3 \(blue\)"):
        open_scene(path, bands=[1, 2, 4])
    with pytest.raises(DataError, match="no band 'bleu'; did you mean 'blue'"):
        open_scene(path, bands=["bleu"])
    with pytest.raises(DataError, match=r"the model takes 4 bands but .* has 3 bands.*give images"):
        open_scene(path, count=4)
    with pytest.raises(DataError, match=r"the model takes 1 band but 2 of .* were chosen"):
        open_scene(path, count=1, bands=["red", "green"])


def test_a_palette_is_read_as_colors(paint: Paint) -> None:
    path = paint("palette.png", np.array([[0, 1], [2, 1]], dtype=np.uint8), driver="PNG")
    with rasterio.open(
        path.with_suffix(".tif"), "w", driver="GTiff", height=2, width=2, count=1, dtype="uint8", **PLACE
    ) as dataset:
        dataset.write(np.array([[[0, 1], [2, 1]]], dtype=np.uint8))
        dataset.write_colormap(1, {0: (9, 8, 7), 1: (1, 2, 3), 2: (250, 0, 4)})

    pixels, _ = whole(path.with_suffix(".tif"), count=3)

    assert pixels.tolist() == [[[9, 8, 7], [1, 2, 3]], [[250, 0, 4], [1, 2, 3]]]


# --- numbers


def test_other_numbers_than_the_models_need_a_scale(paint: Paint) -> None:
    path = paint("deep.tif", RGB.astype(np.uint16) * 10)

    with pytest.raises(DataError, match=r"holds uint16 numbers but the model takes uint8; .* --scale LOW:HIGH"):
        open_scene(path, dtype="uint8")
    pixels, _ = whole(path, dtype="uint8", scale=(0, 2550))
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, RGB)


@pytest.mark.parametrize(
    ("source", "target", "scale", "raw", "expected"),
    [
        ("uint16", "uint8", (100, 1100), [0, 100, 600, 1100, 65535], [0, 0, 128, 255, 255]),
        ("int16", "uint8", (-100, 100), [-32768, -100, 0, 50, 32767], [0, 0, 128, 191, 255]),
        ("uint8", "uint16", (0, 255), [0, 1, 128, 254, 255], [0, 257, 32896, 65278, 65535]),
        ("float32", "uint8", (0, 0.5), [-1, 0, 0.1, 0.5, 9], [0, 0, 51, 255, 255]),
        ("uint16", "float32", (0, 10000), [0, 1, 5000, 10000, 20000], [0, 1e-4, 0.5, 1, 2]),
        ("uint8", "uint8", (255, 0), [0, 100, 255, 1, 2], [255, 155, 0, 254, 253]),
    ],
)
def test_scales_map_linearly(
    paint: Paint, source: str, target: str, scale: tuple[float, float], raw: list[float], expected: list[float]
) -> None:
    pixels, _ = whole(paint("row.tif", np.array([raw], dtype=source)), dtype=target, scale=scale)

    assert pixels.dtype == target
    np.testing.assert_allclose(pixels[0, :, 0], expected, rtol=1e-6)


def test_a_scale_is_applied_after_nodata_was_found(paint: Paint) -> None:
    raw = np.array([[0, 1000, 3000]], dtype=np.uint16)

    pixels, valid = whole(paint("row.tif", raw, nodata=0), dtype="uint8", scale=(1000, 3000))

    assert pixels[0, :, 0].tolist() == [0, 0, 255]
    assert valid is not None
    assert valid.tolist() == [[False, True, True]]


def test_impossible_scales_and_resolutions_are_refused(paint: Paint) -> None:
    path = paint("scene.tif", RGB)

    with pytest.raises(ConfigError, match="--scale takes two different numbers, found 5:5"):
        open_scene(path, scale=(5, 5))
    with pytest.raises(DataError, match=r"doesn't say how large its pixels are.*leave --resolution out"):
        open_scene(path, resolution=1)
    with pytest.raises(ConfigError, match="must be above 0, found -1"):
        open_scene(paint("placed.tif", RGB, **PLACE), resolution=-1)


# --- damage


def test_a_truncated_file_names_the_window(paint: Paint) -> None:
    noise = RANDOM.integers(0, 255, (256, 256, 3), dtype=np.uint8)
    path = paint("cut.tif", noise, tiled=True, blockxsize=64, blockysize=64, compress="deflate")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 3 // 4])

    with open_scene(path) as scene:
        np.testing.assert_array_equal(scene.read(Window(0, 0, 64, 256))[0], noise[:64])
        with pytest.raises(FileError, match=r"cut\.tif at row 192, column 64 \(64 × 128 pixels\): .*truncated"):
            scene.read(Window(192, 64, 64, 128))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.tif", b"", "is empty"),
        ("text.tif", b"no image at all", "is not an image: it holds text"),
        ("half.tif", b"II*\0\x08\0\0\0", "can't be read as an image"),
    ],
)
def test_what_is_no_image_is_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)

    with pytest.raises(FileError, match=f"{name} {message}"):
        open_scene(tmp_path / name)


def test_what_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"gone\.tif does not exist"):
        open_scene(tmp_path / "gone.tif")
    with pytest.raises(FileError, match="is a folder"):
        open_scene(tmp_path)
    with pytest.raises(FileError, match="give a local path or a URL"):
        open_scene("ftp://example.org/a.tif")


# --- real scenes


def test_real_scenes_are_read_as_rasterio_masks_them(shared_data: Path) -> None:
    # GDAL's own mask of a data set takes a pixel for valid where any band is.
    for name in ("RGB.byte.tif", "RGBA.uint16.tif", "mosaic_cog1.tif", "pix4d_alpha_nodata.tif", "hro_colorado.tif"):
        path = shared_data / "geotiff" / name
        with rasterio.open(path) as dataset:
            count = 3
            expected = dataset.read(list(range(1, count + 1))).transpose(1, 2, 0)
            mask = dataset.dataset_mask() > 0
        pixels, valid = whole(path)
        assert pixels.shape == expected.shape
        np.testing.assert_array_equal(mask if valid is None else valid, mask, err_msg=name)
        np.testing.assert_array_equal(pixels[mask], expected[mask], err_msg=name)


def test_real_radar_with_nan_comes_without(shared_data: Path) -> None:
    path = shared_data / "geotiff" / "cog_nodata_nan.tif"
    with rasterio.open(path) as dataset:
        expected = dataset.read(1)

    pixels, valid = whole(path)

    assert valid is not None
    np.testing.assert_array_equal(valid, np.isfinite(expected) & (expected != 0))
    np.testing.assert_array_equal(pixels[valid, 0], expected[valid])
    assert np.isfinite(pixels).all()
    assert pixels.min() > 0
