"""Arrays in files: what was damaged is noticed before it is used, whatever else happens to the files."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.transform import Affine
from tests.imagery.conftest import write_mask_beside

from segshrink.classes import IGNORE_INDEX, ClassMap
from segshrink.data import Sample, SceneStore, checked_arrays
from segshrink.data.checked_arrays import CheckedArrays, DamagedError, array_header, write_array
from segshrink.data.file_keys import remembered_key
from segshrink.errors import FileError
from segshrink.imagery import ReadOptions

CLASSES = ClassMap.build([("Land", None, 0), ("Road", None, 1)])
# Three blocks of bytes.
ARRAY = np.random.default_rng(0).integers(0, 255, (1300, 700, 3), dtype=np.uint8)
ROW = 2100


def flip(place: int) -> Callable[[Path], None]:
    """Change one bit and keep the file's size and time stamps."""

    def damage(path: Path) -> None:
        status = path.stat()
        content = bytearray(path.read_bytes())
        content[place] ^= 16
        with path.open("r+b") as stream:
            stream.write(content)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

    return damage


def shorten(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


@pytest.mark.parametrize(
    "array",
    [ARRAY, ARRAY[:, :, 0] > 9, np.arange(7, dtype=np.float32), np.zeros((0, 4), np.int16), ARRAY.transpose(1, 0, 2)],
)
def test_what_was_written_is_read(tmp_path: Path, array: np.ndarray) -> None:
    write_array(tmp_path / "a.npy", array, note="x")
    found = CheckedArrays().get(tmp_path / "a.npy", most=4)
    np.testing.assert_array_equal(found, array)
    assert found.dtype == array.dtype
    assert not found.flags.writeable
    header = array_header(tmp_path / "a.npy")
    assert header is not None
    assert (header.shape, header.dtype, header.note) == (array.shape, array.dtype, "x")
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), array)


@pytest.mark.parametrize("damage", [*map(flip, (3, 40, 200, ARRAY.size // 2, ARRAY.size, -3, -12)), shorten, lengthen])
def test_all_damage_is_noticed(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    path = tmp_path / "a.npy"
    write_array(path, ARRAY)
    damage(path)
    # The note behind the mark is the caller's; any letter may stand there.
    with pytest.raises(DamagedError):
        CheckedArrays().get(path, most=4)


def test_only_rows_that_are_looked_at_must_be_sound(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    write_array(path, ARRAY)
    flip(128 + 1200 * ROW)(path)
    arrays = CheckedArrays()
    np.testing.assert_array_equal(arrays.get(path, most=4, rows=slice(0, 400))[:400], ARRAY[:400])
    for rows in (slice(1200, 1201), slice(900, 1300), None):
        with pytest.raises(DamagedError):
            arrays.get(path, most=4, rows=rows)


@pytest.mark.parametrize("damage", [shorten, flip(ARRAY.size), Path.unlink])
def test_a_file_that_changes_while_it_is_mapped_is_looked_at_again(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    path = tmp_path / "a.npy"
    write_array(path, ARRAY)
    arrays = CheckedArrays()
    arrays.get(path, most=4)
    damage(path)
    if path.exists():
        os.utime(path)
    with pytest.raises((DamagedError, FileNotFoundError)):
        arrays.get(path, most=4)
    write_array(path, ARRAY + 1)
    np.testing.assert_array_equal(arrays.get(path, most=4), ARRAY + 1)


@contextmanager
def open_files(more: int) -> Iterator[None]:
    """Let this process open so many files more, and some that were closed between others."""
    resource = pytest.importorskip("resource", reason="open files can't be limited here")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    next_number = os.dup(0)
    os.close(next_number)
    resource.setrlimit(resource.RLIMIT_NOFILE, (next_number + more, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_few_files_are_held_open_and_too_few_are_told(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.npy" for number in range(120)]
    for number, path in enumerate(paths):
        write_array(path, np.full((2, 2), number))
    arrays = CheckedArrays()
    with open_files(40):
        held = [int(arrays.get(path, most=256)[0, 0]) for path in paths]
    assert held == list(range(120))
    with open_files(0), pytest.raises(FileError, match=r"ulimit -n") as caught:
        CheckedArrays().get(paths[0], most=256)
    assert caught.value.errno == errno.EMFILE


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    """Two scenes, one of them partly without values."""
    pixels = ARRAY[:200, :300].transpose(2, 0, 1).copy()
    pixels[:, :50] = 0
    found = []
    for name, nodata in (("a", None), ("b", 0)):
        size = {"height": 200, "width": 300, "count": 3, "dtype": "uint8", "transform": Affine(1, 0, 5e5, 0, -1, 5e6)}
        with rasterio.open(tmp_path / f"{name}.tif", "w", driver="GTiff", nodata=nodata, **size) as dataset:
            dataset.write(pixels)
        Image.fromarray(ARRAY[:200, :300, 0] % 2).save(tmp_path / f"{name}.png")
        found.append(Sample(name, tmp_path / f"{name}.tif", tmp_path / f"{name}.png"))
    return found


def contents(store: SceneStore) -> list[np.ndarray]:
    return [
        np.array(array)
        for index in range(len(store))
        for array in (store.image(index), store.mask(index), store.valid(index))
        if array is not None
    ]


@pytest.mark.parametrize("damage", [flip(5000), shorten, Path.unlink])
@pytest.mark.parametrize("kind", ["images", "masks", "valid"])
@pytest.mark.parametrize("running", [False, True])
def test_a_store_mends_itself(
    samples: list[Sample], tmp_path: Path, damage: Callable[[Path], None], kind: str, running: bool
) -> None:
    cache = tmp_path / "cache"
    store = SceneStore(samples, CLASSES, folder=cache)
    expected = contents(store)
    assert len(expected) == 5
    for path in cache.glob(f"v*/{kind}/*/*.npy"):
        damage(path)
        if path.exists():
            os.utime(path)
    again = store if running else SceneStore(samples, CLASSES, folder=cache)
    for one, two in zip(contents(again), expected, strict=True):
        np.testing.assert_array_equal(one, two)


def test_a_mask_is_decoded_anew_with_the_no_data_value_that_its_sample_declares(
    samples: list[Sample], tmp_path: Path
) -> None:
    declared = [replace(samples[0], options=ReadOptions(nodata=0))]
    expected = contents(SceneStore(declared, CLASSES, folder=tmp_path / "cache"))
    assert (expected[1][:50] == IGNORE_INDEX).all()
    for path in tmp_path.glob("cache/v*/valid/*/*.npy"):
        flip(5000)(path)
        os.utime(path)
    for path in tmp_path.glob("cache/v*/masks/*/*.npy"):
        path.unlink()
    again = contents(SceneStore(declared, CLASSES, folder=tmp_path / "cache"))
    for one, two in zip(again, expected, strict=True):
        np.testing.assert_array_equal(one, two)


def test_a_store_says_when_it_cannot_mend_itself(samples: list[Sample], tmp_path: Path) -> None:
    store = SceneStore(samples, CLASSES, folder=tmp_path / "cache")
    samples[0].image.write_bytes(samples[1].image.read_bytes())
    for path in (tmp_path / "cache").glob("v*/images/*/*.npy"):
        path.unlink()
    with pytest.raises(FileError, match=r"a\.tif .*start again"):
        store.image(0)


def settled(path: Path) -> Path:
    os.utime(path, (1e9, 1e9))
    return path


def test_files_beside_an_image_and_sources_of_a_mosaic_belong_to_its_key(samples: list[Sample], tmp_path: Path) -> None:
    mosaic = tmp_path / "mosaic.vrt"
    mosaic.write_text(
        '<VRTDataset rasterXSize="300" rasterYSize="200"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
        '<SourceFilename relativeToVRT="1">a.tif</SourceFilename><SourceBand>1</SourceBand>'
        "</SimpleSource></VRTRasterBand></VRTDataset>"
    )
    for path in (mosaic, *(sample.image for sample in samples)):
        settled(path)

    def keys() -> list[str]:
        return [remembered_key(path, tmp_path / "cache") for path in (samples[0].image, mosaic, samples[1].image)]

    first = keys()
    assert keys() == first
    (tmp_path / "a.tif.msk").write_bytes(b"a mask")
    second = keys()
    assert [one == two for one, two in zip(first, second, strict=True)] == [False, False, True]
    samples[0].image.write_bytes(samples[1].image.read_bytes())
    third = keys()
    assert [one == two for one, two in zip(second, third, strict=True)] == [False, False, True]
    (tmp_path / "a.tif.msk").unlink()
    assert keys()[0] == keys()[2] == first[2]


def test_a_new_mask_beside_an_image_is_seen(samples: list[Sample], tmp_path: Path) -> None:
    settled(samples[0].image)
    assert SceneStore(samples[:1], CLASSES, folder=tmp_path / "cache").valid(0) is None
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK="NO"), rasterio.open(samples[0].image, "r+") as dataset:
        masked = np.full((200, 300), 255, np.uint8)
        masked[:, 250:] = 0
        dataset.write_mask(masked)
    os.utime(samples[0].image, (1e9, 1e9))
    assert (tmp_path / "a.tif.msk").exists()
    store = SceneStore(samples[:1], CLASSES, folder=tmp_path / "cache")
    valid = store.valid(0)
    assert valid is not None
    np.testing.assert_array_equal(valid, masked > 0)
    assert (store.mask(0)[:, 250:] == 255).all()


@pytest.mark.parametrize(("suffix", "kept"), [("tif", True), ("png", False)])
def test_a_picture_that_was_decoded_without_its_mask_is_decoded_anew(tmp_path: Path, suffix: str, kept: bool) -> None:
    path, cache = tmp_path / f"a.{suffix}", tmp_path / "cache"
    Image.fromarray(np.full((4, 5, 3), 9, np.uint8)).save(path)
    assert SceneStore([Sample("a", path, None)], CLASSES, folder=cache).image_key(0) == remembered_key(path, cache)
    write_mask_beside(path, np.arange(20).reshape(4, 5) > 7)
    store = SceneStore([Sample("a", path, None)], CLASSES, folder=cache)
    assert (store.image_key(0) == remembered_key(path, cache)) == kept
    np.testing.assert_array_equal(store.valid(0), np.arange(20).reshape(4, 5) > 7)


def test_the_share_of_open_files_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource", reason="open files can't be limited here")
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 256))
    # Three stores and a cache of answers leave half of them to everything else.
    assert 4 * checked_arrays._at_once(256) <= 128
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert checked_arrays._at_once(256) == 256
