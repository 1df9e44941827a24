"""Of several images, masks or layouts one is taken, and the others are told."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

import segshrink
from segshrink.config import load_dataset
from segshrink.data import inspect_dataset
from segshrink.errors import DataError

from .test_init import SIZE, draw, image, mask

pytestmark = pytest.mark.usefixtures("_without_torch")


def test_a_band_in_each_file_is_told(tmp_path: Path) -> None:
    """As https://github.com/SorourMo/38-Cloud-A-Cloud-Segmentation-Dataset lays out red, green, blue and infrared."""
    root = tmp_path / "data"
    for number in range(3):
        for band in ("red", "green", "blue", "nir"):
            pixels = np.random.default_rng(number).integers(0, 255, (SIZE, SIZE), dtype=np.uint8)
            draw(root / f"train_{band}/{band}_patch_{number}.TIF", pixels)
        mask(root / f"train_gt/gt_patch_{number}.TIF", (0, 255))
    made = segshrink.init(root, out=tmp_path / "out")
    assert any("train_nir" in text and "gdalbuildvrt -separate" in text for text in made.unsure)


def test_two_images_for_each_mask_are_told(tmp_path: Path) -> None:
    """As https://justchenhao.github.io/LEVIR lays out what was there before and after."""
    root = tmp_path / "data"
    for part, number in (("train", 1), ("train", 2), ("val", 3), ("val", 4)):
        image(root / f"{part}/A/{number}.png")
        image(root / f"{part}/B/{number}.png")
        mask(root / f"{part}/label/{number}.png", (0, 255))
    made = segshrink.init(root, out=tmp_path / "out")
    assert made.pairs == 4
    assert "images are */A/*.png; there are also */B/*.png" in made.unsure


def test_pairs_of_another_layout_are_told(tmp_path: Path) -> None:
    """As https://landcover.ai.linuxpolska.com lies there once its scenes are cut into tiles."""
    root = tmp_path / "data"
    for scene in ("M-33-20", "M-34-51"):
        image(root / f"images/{scene}.tif")
        mask(root / f"masks/{scene}.tif")
        for tile in range(2):
            image(root / f"output/{scene}_{tile}.jpg")
            mask(root / f"output/{scene}_{tile}_m.png")
    made = segshrink.init(root, out=tmp_path / "out")
    assert made.pairs == 4
    assert "pairs that are laid out in another way are not taken: images images/*.tif" in made.unsure
    assert inspect_dataset(load_dataset(made.data)).sound


@pytest.mark.parametrize(
    ("images", "masks", "classes"),
    [
        # https://www.agriculture-vision.com, with masks of the fields' borders beside
        ("{1}/images/rgb/{0}.jpg", "{1}/labels/{2}/{0}.png", ("water", "weed_cluster")),
        # https://github.com/switchablenorms/CelebAMask-HQ
        ("CelebA-HQ-img/{0}.jpg", "CelebAMask-HQ-mask-anno/0/0000{0}_{2}.png", ("l_eye", "nose")),
        # Montgomery County X-ray set, https://lhncbc.nlm.nih.gov/LHC-downloads/downloads.html
        ("CXR_png/{0}.png", "ManualMask/{2}/{0}.png", ("leftMask", "rightMask")),
    ],
)
def test_an_image_for_each_class(images: str, masks: str, classes: Sequence[str], tmp_path: Path) -> None:
    root = tmp_path / "data"
    for number, part in ((1, "train"), (2, "train"), (3, "val"), (4, "val")):
        image(root / images.format(number, part))
        if "{1}" in images:
            image(root / f"{part}/images/nir/{number}.jpg")
            mask(root / f"{part}/boundaries/{number}.png", (0, 255))
            mask(root / f"{part}/masks/{number}.png", (0, 255))
        for place, name in enumerate(classes):
            pixels = np.zeros((SIZE, SIZE), np.uint8)
            pixels[8 * place : 8 * place + 8] = 255
            draw(root / masks.format(number, part, name), pixels)
    made = segshrink.init(root, out=tmp_path / "out")
    assert (made.pairs, list(made.classes)) == (4, ["background", *classes])
    inspection = inspect_dataset(load_dataset(made.data))
    assert inspection.problems == (), [str(problem) for problem in inspection.problems]


def test_crops_beside_their_images_are_not_mixed(tmp_path: Path) -> None:
    root = tmp_path / "data"
    for number in range(3):
        for name in (f"{number}", f"patches/{number}_0", f"patches/{number}_1"):
            place, _, stem = name.rpartition("/")
            image(root / place / f"images/{stem}.png")
            mask(root / place / f"masks/{stem}.png")
    made = segshrink.init(root, out=tmp_path / "out")
    assert made.pairs == 6
    assert "pairs that are laid out in another way are not taken: images images/*.png" in made.unsure


def test_masks_that_can_be_read_come_first(tmp_path: Path) -> None:
    """As Supervisely's export of masks draws them for eyes, too: https://docs.supervisely.com."""
    root = tmp_path / "data"
    for number in range(3):
        image(root / f"img/{number}.jpg")
        image(root / f"masks_human/{number}.png")
        mask(root / f"masks_machine/{number}.jpg", (0, 255))
        mask(root / f"masks_machine/{number}.png")
    made = segshrink.init(root, out=tmp_path / "out")
    assert "masks: masks_machine/*.png" in made.data.read_text()
    assert inspect_dataset(load_dataset(made.data)).sound


def test_drawings_of_the_images_are_not_annotated(tmp_path: Path) -> None:
    root = tmp_path / "data"
    entries = []
    for number in range(3):
        image(root / f"images/{number}.jpg")
        image(root / f"visualizations/{number}.jpg")
        entries.append({"id": number, "file_name": f"{number}.jpg", "height": SIZE, "width": SIZE})
    outlines = [
        {"id": n, "image_id": n, "category_id": 1, "segmentation": [[0, 0, 9, 0, 9, 9]], "iscrowd": 0} for n in range(3)
    ]
    content = {"images": entries, "annotations": outlines, "categories": [{"id": 1, "name": "house"}]}
    (root / "annotations.json").write_text(json.dumps(content))
    made = segshrink.init(root, out=tmp_path / "out")
    assert (made.pairs, list(made.classes)) == (3, ["background", "house"])
    assert "images: images/*.jpg" in made.data.read_text()


def test_one_scene_and_its_mask_need_share_no_word(tmp_path: Path) -> None:
    side = 128
    pixels = np.random.default_rng(0).integers(0, 255, (side, side, 3), dtype=np.uint8)
    draw(tmp_path / "data/ortho.tif", pixels)
    draw(tmp_path / "data/dsm.tif", pixels[:, :, 0])
    draw(tmp_path / "data/labels.tif", np.tile(np.array([[1, 2]], np.uint8), (side, side // 2)))
    made = segshrink.init(tmp_path / "data", out=tmp_path / "out")
    assert "images: ortho.tif  # 1 pairs\nmasks: labels.tif\n" in made.data.read_text()
    assert inspect_dataset(load_dataset(made.data)).sound


def test_what_only_contents_tell_is_not_sure(tmp_path: Path) -> None:
    for number in range(3):
        image(tmp_path / f"data/X/{number}.png")
        mask(tmp_path / f"data/Y/{number}.png")
    made = segshrink.init(tmp_path / "data", out=tmp_path / "out")
    assert any("no name tells which files are masks; Y/*.png are taken" in text for text in made.unsure)


def test_folders_behind_links_are_read_once(tmp_path: Path) -> None:
    for number in range(3):
        image(tmp_path / f"disk/a/{number}.png")
        mask(tmp_path / f"disk/b/{number}.png")
    root = tmp_path / "data"
    root.mkdir()
    (root / "images").symlink_to(tmp_path / "disk/a")
    (root / "masks").symlink_to(tmp_path / "disk/b")
    (root / "again").symlink_to(root)
    made = segshrink.init(root, out=tmp_path / "out")
    assert made.pairs == 3
    assert inspect_dataset(load_dataset(made.data)).sound


def only_masks(root: Path) -> None:
    mask(root / "SegmentationClass/a.png")
    (root / "labelmap.txt").write_text("road:1,1,1::")


def beside(*names: str) -> Callable[[Path], None]:
    def lay(root: Path) -> None:
        image(root / "images/a.png")
        for name in names:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(b"x")

    return lay


def mask_an_object(root: Path) -> None:
    """As https://www.kaggle.com/c/data-science-bowl-2018."""
    for name in ("a", "b"):
        image(root / f"{name}/images/{name}.png")
        for number in range(3):
            mask(root / f"{name}/masks/{name}{number}x.png", (0, 255))


@pytest.mark.parametrize(
    ("lay", "told"),
    [
        (only_masks, "which are all masks by their names; put the images they were drawn on beside them"),
        (beside("masks.zip"), "and masks.zip: unpack them first"),
        (beside("masks/a.mat"), "and masks/a.mat, which are arrays: write them as images"),
        (
            beside("ann/a.png.json", "meta.json"),
            "ann/a.png.json, meta.json, which may be annotations: export them as COCO",
        ),
        (beside("train.csv"), "train.csv, which may be annotations"),
        (beside("images/a.txt"), "images/a.txt, which may be annotations"),
        (
            mask_an_object,
            "8 images .*, 6 of them masks; where each object has a mask, merge those of an image into one",
        ),
    ],
)
def test_what_is_there_instead_of_pairs(lay: Callable[[Path], None], told: str, tmp_path: Path) -> None:
    lay(tmp_path / "data")
    with pytest.raises(DataError, match=told):
        segshrink.init(tmp_path / "data", out=tmp_path / "out")


def test_a_part_of_a_data_set_gets_the_name_of_the_whole(tmp_path: Path) -> None:
    for number in range(3):
        image(tmp_path / f"membrane/train/image/{number}.png")
        mask(tmp_path / f"membrane/train/label/{number}.png", (0, 1))
    made = segshrink.init(tmp_path / "membrane" / "train", out=tmp_path / "out")
    assert load_dataset(made.data).name == "membrane"
