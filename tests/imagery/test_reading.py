from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from PIL import Image

from segshrink.errors import FileError
from segshrink.imagery import ReadOptions, probe, read_image, write_image


def picture(*shape: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def kind(path: Path, bands: int | None = None) -> tuple[int, int, int, str]:
    """Return height, width, bands and data type as the header tells them."""
    info = probe(path, ReadOptions(bands=bands))
    return info.height, info.width, info.bands, info.dtype


def read_with_rasterio(path: Path) -> NDArray[np.generic]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open(path) as dataset:
            return np.moveaxis(dataset.read(), 0, -1)


@pytest.mark.parametrize(
    ("mode", "bands"), [("1", 1), ("L", 1), ("LA", 2), ("P", 3), ("RGB", 3), ("RGBA", 4), ("CMYK", 3)]
)
def test_every_kind_of_small_picture(tmp_path: Path, mode: str, bands: int) -> None:
    image = Image.fromarray(picture(20, 31, 3)).convert(mode)
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    image.save(path)
    array = read_image(path, ReadOptions(bands=bands))
    assert array.shape == (20, 31, bands)
    assert kind(path, bands) == (20, 31, bands, "uint8")
    assert kind(path) == (20, 31, bands - (mode in ("LA", "RGBA")), "uint8")
    if mode != "CMYK":
        kept = image if mode in ("L", "LA", "RGB", "RGBA") else image.convert("L" if mode == "1" else "RGB")
        np.testing.assert_array_equal(array, np.array(kept).reshape(20, 31, bands))


@pytest.mark.parametrize("suffix", [".bmp", ".gif", ".webp"])
def test_other_formats(tmp_path: Path, suffix: str) -> None:
    Image.fromarray(picture(8, 9, 3)).save(tmp_path / f"a{suffix}")
    assert read_image(tmp_path / f"a{suffix}").shape == (8, 9, 3)
    assert kind(tmp_path / f"a{suffix}") == (8, 9, 3, "uint8")


@pytest.mark.parametrize("bands", [1, 2, 3, 4])
def test_sixteen_bit_png_keeps_all_its_bits(tmp_path: Path, bands: int) -> None:
    image = np.random.default_rng(0).integers(0, 65536, (13, 17, bands)).astype(np.uint16)
    write_image(tmp_path / "a.png", image)
    assert kind(tmp_path / "a.png", bands) == (13, 17, bands, "uint16")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", ReadOptions(bands=bands)), image)


@pytest.mark.parametrize(
    "name",
    [
        "RGB.byte.tif",
        "RGBA.uint16.tif",
        "mosaic_cog1.tif",
        "sample_geotiff.tif",
        "sample_geotiff_custom_proj.tif",
        "sample_fp_mask.tif",
        "cog_nodata_nan.tif",
        "pix4d_alpha_nodata.tif",
        "hro_colorado.tif",
        "all-nodata.tif",
    ],
)
def test_real_geotiffs(shared_data: Path, name: str) -> None:
    path = shared_data / "geotiff" / name
    everything = read_with_rasterio(path)
    bands = everything.shape[2]
    array = read_image(path, ReadOptions(bands=bands))
    np.testing.assert_array_equal(array, everything)
    assert array.flags.c_contiguous
    assert kind(path, bands) == (*array.shape, str(array.dtype))
    colors = bands - name.startswith(("RGBA", "pix4d"))
    np.testing.assert_array_equal(read_image(path), everything[:, :, :colors])


@pytest.mark.parametrize(("dtype", "read_as"), [("float64", "float32"), ("int8", "int16"), ("int32", "float32")])
def test_numbers_we_do_not_work_in_are_converted(tmp_path: Path, dtype: str, read_as: str) -> None:
    image = np.arange(-30, 30).reshape(5, 6, 2).astype(dtype)
    write_image(tmp_path / "a.tif", image)
    assert probe(tmp_path / "a.tif").dtype == read_as
    array = read_image(tmp_path / "a.tif")
    assert str(array.dtype) == read_as
    np.testing.assert_array_equal(array, image)


def test_complex_numbers_are_refused(tmp_path: Path) -> None:
    write_image(tmp_path / "a.tif", np.ones((4, 4, 1), dtype=np.complex64))
    for read in (probe, read_image):
        with pytest.raises(FileError, match=r"a\.tif holds complex64 numbers; convert it"):
            read(tmp_path / "a.tif")


def test_many_bands(tmp_path: Path) -> None:
    image = np.random.default_rng(0).normal(size=(6, 7, 13)).astype(np.float32)
    write_image(tmp_path / "a.tif", image)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), image)


def test_palette_tiffs_are_read_through_the_palette(tmp_path: Path) -> None:
    image = Image.fromarray(picture(16, 16, 3)).quantize(20)
    image.save(tmp_path / "a.tif")
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), np.array(image.convert("RGB")))
    assert probe(tmp_path / "a.tif").bands == 3


def test_jpeg2000_and_vrt(tmp_path: Path, shared_data: Path) -> None:
    Image.fromarray(picture(32, 32, 3)).save(tmp_path / "a.jp2", irreversible=False)
    np.testing.assert_array_equal(read_image(tmp_path / "a.jp2"), picture(32, 32, 3))
    source = tmp_path / "RGB.byte.tif"
    shutil.copy(shared_data / "geotiff" / "RGB.byte.tif", source)
    (tmp_path / "a.vrt").write_text(
        '<VRTDataset rasterXSize="100" rasterYSize="50"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
        f'<SourceFilename relativeToVRT="0">{source}</SourceFilename><SourceBand>2</SourceBand>'
        '<SrcRect xOff="300" yOff="200" xSize="100" ySize="50"/><DstRect xOff="0" yOff="0" xSize="100" ySize="50"/>'
        "</SimpleSource></VRTRasterBand></VRTDataset>"
    )
    np.testing.assert_array_equal(read_image(tmp_path / "a.vrt")[:, :, 0], read_image(source)[200:250, 300:400, 1])


def test_the_suffix_does_not_matter(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", picture(5, 6, 3))
    (tmp_path / "a.png").rename(tmp_path / "a.jpg")
    np.testing.assert_array_equal(read_image(tmp_path / "a.jpg"), picture(5, 6, 3))


def test_text_named_png(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("version https://git-lfs.github.com/spec/v1\n")
    for read in (probe, read_image):
        with pytest.raises(FileError, match=r"a\.png is not an image: it holds text \(b'version https://"):
            read(tmp_path / "a.png")


def test_unknown_bytes_empty_files_folders_and_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(bytes(range(256)))
    (tmp_path / "b.jpg").touch()
    (tmp_path / "c.png").mkdir()
    for name, message in (
        ("a.tif", "is not an image: it holds data of an unknown format"),
        ("b.jpg", "is empty; copy or download it again"),
        ("c.png", "is a folder; give the path of an image file"),
        ("d.png", "does not exist; check the path"),
    ):
        with pytest.raises(FileError, match=rf"{name} {message}"):
            read_image(tmp_path / name)


@pytest.mark.parametrize("kept", [0.02, 0.5, 0.97])
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.bmp", "a.tif", "deep.png"])
def test_truncated_files_are_refused(tmp_path: Path, name: str, kept: float, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / name
    image = picture(120, 90, 3)
    write_image(path, image.astype(np.uint16) * 200 if name == "deep.png" else image)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(FileError, match=rf"{name} is damaged or truncated \(.*\); copy or download it again") as caught:
        read_image(path)
    assert "\n" not in str(caught.value)
    # GDAL must not write to the terminal behind our back.
    assert capfd.readouterr() == ("", "")


def test_flipped_bytes_inside_a_png_are_refused(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", picture(60, 60, 3))
    content = bytearray((tmp_path / "a.png").read_bytes())
    content[len(content) // 2] ^= 0xFF
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(FileError, match="damaged or truncated"):
        read_image(tmp_path / "a.png")


def test_a_real_truncated_jpeg(shared_data: Path, tmp_path: Path) -> None:
    whole = (shared_data / "dubai" / "Tile 2" / "images" / "image_part_001.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(whole[: len(whole) // 2])
    assert probe(tmp_path / "a.jpg").bands == 3
    with pytest.raises(FileError, match="damaged or truncated"):
        read_image(tmp_path / "a.jpg")


def test_files_without_permission_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_image(tmp_path / "a.png", picture(4, 4, 3))

    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    # Not by chmod: root may read everything.
    monkeypatch.setattr(Path, "open", denied)
    with pytest.raises(FileError, match=r"can't read .*a\.png: Permission denied; check its permissions"):
        read_image(tmp_path / "a.png")


def test_large_pictures_are_read_without_a_warning_and_bombs_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_image(tmp_path / "a.png", picture(40, 40, 3))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert read_image(tmp_path / "a.png").shape == (40, 40, 3)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(FileError, match=r"a\.png is too large for its format .* convert it to a GeoTIFF"):
        probe(tmp_path / "a.png")


def test_threads_may_read_at_the_same_time(tmp_path: Path) -> None:
    images = {tmp_path / f"{number}.tif": picture(50, 50, 3, seed=number) for number in range(4)}
    for path, image in images.items():
        write_image(path, image)
    before = list(warnings.filters)
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for path, image in images.items():
                np.testing.assert_array_equal(read_image(path), image)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert list(warnings.filters) == before


def test_reading_images_needs_no_torch() -> None:
    code = "import sys, segshrink.imagery, segshrink.tiling, segshrink.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
