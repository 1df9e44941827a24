from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segshrink.classes import ClassMap
from segshrink.errors import DataError, FileError
from segshrink.imagery import ReadOptions, read_image, read_mask, write_image, write_index_png, write_overlay

CLASSES = ClassMap.build([("a", "#FF0000", None), ("b", "#00FF00", None)], ["#000000"])
INDEX = np.array([[0, 1, 255], [1, 1, 0]], dtype=np.uint8)


def test_index_pngs_hold_numbers_and_show_colors(tmp_path: Path) -> None:
    write_index_png(tmp_path / "m.png", INDEX, CLASSES)
    with Image.open(tmp_path / "m.png") as image:
        assert image.mode == "P"
        np.testing.assert_array_equal(np.array(image), INDEX)
        np.testing.assert_array_equal(np.array(image.convert("RGB")), CLASSES.colorize(INDEX))
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png", CLASSES), INDEX)


def test_index_pngs_are_written_under_any_name_and_from_any_view(tmp_path: Path) -> None:
    write_index_png(tmp_path / "m.truth", np.asfortranarray(INDEX)[:, ::-1], CLASSES)
    np.testing.assert_array_equal(read_mask(tmp_path / "m.truth", CLASSES), INDEX[:, ::-1])


@pytest.mark.parametrize("shape", [(7, 5), (7, 5, 1), (7, 5, 3), (7, 5, 4)])
@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_lossless_formats_keep_pixels(tmp_path: Path, name: str, shape: tuple[int, ...]) -> None:
    image = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    write_image(tmp_path / name, image)
    found = read_image(tmp_path / name, ReadOptions(bands=shape[2] if len(shape) > 2 else 1))
    np.testing.assert_array_equal(found, image.reshape(7, 5, -1))
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_jpegs_are_close(tmp_path: Path) -> None:
    ramp = np.linspace(0, 255, 64).astype(np.uint8)
    image = np.stack([np.tile(ramp, (64, 1))] * 3, axis=2)
    write_image(tmp_path / "a.JPG", image)
    assert np.abs(read_image(tmp_path / "a.JPG").astype(int) - image).max() <= 4


@pytest.mark.parametrize(
    ("name", "bands", "dtype"),
    [
        ("a.jpg", 4, "uint8"),
        ("a.jpg", 3, "uint16"),
        ("a.png", 5, "uint8"),
        ("a.png", 3, "float32"),
        ("a.bmp", 2, "uint8"),
    ],
)
def test_what_a_format_cannot_hold_is_refused(tmp_path: Path, name: str, bands: int, dtype: str) -> None:
    with pytest.raises(DataError, match=rf"holds no {bands} bands of {dtype}; write a \.tif"):
        write_image(tmp_path / name, np.zeros((4, 4, bands), dtype=dtype))
    assert list(tmp_path.iterdir()) == []


def test_unknown_suffixes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"unknown suffix '\.xyz'; use one of \.png"):
        write_image(tmp_path / "a.xyz", np.zeros((4, 4, 3), dtype=np.uint8))


def test_overlays_mix_colors_and_leave_ignored_pixels(tmp_path: Path) -> None:
    image = np.full((2, 3, 3), 100, dtype=np.uint8)
    write_overlay(tmp_path / "o.png", image, INDEX, CLASSES, opacity=0.25)
    shown = read_image(tmp_path / "o.png")
    assert shown[0, 0].tolist() == [139, 75, 75]
    assert shown[0, 1].tolist() == [75, 139, 75]
    assert shown[0, 2].tolist() == [100, 100, 100]


@pytest.mark.parametrize("opacity", [0.0, 1.0])
def test_overlays_at_the_ends(tmp_path: Path, opacity: float) -> None:
    image = np.random.default_rng(0).integers(0, 256, (2, 3, 3)).astype(np.uint8)
    write_overlay(tmp_path / "o.png", image, np.where(INDEX == 255, 0, INDEX), CLASSES, opacity=opacity)
    expected = image if opacity == 0 else CLASSES.colorize(np.where(INDEX == 255, 0, INDEX))
    np.testing.assert_array_equal(read_image(tmp_path / "o.png"), expected)


def test_overlays_of_another_size_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"found \(4, 4\) and \(2, 3\)"):
        write_overlay(tmp_path / "o.png", np.zeros((4, 4, 3), dtype=np.uint8), INDEX, CLASSES)


def test_overlays_of_sixteen_bit_scenes(tmp_path: Path, shared_data: Path) -> None:
    image = read_image(shared_data / "geotiff" / "mosaic_cog1.tif")
    write_overlay(tmp_path / "o.jpg", image, np.zeros(image.shape[:2], dtype=np.uint8), CLASSES)
    assert read_image(tmp_path / "o.jpg").shape == image.shape


@pytest.mark.parametrize("name", ["a.png", "a.tif", "deep.png"])
def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, name: str) -> None:
    script = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from segshrink.errors import FileError
from segshrink.imagery import write_image
image = np.random.default_rng(0).integers(0, 256, (300, 300, 3)).astype("uint16" if "deep" in sys.argv[1] else "uint8")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    write_image(Path(sys.argv[1]), image)
except FileError as error:
    sys.exit(str(error))
"""
    done = subprocess.run(
        [sys.executable, "-B", "-c", script, str(tmp_path / name)], capture_output=True, text=True, check=False
    )
    assert list(tmp_path.iterdir()) == []
    assert done.returncode == 1
    assert done.stderr.startswith(f"can't write {tmp_path / name}: ")
    assert done.stderr.count("\n") == 1


def test_no_folder_to_write_into(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FileError, match=r"can't write .*m\.png"):
        write_index_png(tmp_path / "file" / "m.png", INDEX, CLASSES)
