"""Splits that public data sets bring, in lists, folders and names, and scenes that must not be divided."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import segshrink
from segshrink.config import load_dataset
from segshrink.data import inspect_dataset, open_dataset

from .test_init import image, mask

pytestmark = pytest.mark.usefixtures("_without_torch")
DAVIS = {"train.txt": "bear\ncamel\n", "val.txt": "goat\n"}


@pytest.mark.parametrize(
    ("images", "masks", "names", "texts", "expected"),
    [
        # https://davischallenge.org: lists of films
        (
            "JPEGImages/480p/{0}.jpg",
            "Annotations/480p/{0}.png",
            ("bear/00000", "camel/00000", "goat/00000"),
            {f"ImageSets/2017/{name}": text for name, text in DAVIS.items()},
            {"train": ["JPEGImages/480p/bear", "JPEGImages/480p/camel"], "val": ["JPEGImages/480p/goat"]},
        ),
        # https://github.com/ishann/aeroscapes
        (
            "JPEGImages/{0}.jpg",
            "SegmentationClass/{0}.png",
            ("000001_001", "000001_002", "000002_001"),
            {"ImageSets/trn.txt": "000001_001\n000001_002\n", "ImageSets/val.txt": "000002_001\n"},
            {"train": "ImageSets/trn.txt", "val": "ImageSets/val.txt"},
        ),
        # https://www.robots.ox.ac.uk/~vgg/data/pets
        (
            "images/{0}.jpg",
            "annotations/trimaps/{0}.png",
            ("Abyssinian_1", "Abyssinian_2", "Bombay_1", "Bombay_2"),
            {
                "annotations/trainval.txt": "Abyssinian_1 1 1 1\nBombay_1 2 1 2\n",
                "annotations/test.txt": "Abyssinian_2 1 1 1\nBombay_2 2 1 2\n",
            },
            {"train": "annotations/trainval.txt", "val": "annotations/test.txt"},
        ),
        # https://www.kaggle.com/competitions: tables with a header
        (
            "images/{0}.png",
            "masks/{0}.png",
            ("a", "b", "c", "d"),
            {"train.csv": "image_id,mask\na.png,a.png\nb.png,b.png\n", "val.csv": '"File name"\nc\nd\n'},
            {"train": "train.csv", "val": "val.csv"},
        ),
        # https://xview2.org
        (
            "{0}_pre_disaster.png",
            "{0}_target.png",
            ("train/a_0", "train/a_1", "hold/b_0", "test/c_0", "tier3/d_0"),
            {},
            {"train": ["train"], "val": ["hold"], "test": ["test"]},
        ),
        # https://warwick.ac.uk/fac/cross_fac/tia/data/glascontest
        (
            "{0}.bmp",
            "{0}_anno.bmp",
            ("train_1", "train_2", "testA_1", "testB_1"),
            {},
            {"train": ["train*"], "val": ["testA*", "testB*"]},
        ),
    ],
)
def test_the_official_split(
    images: str, masks: str, names: Sequence[str], texts: dict[str, str], expected: Any, tmp_path: Path
) -> None:
    root = tmp_path / "data"
    for name in names:
        image(root / images.format(name))
        mask(root / masks.format(name))
    for path, text in texts.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    made = segshrink.init(root, out=tmp_path / "out")
    description = load_dataset(made.data)
    assert description.split.model_dump(exclude_unset=True) == expected
    assert any("d_0_pre_disaster.png are in no part's folder" in text for text in made.unsure) == ("tier3/d_0" in names)
    assert inspect_dataset(description).sound


def test_clips_of_a_film_stay_on_one_side(tmp_path: Path) -> None:
    """As https://www.kaggle.com/datasets/newslab/cholecseg8k, a folder for each second of an operation."""
    root = tmp_path / "data"
    for film in range(5):
        for clip in ("00080", "00160"):
            image(root / f"video{film}/video{film}_{clip}/frame_endo.png")
            mask(root / f"video{film}/video{film}_{clip}/frame_endo_mask.png")
            mask(root / f"video{film}/video{film}_{clip}/frame_endo_color_mask.png")
    made = segshrink.init(root, out=tmp_path / "out")
    dataset = open_dataset(load_dataset(made.data))
    films = [{sample.image.parts[-3] for sample in part} for part in (dataset.train, dataset.val)]
    assert (len(films[0]), len(films[1])) == (4, 1)
    assert films[0].isdisjoint(films[1])


@pytest.mark.parametrize("name", ["OAM-{x}-{y}-{z}", "{z}/{x}/{y}"])
def test_zooms_of_the_same_ground_stay_on_one_side(name: str, tmp_path: Path) -> None:
    """As HOT's fAIr gives tiles, and as programs that cut maps into tiles write them."""
    root = tmp_path / "data"
    for z, side in ((19, 3), (20, 6)):
        for x, y in ((x, y) for x in range(side) for y in range(side)):
            zoomed = name.format(z=z, x=(315878 << z - 19) + x, y=(264050 << z - 19) + y)
            image(root / f"images/{zoomed}.png")
            mask(root / f"masks/{zoomed}.png")
    made = segshrink.init(root, out=tmp_path / "out")
    assert any("neighboring tiles touch" in text for text in made.unsure)
    description = load_dataset(made.data)
    assert description.split.random == 0.2
    assert inspect_dataset(description).sound
    dataset = open_dataset(description)
    assert (len(dataset.train), len(dataset.val)) == (7 * 5, 2 * 5)


def test_images_in_no_list_are_told(tmp_path: Path) -> None:
    for name in ("a", "b", "#c", "d"):
        image(tmp_path / f"fields/images/{name}.png")
        mask(tmp_path / f"fields/masks/{name}.png", (0, 1))
    (tmp_path / "fields/train.txt").write_text("a\nb\n# c and d are clouded\n")
    (tmp_path / "fields/val.txt").write_text("d\n")
    made = segshrink.init(tmp_path / "fields", out=tmp_path / "out")
    assert any("1 images such as images/#c.png are in no part's list and not used" in text for text in made.unsure)


def test_names_like_comments_are_listed(tmp_path: Path) -> None:
    for name in ("#1", "#2", "c", "d"):
        image(tmp_path / f"fields/{name}.jpg")
        mask(tmp_path / f"fields/{name}_mask.png", (0, 1))
    image(tmp_path / "fields/#3.jpg")
    made = segshrink.init(tmp_path / "fields", out=tmp_path / "out")
    dataset = open_dataset(load_dataset(made.data))
    names = {sample.name for sample in (*dataset.train, *dataset.val)}
    assert names == {"_1", "_2", "c", "d"}
    assert len(dataset.unlabeled) == 1
