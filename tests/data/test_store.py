"""The decoded store: same pixels as the files, decoded once, never stale."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segshrink.classes import ClassMap
from segshrink.config import load_dataset
from segshrink.data import Sample, SceneStore, file_keys, open_dataset, scenes
from segshrink.data import store as store_module
from segshrink.errors import DataError, FileError
from segshrink.files import content_key
from segshrink.tiling import Window

CLASSES = ClassMap.build([("Land", "#8429F6", None), ("Road", "#6EC1E4", None)], ["#000000"])
CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "data"


@pytest.fixture
def samples(painter):
    """Three pairs of different sizes, written long ago."""
    for number, name in enumerate("abc"):
        size = (30 + number, 40 + number)
        painter.image(f"{name}.png", size, number)
        painter.mask(f"{name}_mask.png", size)
    settle(painter.root)
    return [Sample(name, painter.root / f"{name}.png", painter.root / f"{name}_mask.png") for name in "abc"]


def settle(folder):
    """Make all files look as if they were written an hour ago."""
    for path in folder.rglob("*.*"):
        status = path.stat()
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns - 3_600_000_000_000))


@pytest.fixture
def decoded(monkeypatch):
    """Names of files that were decoded or hashed, as they are."""
    calls: dict[str, list[str]] = {"decoded": [], "hashed": []}

    def spy(name, kind, module=store_module):
        original = getattr(module, name)

        def wrapped(path, *arguments, **options):
            calls[kind].append(Path(path).name)
            return original(path, *arguments, **options)

        monkeypatch.setattr(module, name, wrapped)

    spy("read_valid_image", "decoded")
    spy("read_mask", "decoded")
    spy("content_key", "hashed", file_keys)
    return calls


def test_pixels_equal_the_files(samples, tmp_path):
    done = []
    store = SceneStore(samples, CLASSES, folder=tmp_path / "cache", progress=lambda *counts: done.append(counts))
    assert done == [(1, 3), (2, 3), (3, 3)]
    assert (len(store), store.bands, store.dtype) == (3, 3, np.uint8)
    for index, scene in enumerate(scenes(store)):
        with Image.open(samples[index].image) as image:
            np.testing.assert_array_equal(scene.image, np.asarray(image))
        assert store.shape(index) == scene.image.shape[:2] == scene.target.shape
        half = store.shape(index)[0] // 2
        assert (scene.target[:half] == 0).all()
        assert (scene.target[half:] == 1).all()
        assert not scene.image.flags.writeable
        assert not scene.target.flags.writeable
        assert scene.name == samples[index].name
        assert store.image_key(index) == content_key(samples[index].image)


def test_a_second_store_neither_decodes_nor_hashes(samples, tmp_path, decoded):
    SceneStore(samples, CLASSES, folder=tmp_path / "cache")
    assert len(decoded["decoded"]) == len(decoded["hashed"]) == 6
    SceneStore(samples[::-1], CLASSES, folder=tmp_path / "cache")
    assert len(decoded["decoded"]) == len(decoded["hashed"]) == 6


def test_a_fresh_file_is_hashed_again(samples, tmp_path, decoded):
    samples[0].image.touch()
    for _ in range(2):
        SceneStore(samples[:1], CLASSES, folder=tmp_path / "cache")
    assert decoded["hashed"].count("a.png") == 2
    assert decoded["decoded"].count("a.png") == 1


def test_a_changed_file_is_decoded_anew_with_its_mask(samples, painter, tmp_path, decoded):
    SceneStore(samples, CLASSES, folder=tmp_path / "cache")
    changed = painter.image("b.png", (31, 41), seed=99)
    store = SceneStore(samples, CLASSES, folder=tmp_path / "cache")
    np.testing.assert_array_equal(store.image(1), changed)
    assert decoded["decoded"][6:] == ["b.png", "b_mask.png"]


def test_another_class_map_decodes_masks_anew(samples, tmp_path):
    swapped = ClassMap.build([("Road", "#6EC1E4", None), ("Land", "#8429F6", None)], ["#000000"])
    first = SceneStore(samples, CLASSES, folder=tmp_path / "cache")
    second = SceneStore(samples, swapped, folder=tmp_path / "cache")
    np.testing.assert_array_equal(first.mask(0), 1 - second.mask(0))


def test_equal_files_share_one_array(samples, painter, tmp_path):
    copy = painter.root / "copy.png"
    copy.write_bytes(samples[0].image.read_bytes())
    SceneStore([*samples, Sample("copy", copy, None)], CLASSES, folder=tmp_path / "cache")
    assert len(list((tmp_path / "cache").glob("*/images/*/*.npy"))) == 3


def test_windows_are_views_of_the_whole(samples, tmp_path, decoded):
    window = Window(3, 5, 16, 20)
    cut = Sample("cut", samples[0].image, samples[0].mask, window)
    store = SceneStore([samples[0], cut], CLASSES, folder=tmp_path / "cache")
    assert store.shape(1) == (16, 20)
    np.testing.assert_array_equal(store.image(1), store.image(0)[3:19, 5:25])
    np.testing.assert_array_equal(store.mask(1), store.mask(0)[3:19, 5:25])
    assert decoded["decoded"] == ["a.png", "a_mask.png"]
    outside = Sample("outside", samples[0].image, None, Window(20, 0, 16, 16))
    with pytest.raises(DataError, match="reaches outside"):
        SceneStore([outside], CLASSES, folder=tmp_path / "cache")


def test_images_without_mask_are_all_ignored(samples, tmp_path):
    store = SceneStore([Sample("a", samples[0].image, None)], CLASSES, folder=tmp_path / "cache")
    assert store.mask(0).shape == (30, 40)
    assert (store.mask(0) == 255).all()


def test_a_damaged_cache_is_repaired(samples, tmp_path):
    SceneStore(samples, CLASSES, folder=tmp_path / "cache")
    for path in (tmp_path / "cache").rglob("*.*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:100])
    store = SceneStore(samples, CLASSES, folder=tmp_path / "cache")
    with Image.open(samples[2].image) as image:
        np.testing.assert_array_equal(store.image(2), np.asarray(image))


def test_store_survives_pickling(samples, tmp_path):
    store = SceneStore(samples, CLASSES, folder=tmp_path / "cache")
    np.testing.assert_array_equal(store.image(1), pickle.loads(pickle.dumps(store)).image(1))  # noqa: S301
    assert len(pickle.dumps(store)) < 10_000


BUILD = """
import pickle, sys, time
from pathlib import Path
from segshrink.data import SceneStore
source, folder, ready, go = map(Path, sys.argv[1:])
samples, classes = pickle.loads(source.read_bytes())
ready.touch()
while not go.exists():
    time.sleep(0.001)
store = SceneStore(samples, classes, folder=folder)
print([int(store.image(index).sum()) + int(store.mask(index).sum()) for index in range(len(store))])
"""


def test_two_processes_may_build_at_once(painter, tmp_path):
    samples = []
    for number in range(12):
        painter.image(f"{number}.png", (60, 60), number)
        painter.mask(f"{number}_mask.png", (60, 60))
        samples.append(Sample(str(number), painter.root / f"{number}.png", painter.root / f"{number}_mask.png"))
    settle(painter.root)
    source, go = tmp_path / "samples.pickle", tmp_path / "go"
    source.write_bytes(pickle.dumps((samples, CLASSES)))
    ready = [tmp_path / "ready1", tmp_path / "ready2"]
    workers = [
        subprocess.Popen([sys.executable, "-c", BUILD, source, tmp_path / "both", mine, go], stdout=subprocess.PIPE)
        for mine in ready
    ]
    while not all(mine.exists() for mine in ready) and all(worker.poll() is None for worker in workers):
        time.sleep(0.01)
    go.touch()
    outputs = [worker.communicate(timeout=600)[0].decode() for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0]

    alone = SceneStore(samples, CLASSES, folder=tmp_path / "alone")
    expected = [int(alone.image(index).sum()) + int(alone.mask(index).sum()) for index in range(len(alone))]
    assert [json.loads(output) for output in outputs] == [expected, expected]

    def files(folder):
        return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())

    assert files(tmp_path / "both") == files(tmp_path / "alone")


def test_more_images_than_file_descriptors(painter, tmp_path, monkeypatch):
    resource = pytest.importorskip("resource", reason="open files can't be limited here")
    monkeypatch.setattr(store_module, "_OPEN_ARRAYS", 8)
    samples = []
    for number in range(80):
        painter.image(f"{number}.png", (4, 4), number)
        samples.append(Sample(str(number), painter.root / f"{number}.png", None))
    store = SceneStore(samples, CLASSES, folder=tmp_path / "cache")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 20, hard))  # noqa: PTH208
    try:
        sums = [int(store.image(index).sum()) for index in range(len(store))]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(set(sums)) > 40


def test_image_and_mask_must_agree_in_size(samples, painter, tmp_path):
    painter.mask("b_mask.png", (30, 40))
    with pytest.raises(DataError, match=r"b_mask\.png is 30 × 40 pixels .*b\.png is 31 × 41"):
        SceneStore(samples, CLASSES, folder=tmp_path / "cache")


def test_images_must_agree_in_bands_and_type(samples, painter, tmp_path):
    painter.image("b.png", (31, 41), bands=1)
    with pytest.raises(DataError, match=r"b\.png has 1 bands but .*a\.png has 3"):
        SceneStore(samples, CLASSES, folder=tmp_path / "cache")
    Image.fromarray(np.full((31, 41), 900, dtype=np.uint16)).save(painter.root / "deep.png")
    painter.image("flat.png", (31, 41), bands=1)
    mixed = [Sample(name, painter.root / f"{name}.png", None) for name in ("flat", "deep")]
    with pytest.raises(DataError, match=r"deep\.png is uint16 but .*flat\.png is uint8"):
        SceneStore(mixed, CLASSES, folder=tmp_path / "cache")


def test_unreadable_files_leave_nothing_behind(samples, painter, tmp_path):
    samples[1].image.write_bytes(samples[1].image.read_bytes()[:-200])
    samples[2].image.unlink()
    for broken in samples[1:]:
        with pytest.raises(FileError, match=broken.image.name):
            SceneStore([broken], CLASSES, folder=tmp_path / "cache")
    assert not list((tmp_path / "cache").rglob("*.npy"))
    painter.mask("a_mask.png", (30, 40), colors=((1, 2, 3), (0, 0, 0)))
    with pytest.raises(DataError, match=r"a_mask\.png.*#010203 \(600 pixels\)"):
        SceneStore(samples[:1], CLASSES, folder=tmp_path / "cache")


def test_cache_folder_that_cannot_be_written(samples, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="can't write"):
        SceneStore(samples, CLASSES, folder=tmp_path / "file" / "cache")


def test_the_cache_follows_the_environment(samples, tmp_path, monkeypatch):
    monkeypatch.setenv("SEGSHRINK_CACHE", str(tmp_path / "mine"))
    SceneStore(samples, CLASSES)
    assert list((tmp_path / "mine").rglob("*.npy"))
    monkeypatch.setenv("SEGSHRINK_CACHE", "~nobody-has-this-name/mine")
    with pytest.raises(FileError, match=r"~nobody-has-this-name/mine can't be found: there is no user of that name"):
        SceneStore(samples, CLASSES)
    monkeypatch.delenv("SEGSHRINK_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    assert SceneStore([], CLASSES).folder == tmp_path / "home" / "segshrink"


def test_palette_masks_of_the_dubai_tiles_hold_classes(shared_data, tmp_path):
    description = load_dataset(CONFIGS / "dubai.yaml", [f"root={shared_data / 'dubai'}"])
    dataset = open_dataset(description)
    palette = next(sample for sample in dataset.val if sample.name == "Tile_2-image_part_001")
    store = SceneStore([palette], dataset.classes, folder=tmp_path / "cache")
    with Image.open(palette.mask) as image:
        assert image.mode == "P"
        colors = np.asarray(image.convert("RGB"))
    for index, color in enumerate(dataset.classes.colors):
        np.testing.assert_array_equal(store.mask(0) == index, (colors == color).all(axis=2))


def test_images_are_brought_to_the_working_size_once(painter, tmp_path, decoded):
    pixels = painter.image("a.png", (40, 60))
    painter.mask("a_mask.png", (40, 60))
    settle(painter.root)
    samples = [Sample("a", painter.root / "a.png", painter.root / "a_mask.png")]
    for _ in range(2):
        store = SceneStore(samples, CLASSES, resize=0.5, folder=tmp_path / "cache")
    assert decoded["decoded"] == ["a.png", "a_mask.png"]
    assert store.shape(0) == (20, 30)
    means = pixels.reshape(20, 2, 30, 2, 3).astype(float).mean(axis=(1, 3))
    np.testing.assert_allclose(store.image(0), means, atol=0.5)
    assert store.image(0).dtype == np.uint8
    assert (store.mask(0)[:10] == 0).all()
    assert (store.mask(0)[10:] == 1).all()
    np.testing.assert_array_equal(store.original(0), pixels)
    plain = SceneStore(samples, CLASSES, folder=tmp_path / "cache")
    np.testing.assert_array_equal(plain.image(0), pixels)
    assert plain.image_key(0) != store.image_key(0)


def test_a_window_is_resized_as_an_image_of_its_own(painter, tmp_path):
    pixels = painter.image("a.png", (40, 60))
    windows = [Window(0, 0, 16, 16), Window(20, 30, 16, 24)]
    samples = [Sample(f"a{n}", painter.root / "a.png", None, window) for n, window in enumerate(windows)]
    store = SceneStore(samples, CLASSES, resize={"longest": 8}, folder=tmp_path / "cache")
    assert [store.shape(index) for index in range(2)] == [(8, 8), (5, 8)]
    part = pixels[:16, :16].reshape(8, 2, 8, 2, 3).astype(float).mean(axis=(1, 3))
    np.testing.assert_allclose(store.image(0), part, atol=0.5)
    np.testing.assert_array_equal(store.original(1), pixels[windows[1].slices])


@pytest.mark.parametrize("kind", ["images", "resized"])
def test_damaged_arrays_at_the_working_size_are_made_anew(samples, tmp_path, kind):
    cache = tmp_path / "cache"
    whole = np.array(SceneStore(samples[:1], CLASSES, resize=0.5, folder=cache).image(0))
    for path in cache.glob(f"*/{kind}/*/*.npy"):
        content = bytearray(path.read_bytes())
        content[200] ^= 255
        path.write_bytes(content)
    for path in cache.glob("*/resized/*/*.npy") if kind == "images" else ():
        path.unlink()
    np.testing.assert_array_equal(SceneStore(samples[:1], CLASSES, resize=0.5, folder=cache).image(0), whole)
