from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.transform import Affine
from tests.imagery.conftest import write_mask_beside

from segshrink.classes import ClassMap, UndeclaredError
from segshrink.errors import DataError, FileError
from segshrink.imagery import read_mask, write_image

COLORS = ClassMap.build([("a", "#FF0000", None), ("b", "#0000FF", None)], ["#000000"])
VALUES = ClassMap.build([("a", "#FF0000", 0), ("b", "#0000FF", 1), ("c", None, 300)])
NORTH_UP = Affine(1, 0, 0, 0, -1, 2)
INDEX = np.array([[0, 1, 1], [1, 0, 255]], dtype=np.uint8)


def save_palette(path: Path, numbers: np.ndarray, palette: list[int]) -> None:
    image = Image.fromarray(numbers.astype(np.uint8))
    image.putpalette(palette)
    image.save(path)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".gif"])
def test_palette_masks_mean_their_colors_when_classes_are_colors(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"m{suffix}"
    # Palette positions in another order than the classes.
    save_palette(path, np.array([[2, 1, 1], [1, 2, 0]]), [0, 0, 0, 0, 0, 255, 255, 0, 0])
    np.testing.assert_array_equal(read_mask(path, COLORS), INDEX)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_palette_masks_mean_their_numbers_when_classes_have_values(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"m{suffix}"
    save_palette(path, INDEX, [9, 9, 9] * 256)
    np.testing.assert_array_equal(read_mask(path, VALUES), INDEX)


@pytest.mark.parametrize("tile", ["Tile 2", "Tile 4"])
def test_the_palette_pngs_of_dubai(shared_data: Path, tile: str) -> None:
    classes = ClassMap.build(
        [
            ("Building", "#3C1098", None),
            ("Land", "#8429F6", None),
            ("Road", "#6EC1E4", None),
            ("Vegetation", "#FEDD3A", None),
            ("Water", "#E2A929", None),
        ],
        ["#9B9B9B", "#000000"],
    )
    misread = 0
    for path in sorted((shared_data / "dubai" / tile / "masks").glob("*.png")):
        with Image.open(path) as image:
            assert image.mode == "P"
            raw, colors = np.array(image), np.array(image.convert("RGB"))
        index = read_mask(path, classes)
        expected = np.full(raw.shape, 255)
        for number, color in enumerate(classes.colors):
            expected[(colors == color).all(axis=2)] = number
        np.testing.assert_array_equal(index, expected)
        misread += bool((index != raw)[expected != 255].any())
    # Reading the raw numbers would be wrong in silence.
    assert misread > 0


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_color_masks(tmp_path: Path, mode: str) -> None:
    Image.fromarray(COLORS.colorize(INDEX)).convert(mode).save(tmp_path / "m.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png", COLORS), INDEX)
    write_image(tmp_path / "m.tif", COLORS.colorize(INDEX))
    np.testing.assert_array_equal(read_mask(tmp_path / "m.tif", COLORS), INDEX)


def test_gray_masks_of_numbers(tmp_path: Path) -> None:
    for image in (Image.fromarray(INDEX), Image.fromarray(INDEX).convert("LA")):
        image.save(tmp_path / "m.png")
        np.testing.assert_array_equal(read_mask(tmp_path / "m.png", VALUES), INDEX)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_gray_pngs_of_few_bits_are_not_stretched(tmp_path: Path, bits: int) -> None:
    numbers = np.array([[0, 1], [1, 0]] if bits == 1 else [[0, 1], [2, 3]], dtype=np.uint8)
    with rasterio.Env(GDAL_PAM_ENABLED=False):
        # Pillow can't write such files.
        profile = {"driver": "PNG", "height": 2, "width": 2, "count": 1, "dtype": "uint8", "nbits": bits}
        with rasterio.open(tmp_path / "m.png", "w", **profile, transform=NORTH_UP) as dataset:
            dataset.write(numbers, 1)
    assert (tmp_path / "m.png").read_bytes()[24] == bits
    classes = ClassMap.build([(str(number), None, number) for number in range(4)])
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png", classes), numbers)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bit_masks(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"m{suffix}"
    write_image(path, np.array([[0, 1, 300, 255]], dtype=np.uint16))
    assert read_mask(path, VALUES).tolist() == [[0, 1, 2, 255]]
    with pytest.raises(DataError, match=rf"m\{suffix}: classes are given by color, found a mask of uint16 numbers"):
        read_mask(path, COLORS)


@pytest.mark.parametrize(("dtype", "nodata"), [("int16", -9999), ("uint16", 65535), ("float32", np.nan), ("uint8", 7)])
def test_no_data_is_ignored(tmp_path: Path, dtype: str, nodata: float) -> None:
    numbers = np.array([[0, 1], [nodata, 1]]).astype(dtype)
    profile = {"driver": "GTiff", "height": 2, "width": 2, "count": 1, "dtype": dtype, "nodata": nodata}
    with rasterio.open(tmp_path / "m.tif", "w", **profile, transform=NORTH_UP) as dataset:
        dataset.write(numbers, 1)
    assert read_mask(tmp_path / "m.tif", VALUES).tolist() == [[0, 1], [255, 1]]


def test_no_data_that_is_a_class_stays_a_class(tmp_path: Path) -> None:
    profile = {"driver": "GTiff", "height": 1, "width": 2, "count": 1, "dtype": "uint8", "nodata": 0}
    with rasterio.open(tmp_path / "m.tif", "w", **profile, transform=NORTH_UP) as dataset:
        dataset.write(np.array([[0, 1]], dtype=np.uint8), 1)
    assert read_mask(tmp_path / "m.tif", VALUES).tolist() == [[0, 1]]


def test_a_real_mask_without_georeference(shared_data: Path) -> None:
    path = shared_data / "geotiff" / "sample_fp_mask.tif"
    classes = ClassMap.build([("ground", None, 0), ("building", None, 255)])
    index = read_mask(path, classes)
    with Image.open(path) as image:
        np.testing.assert_array_equal(index, np.array(image) // 255)


def test_undeclared_content_names_the_file_and_counts(tmp_path: Path) -> None:
    colors = COLORS.colorize(INDEX)
    colors[0, :2] = (1, 2, 3)
    write_image(tmp_path / "m.png", colors)
    with pytest.raises(
        UndeclaredError, match=r"m\.png: undeclared colou?rs in the mask: #010203 \(2 pixels\)"
    ) as caught:
        read_mask(tmp_path / "m.png", COLORS)
    assert caught.value.found == {"#010203": 2}
    write_image(tmp_path / "n.tif", np.array([[0, 1, 5]], dtype=np.uint8))
    with pytest.raises(UndeclaredError, match=r"n\.tif: undeclared values in the mask: 5 \(1 pixels\)") as caught:
        read_mask(tmp_path / "n.tif", VALUES)
    assert caught.value.found == {5: 1}


def test_a_jpeg_mask_is_refused_with_the_remedy(tmp_path: Path) -> None:
    write_image(tmp_path / "m.jpg", COLORS.colorize(np.zeros((64, 64), dtype=np.uint8)))
    with pytest.raises(DataError, match=r"m\.jpg: masks can't be JPEG files, .* export them again, .* as PNG"):
        read_mask(tmp_path / "m.jpg", COLORS)


def test_colors_for_classes_with_values_are_refused(tmp_path: Path) -> None:
    write_image(tmp_path / "m.png", COLORS.colorize(INDEX))
    with pytest.raises(DataError, match=r"m\.png: classes are given by value, found a mask in colou?rs"):
        read_mask(tmp_path / "m.png", VALUES)


def test_a_text_file_is_no_mask(tmp_path: Path) -> None:
    (tmp_path / "m.png").write_text("no image")
    with pytest.raises(FileError, match=r"m\.png is not an image"):
        read_mask(tmp_path / "m.png", COLORS)


@pytest.mark.parametrize(
    "kind", ["inside", "beside", "alpha", "rgba", "rgb inside", "la.png", "rgba.png", "beside.png"]
)
def test_what_a_mask_masks_out_is_ignored_whatever_it_holds(tmp_path: Path, kind: str) -> None:
    index = np.random.default_rng(2).integers(0, 2, (8, 9), dtype=np.uint8)
    hidden = np.zeros((8, 9), dtype=bool)
    hidden[:3] = True
    alpha = np.where(hidden, 0, 255).astype(np.uint8)
    colors = kind.startswith("rgb")
    classes = COLORS if colors else VALUES
    drawn = classes.colorize(index) if colors else index[:, :, np.newaxis].copy()
    drawn[0] = 77  # undeclared, but hidden
    path = tmp_path / (kind if kind.endswith("png") else "m.tif")
    stacked = np.dstack([drawn, alpha])
    if kind == "beside.png":
        Image.fromarray(drawn[:, :, 0]).save(path)
        write_mask_beside(path, ~hidden)
    elif kind.endswith("png"):
        Image.fromarray(stacked).save(path)
    else:
        written = stacked if kind in ("alpha", "rgba") else drawn
        options = {"alpha": "yes"} if kind in ("alpha", "rgba") else {}
        size = {"height": 8, "width": 9, "count": written.shape[2], "dtype": "uint8"}
        with (
            rasterio.Env(GDAL_TIFF_INTERNAL_MASK=kind != "beside"),
            rasterio.open(path, "w", driver="GTiff", transform=Affine(1, 0, 5, 0, -1, 5), **size, **options) as file,
        ):
            file.write(written.transpose(2, 0, 1))
            if kind.endswith("side"):
                file.write_mask(~hidden)
    assert (tmp_path / "m.tif.msk").exists() == (kind == "beside")

    np.testing.assert_array_equal(read_mask(path, classes), np.where(hidden, 255, index))
    if not colors:
        large = ClassMap.build([("large", None, 300), ("a", None, 0), ("b", None, 1)])
        np.testing.assert_array_equal(read_mask(path, large), np.where(hidden, 255, index + 1))


def test_a_mask_that_masks_out_everything_holds_no_class(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((3, 4, 4), dtype=np.uint8)).save(tmp_path / "m.png")
    assert (read_mask(tmp_path / "m.png", COLORS) == 255).all()
