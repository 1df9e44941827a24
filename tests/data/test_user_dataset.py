"""Data sets that a function makes, read as the files that they are written into."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from segshrink.config import DatasetDescription
from segshrink.data import SceneStore, inspect_dataset, open_dataset
from segshrink.data.user_dataset import with_files
from segshrink.errors import ConfigError, DataError, ModelError

CODE = """
import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

def pixels(number):
    return np.random.default_rng(number).integers(0, 255, (16, 24, 3), dtype=np.uint8)

def target(number):
    mask = np.zeros((16, 24), dtype=np.int64)
    mask[number:] = 1
    mask[-1] = -1
    return mask

class Pairs(Dataset):
    def __init__(self, numbers):
        self.numbers = list(numbers)
    def __len__(self):
        return len(self.numbers)
    def __getitem__(self, place):
        number = self.numbers[place]
        return torch.from_numpy(pixels(number)).permute(2, 0, 1), torch.from_numpy(target(number))

def torch_pairs():
    return Pairs(range(5))

class Table:
    '''Rows as Hugging Face's data sets give them.'''
    _fingerprint = "0"
    def __init__(self, numbers, masks=True):
        self.numbers, self.masks = list(numbers), masks
    def __len__(self):
        return len(self.numbers)
    def __getitem__(self, place):
        number = self.numbers[place]
        row = {"id": number, "image": Image.fromarray(pixels(number))}
        if self.masks:
            row["annotation"] = Image.fromarray(target(number).clip(0).astype(np.uint8))
        return row

def parts():
    return {"train": Table(range(3)), "validation": Table(range(3, 5)), "extra": Table(range(5, 7), masks=False)}

def twice():
    return {"train": Table(range(3)), "train_extra": Table(range(3, 5))}

def bands(count, dtype):
    return np.random.default_rng(count).integers(0, 200, (16, 24, count)).astype(dtype)

def of_bands(count, dtype):
    return [(bands(count, dtype), target(number)) for number in range(3)]

def two_bands():
    return of_bands(2, "u1")

def four_bands():
    return of_bands(4, "u1")

def four_wide_bands():
    return of_bands(4, ">u2")

def of_mode(mode, pixels):
    return [(Image.frombuffer(mode, (24, 16), pixels.tobytes(), "raw", mode, 0, 1), target(0)) for _ in range(3)]

def transparent():
    return of_mode("RGBA", np.where(np.arange(4) == 3, 0, bands(4, "u1")).astype("u1"))

def floats():
    return of_mode("F", bands(1, "f4") + np.float32(0.5))

def integers():
    return of_mode("I", bands(1, "i4") * 1000)

def big_endian():
    return of_mode("I;16B", (bands(1, "u2") * 300).astype(">u2"))

def unlabeled():
    return Table(range(4), masks=False)

def fails():
    raise OSError("no such table")

def wrong():
    return [(np.zeros((4, 4, 3), np.uint8), np.full((4, 4), 0.5))]

def nothing():
    return 3
"""


@pytest.fixture(autouse=True)
def _module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tables_of_mine.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("SEGSHRINK_CACHE", str(tmp_path / "cache"))


def described(function: str, **changes: object) -> DatasetDescription:
    given = {"name": "mine", "images": f"tables_of_mine:{function}", "classes": ["ground", "roof"]}
    return DatasetDescription.model_validate(given | changes)


def test_pairs_of_tensors_are_what_the_store_holds(tmp_path: Path) -> None:
    description = with_files(
        described("torch_pairs", split={"train": ["000000", "000001", "000002"], "val": ["all/images/000004.png"]})
    )
    dataset = open_dataset(description)
    store = SceneStore([*dataset.train, *dataset.val], dataset.classes, folder=tmp_path / "cache")
    for place, number in enumerate((0, 1, 2, 4)):
        expected = np.random.default_rng(number).integers(0, 255, (16, 24, 3), dtype=np.uint8)
        np.testing.assert_array_equal(store.image(place), expected)
        mask = np.zeros((16, 24), dtype=np.uint8)
        mask[number:] = 1
        mask[-1] = 255
        np.testing.assert_array_equal(store.mask(place), mask)


def test_parts_become_the_split_and_rows_without_masks_are_unlabeled() -> None:
    dataset = open_dataset(with_files(described("parts")))
    assert [len(part) for part in (dataset.train, dataset.val, dataset.unlabeled)] == [3, 2, 2]
    assert inspect_dataset(dataset.description).sound


def test_a_table_of_images_alone_is_divided_at_random() -> None:
    dataset = open_dataset(with_files(described("unlabeled")))
    assert ([len(dataset.train), len(dataset.val)], dataset.labeled) == ([3, 1], False)


@pytest.mark.parametrize(
    ("function", "bands", "dtype", "change"),
    [
        ("two_bands", 2, "uint8", (1, 0)),
        ("four_bands", 4, "uint8", (1, 0)),
        ("four_wide_bands", 4, "uint16", (1, 0)),
        ("floats", 1, "float32", (1, 0.5)),
        ("integers", 1, "float32", (1000, 0)),
        ("big_endian", 1, "uint16", (300, 0)),
    ],
)
def test_all_bands_and_numbers_are_kept(
    function: str, bands: int, dtype: str, change: tuple[float, float], tmp_path: Path
) -> None:
    dataset = open_dataset(with_files(described(function, split={"random": 0.4})))
    store = SceneStore(dataset.train, dataset.classes, folder=tmp_path / "cache")
    numbers = np.random.default_rng(bands).integers(0, 200, (16, 24, bands)) * change[0] + change[1]
    np.testing.assert_array_equal(store.image(0), numbers.astype(dtype), strict=True)
    assert store.valid(0) is None


def test_only_pictures_of_mode_rgba_have_transparency(tmp_path: Path) -> None:
    dataset = open_dataset(with_files(described("transparent", split={"random": 0.4})))
    valid = SceneStore(dataset.train, dataset.classes, folder=tmp_path / "cache").valid(0)
    assert (dataset.bands, valid is not None and valid.any()) == (3, False)


def test_items_are_written_once(monkeypatch: pytest.MonkeyPatch) -> None:
    first = with_files(described("torch_pairs"))
    monkeypatch.setattr("segshrink.data.user_dataset.write_image", None)
    assert with_files(described("torch_pairs")) == first


@pytest.mark.parametrize(
    ("function", "kind", "message"),
    [
        ("torch_pear", DataError, "has no function 'torch_pear'; did you mean 'torch_pairs'"),
        ("fails", DataError, r"fails\(\) failed with OSError: no such table"),
        ("wrong", DataError, r"item 0 can't be used \(its mask is of shape \(4, 4\) and float64"),
        ("twice", DataError, "'train' and 'train_extra' are both the part train"),
        ("nothing", DataError, "all is int, not a data set"),
    ],
)
def test_what_is_no_data_set_is_told(function: str, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        with_files(described(function))


def test_no_code_runs_where_only_files_are_expected() -> None:
    """A run folder that somebody sends names files; one that names a function is refused, not called."""
    with pytest.raises(ConfigError, match=r"'images: tables_of_mine:fails' is a function"):
        open_dataset(described("fails"))
    with pytest.raises(ModelError, match="no module nowhere_at_all"):
        with_files(described("x", images="nowhere_at_all:make"))


def test_files_stay_as_they_are() -> None:
    description = described("x", images="*.png", masks="*.png.png", split={"random": 0.2})
    assert with_files(description) is description
