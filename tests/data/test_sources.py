"""Finding, pairing and naming."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image

from segshrink.config import DatasetDescription, load_dataset
from segshrink.data import open_dataset
from segshrink.data.wildcards import Wildcard, columns
from segshrink.errors import ConfigError, DataError, FileError

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "data"


def test_masks_are_paired_by_the_star_parts(painter):
    painter.pairs("north/a", "north/b", "south/a")
    dataset = open_dataset(painter.describe())
    assert [sample.name for sample in dataset.train] == ["north-a", "north-b"]
    assert [sample.name for sample in dataset.val] == ["south-a"]
    assert dataset.bands == 3
    assert not dataset.leaking
    for sample in (*dataset.train, *dataset.val):
        folder, _, stem = sample.name.partition("-")
        assert sample.image == painter.root / folder / "images" / f"{stem}.png"
        assert sample.mask == painter.root / folder / "masks" / f"{stem}.png"


def test_a_mask_beside_its_image_is_not_taken_for_an_image(painter):
    for name in ("one", "two"):
        painter.image(f"{name}.png")
        painter.mask(f"{name}_mask.png")
    dataset = open_dataset(painter.describe(images="*.png", masks="*_mask.png", split={"random": 0.5}))
    assert {sample.name for sample in (*dataset.train, *dataset.val)} == {"one", "two"}


def test_names_are_safe_and_unique(painter):
    painter.pairs("Tile 4/a b", "x/y?z")
    for suffix in ("png", "bmp"):
        painter.image(f"north/images/same.{suffix}")
        painter.mask(f"north/masks/same.{suffix}")
    dataset = open_dataset(
        painter.describe(images="*/images/*.*", masks="*/masks/*.*", split={"random": 0.5, "seed": 3})
    )
    names = [sample.name for sample in (*dataset.train, *dataset.val)]
    assert len({name.casefold() for name in names}) == 4
    assert all(re.fullmatch(r"[\w.+-]+", name) for name in names)
    assert "Tile_4-a_b" in names


def test_an_unlabeled_image_never_has_the_name_of_a_labeled_one(painter):
    painter.pairs("unlabeled/a", "south/a")
    for name in "ab":
        painter.image(f"pool/{name}.png")
    dataset = open_dataset(painter.describe(unlabeled="pool/*.png", split={"train": ["unlabeled"], "val": ["south"]}))
    assert [sample.name for sample in dataset.train] == ["unlabeled-a"]
    names = [sample.name for sample in dataset.unlabeled]
    assert names[0].startswith("unlabeled-a-")
    assert names[1] == "unlabeled-b"


def test_any_depth_of_folders(painter):
    for folder in (".", "deep/er"):
        painter.image(f"extra/{folder}/u.png")
    painter.pairs("north/a", "south/a")
    painter.image("extra/.hidden/u.png")
    names = [sample.name for sample in open_dataset(painter.describe(unlabeled="extra/**/*.png")).unlabeled]
    assert names == ["unlabeled-deep-er-u", "unlabeled-u"]


def test_unlabeled_images_that_are_judged_or_trained_on_are_left_out(painter):
    painter.pairs("north/a", "south/a", "spare/a")
    dataset = open_dataset(painter.describe(unlabeled="*/images/*.png"))
    assert [sample.image.parent.parent.name for sample in dataset.unlabeled] == ["spare"]
    assert all(sample.mask is None for sample in dataset.unlabeled)


def test_list_files_of_one_and_two_columns(painter):
    painter.pairs("my north/a", "my north/b", "south/a")
    images = ["my north/images/a.png", "my north/images/b.png", "south/images/a.png"]
    split = {"train": ["my north"], "val": ["south"]}
    for separator in (" ", "\t", ", "):
        painter.text("pairs.txt", "# image mask", *(f"{i}{separator}{i.replace('images', 'masks')}" for i in images))
        dataset = open_dataset(painter.describe(images="pairs.txt", masks=None, split=split))
        assert [sample.mask for sample in dataset.train] == [painter.root / f"my north/masks/{n}.png" for n in "ab"]
    painter.text("images.txt", *images[:2])
    description = painter.describe(images="images.txt", masks="my north/masks/*.png", split={"random": 0.5})
    assert {s.mask.name for s in (*open_dataset(description).train, *open_dataset(description).val)} == {
        "a.png",
        "b.png",
    }


@pytest.mark.parametrize(
    ("pattern", "path", "parts"),
    [
        ("Tile */images/*.jpg", "Tile 4/images/p_1.jpg", ("4", "p_1")),
        ("**/*.tif", "a/b/c.tif", ("a/b/", "c")),
        ("**/*.tif", "c.tif", ("", "c")),
        ("a[0-9].p?g", "a7.png", ("7", "n")),
        ("a(1)/*.png", "a(1)/x.png", ("x",)),
    ],
)
def test_wildcard_parts_fill_back(pattern, path, parts):
    wildcard = Wildcard(pattern)
    assert wildcard.match(path) == parts
    assert wildcard.fill(parts) == path


def test_a_star_stays_within_a_folder():
    assert Wildcard("*/x.png").match("a/b/x.png") is None
    assert Wildcard("[!a].png").match("a.png") is None


def test_columns_with_spaces_split_only_after_a_file(tmp_path):
    (tmp_path / "a b.png").touch()
    assert columns("a b.png", tmp_path) == ("a b.png", None)
    assert columns("a b.png c d.png", tmp_path) == ("a b.png", "c d.png")


def test_missing_root_is_named(painter):
    with pytest.raises(FileError, match="nowhere does not exist; correct 'root'"):
        open_dataset(painter.describe(root=painter.root / "nowhere"))
    painter.text("file")
    with pytest.raises(FileError, match="is a file, not a folder"):
        open_dataset(painter.describe(root=painter.root / "file"))


def test_a_published_data_set_that_is_absent_says_where_it_comes_from(painter):
    painter.pairs("north/a", "south/a")
    origin = {"address": "https://example.org/set", "license": "CC0 1.0", "command": "fetch set && mv set data"}
    empty = painter.root / "empty"
    empty.mkdir()
    for root, state in ((empty, "is empty"), (painter.root / "absent", "does not exist")):
        with pytest.raises(FileError) as caught:
            open_dataset(painter.describe(root=root, origin=origin))
        for words in (state, *origin.values()):
            assert words in str(caught.value)
    assert len(open_dataset(painter.describe(origin=origin)).train) > 0


def test_no_image_names_the_pattern_and_what_is_there(painter):
    painter.pairs("north/a", "south/a")
    with pytest.raises(DataError, match=r"'images: \*/pictures/\*\.png'.*north holds images/, masks/"):
        open_dataset(painter.describe(images="*/pictures/*.png"))
    empty = painter.root / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match=r"is empty"):
        open_dataset(painter.describe(root=empty))
    with pytest.raises(DataError, match=r"names the folder .*write 'north/images/\*"):
        open_dataset(painter.describe(images="north/images", masks="north/masks"))


def test_missing_masks_are_named_with_the_expected_path(painter):
    painter.pairs("north/a", "south/a")
    painter.image("north/images/bare.png")
    with pytest.raises(DataError, match=r"north/images/bare\.png \(expected north/masks/bare\.png\)"):
        open_dataset(painter.describe())
    # An image that the split doesn't use needs no mask.
    painter.image("spare/images/bare.png")
    split = {"train": ["north/images/a.png"], "val": ["south"]}
    assert len(open_dataset(painter.describe(split=split)).train) == 1


def test_masks_without_image_are_named_when_the_split_means_them(painter):
    painter.pairs("north/a", "south/a")
    painter.mask("spare/masks/lost.png")
    assert len(open_dataset(painter.describe()).train) == 1
    painter.mask("north/masks/lost.png")
    with pytest.raises(DataError, match=r"1 masks have no image: north/masks/lost\.png \(expected north/images/lost"):
        open_dataset(painter.describe())


def test_patterns_that_cannot_be_paired(painter):
    painter.pairs("north/a", "south/a")
    with pytest.raises(ConfigError, match=r"2 \* parts but masks 'masks/\*\.png' has 1"):
        open_dataset(painter.describe(masks="masks/*.png"))
    with pytest.raises(DataError, match=r"split\.train is empty"):
        open_dataset(painter.describe(split={"train": [], "val": ["south"]}))
    with pytest.raises(ConfigError, match="are both"):
        open_dataset(painter.describe(masks="*/images/*.png"))


def test_list_files_with_wrong_lines(painter):
    painter.pairs("north/a", "south/a")
    with pytest.raises(FileError, match=r"gone\.txt"):
        open_dataset(painter.describe(images="gone.txt", masks=None))
    painter.text("list.txt", "north/images/a.png north/masks/a.png", "north/images/zzz.png north/masks/a.png")
    with pytest.raises(DataError, match=r"names 1 files that don't exist: north/images/zzz\.png"):
        open_dataset(painter.describe(images="list.txt", masks=None))
    painter.text("list.txt", *["north/images/a.png north/masks/a.png"] * 2)
    with pytest.raises(DataError, match="twice"):
        open_dataset(painter.describe(images="list.txt", masks=None))
    painter.text("list.txt", "# nothing")
    with pytest.raises(DataError, match="is empty"):
        open_dataset(painter.describe(images="list.txt", masks=None))


def test_wrong_band_count_is_told(painter):
    painter.pairs("north/a", "south/a")
    with pytest.raises(DataError, match=r"not 4 bands of uint8: north/images/a\.png \(3 bands of uint8\).*'bands'"):
        open_dataset(painter.describe(bands=4))


@pytest.mark.skipif(getattr(os, "geteuid", lambda: 0)() == 0, reason="root may read everything")
def test_root_without_permission(painter):
    painter.root.chmod(0)
    try:
        with pytest.raises(FileError, match="no permission"):
            open_dataset(painter.describe())
    finally:
        painter.root.chmod(0o755)


def test_the_dubai_tiles(shared_data):
    root = shared_data / "dubai"
    description = load_dataset(CONFIGS / "dubai.yaml", [f"root={root}"])
    dataset = open_dataset(description)
    assert (len(dataset.train), len(dataset.val), dataset.bands) == (36, 18, 3)
    assert dataset.train[0].name == "Tile_4-image_part_001"
    assert {sample.image.parents[1].name for sample in dataset.val} == {"Tile 2", "Tile 5"}
    for sample in (*dataset.train, *dataset.val):
        with Image.open(sample.image) as image, Image.open(sample.mask) as mask:
            assert image.size == mask.size


def test_the_pascal_voc_layout(shared_data):
    root = shared_data / "VOCdevkit" / "VOC2012"
    description = load_dataset(CONFIGS / "voc.yaml", [f"root={root}"])
    dataset = open_dataset(description)
    for part in ("train", "val"):
        stems = np.loadtxt(root / f"ImageSets/Segmentation/{part}.txt", dtype=str)
        assert {sample.name for sample in getattr(dataset, part)} == set(stems.tolist())


def test_a_working_size_that_depends_on_the_image_is_refused_on_the_ground(tmp_path: Path) -> None:
    for part in ("north", "south"):
        (tmp_path / part).mkdir()
        with rasterio.open(
            tmp_path / part / "a.tif", "w", driver="GTiff", height=8, width=8, count=3, dtype="uint8",
            crs="EPSG:32640", transform=rasterio.Affine(0.5, 0, 0, 0, -0.5, 0),
        ) as file:  # fmt: skip
            file.write(np.zeros((3, 8, 8), np.uint8))
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / part / "a.png")
    fields = {"name": "ground", "root": tmp_path, "images": "*/*.tif", "masks": "*/*.png", "classes": ["land", "water"]}
    described = {**fields, "split": {"train": ["north"], "val": ["south"]}}
    halved = DatasetDescription.model_validate({**described, "resize": 0.5})
    assert open_dataset(halved).georeferenced
    with pytest.raises(ConfigError, match=r"longest.*give a factor"):
        open_dataset(DatasetDescription.model_validate({**described, "resize": {"longest": 500}}))
