"""What masks of public data sets hold, and what the files beside them call it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rasterio.errors import NotGeoreferencedWarning

import segshrink
from segshrink.config import load_dataset
from segshrink.data import inspect_dataset
from segshrink.errors import DataError

from .test_init import SIZE, draw, image, mask

pytestmark = pytest.mark.usefixtures("_without_torch")


def pairs(root: Path, values: Sequence[Any], *, count: int = 4, masks: str = "masks/{0}.png") -> None:
    for number in range(count):
        image(root / f"images/{number}.png")
        mask(root / masks.format(number), values)


@pytest.mark.parametrize(
    ("name", "content", "values", "expected"),
    [
        # DeepGlobe roads: colors, in another order than values, name what masks hold in gray
        (
            "class_dict.csv",
            "name,r,g,b\nroad,255,255,255\nbackground,0,0,0\n",
            (0, 255),
            {0: "background", 255: "road"},
        ),
        # Mapillary Vistas, RailSem19
        (
            "config_v1.2.json",
            {"labels": [{"name": "bird", "color": [165, 42, 42]}, {"name": "curb", "color": [196, 196, 196]}]},
            (0, 1),
            {0: "bird", 1: "curb"},
        ),
        # FoodSeg103
        ("category_id.txt", "0\tbackground\n1\tcandy\n2\tegg tart\n", (0, 2), {0: "background", 2: "egg tart"}),
        # ADE20K
        (
            "objectInfo150.txt",
            "Idx\tRatio\tTrain\tVal\tStuff\tName\n1\t0.15\t116\t17\t1\twall\n2\t0.1\t6\t6\t1\tbuilding, edifice\n",
            (1, 2),
            {1: "wall", 2: "building, edifice"},
        ),
        # COCO-Stuff
        ("labels.txt", "0: unlabeled\n1: person\n2: bicycle\n3: car\n", (1, 3), {1: "person", 3: "car"}),
        # RUGD
        (
            "RUGD_annotation-colormap.txt",
            "0 void 0 0 0\n1 dirt 108 64 20\n2 sand 255 229 204\n",
            ((108, 64, 20), (255, 229, 204)),
            {"#6C4014": "dirt", "#FFE5CC": "sand"},
        ),
        # A2D2
        (
            "class_list.json",
            {"#ff0000": "Car 1", "#b432b4": "Solid line"},
            ((255, 0, 0), (180, 50, 180)),
            {"#FF0000": "Car 1", "#B432B4": "Solid line"},
        ),
    ],
)
def test_files_name_the_classes(
    name: str, content: Any, values: Sequence[Any], expected: Mapping[Any, str], tmp_path: Path
) -> None:
    root = tmp_path / "data"
    pairs(root, values)
    (root / name).write_text(content if isinstance(content, str) else json.dumps(content))
    made = segshrink.init(root, out=tmp_path / "out")
    description = load_dataset(made.data)
    held = {entry.color if isinstance(values[0], tuple) else entry.value: entry.name for entry in description.classes}
    assert held == expected
    assert not [text for text in made.unsure if not text.startswith("split")]
    assert inspect_dataset(description).sound


def test_names_of_ids_are_not_those_of_ids_for_training(tmp_path: Path) -> None:
    pairs(tmp_path / "data", (0, 1), masks="masks/{0}_labelTrainIds.png")
    (tmp_path / "data/labels.txt").write_text("0: unlabeled\n1: person\n")
    made = segshrink.init(tmp_path / "data", out=tmp_path / "out")
    assert list(made.classes) == ["background", "foreground"]


def test_more_classes_than_smooth_edges_have_values_where_a_file_names_them(tmp_path: Path) -> None:
    """ADE20K has 150."""
    root = tmp_path / "data"
    for number in range(4):
        image(root / f"images/{number}.png")
        draw(root / f"masks/{number}.png", (np.arange(SIZE * SIZE).reshape(SIZE, SIZE) // 4 % 100).astype(np.uint8))
    with pytest.raises(DataError, match="100 different values"):
        segshrink.init(root, out=tmp_path / "out")
    (root / "classes.txt").write_text(
        "".join(f"class {'abcdefghij'[n // 10]}{'abcdefghij'[n % 10]}\n" for n in range(100))
    )
    assert len(segshrink.init(root, out=tmp_path / "out").classes) == 100


def test_masks_of_16_bits_at_full_scale(tmp_path: Path) -> None:
    """As https://www.kaggle.com/c/tgs-salt-identification-challenge."""
    for number in range(4):
        image(tmp_path / f"data/images/{number}.png")
        pixels = np.zeros((SIZE, SIZE), np.uint16)
        pixels[:8] = 65535
        draw(tmp_path / f"data/masks/{number}.png", pixels)
    made = segshrink.init(tmp_path / "data", out=tmp_path / "out")
    assert made.classes == {"background": 0.75, "foreground": 0.25}
    assert inspect_dataset(load_dataset(made.data)).sound


def test_counts_of_objects_are_no_classes(tmp_path: Path) -> None:
    """As https://warwick.ac.uk/fac/cross_fac/tia/data/glascontest numbers the glands of each image."""
    for number in range(4):
        image(tmp_path / f"data/train_{number}.bmp")
        pixels = np.minimum(np.arange(SIZE) // 2, 3 + number).astype(np.uint8)
        draw(tmp_path / f"data/train_{number}_anno.bmp", pixels[:, np.newaxis].repeat(SIZE, 1))
    made = segshrink.init(tmp_path / "data", out=tmp_path / "out")
    assert list(made.classes) == ["background", "foreground"]
    assert "mask_instances: all" in made.data.read_text()
    assert inspect_dataset(load_dataset(made.data)).sound


def test_two_values_are_no_aeroplanes(tmp_path: Path) -> None:
    """As https://davischallenge.org draws one object in the palette of Pascal VOC."""
    for number in range(4):
        image(tmp_path / f"data/images/{number}.png")
        mask(tmp_path / f"data/masks/{number}.png", (0, 1), [0, 0, 0, 128, 0, 0])
    assert list(segshrink.init(tmp_path / "data", out=tmp_path / "out").classes) == ["background", "foreground"]


def test_the_value_for_no_label_beside_names(tmp_path: Path) -> None:
    root = tmp_path / "data"
    pairs(root, (0, 255))
    pairs(root, (200, 255), count=2)
    (root / "labels.txt").write_text(
        "".join(f"{n}: n{'abcdefghijklmnop'[n // 16]}{'abcdefghijklmnop'[n % 16]}\n" for n in range(201))
    )
    made = segshrink.init(root, out=tmp_path / "out")
    assert list(made.classes) == ["naa", "nmi"]
    assert "ignore: [255]" in made.data.read_text()


@pytest.mark.filterwarnings(f"ignore::{NotGeoreferencedWarning.__module__}.{NotGeoreferencedWarning.__name__}")
@pytest.mark.parametrize(("bands", "told"), [(4, "bands stand for classes"), (6, "has 6 bands")])
def test_a_band_for_each_class_is_refused(bands: int, told: str, tmp_path: Path) -> None:
    import rasterio

    (tmp_path / "data/masks").mkdir(parents=True)
    for number in range(3):
        image(tmp_path / f"data/images/{number}.png")
        pixels = np.arange(SIZE)[:, np.newaxis].repeat(SIZE, 1) % bands
        profile = {"driver": "GTiff", "height": SIZE, "width": SIZE, "count": bands, "dtype": "uint8"}
        with rasterio.open(tmp_path / f"data/masks/{number}.tif", "w", **profile) as dataset:
            dataset.write(np.stack([pixels == band for band in range(bands)]).astype(np.uint8))
    with pytest.raises(DataError, match=f"{told}.*; give one band of class numbers"):
        segshrink.init(tmp_path / "data", out=tmp_path / "out")


def test_numbers_below_zero_are_refused_with_the_remedy(tmp_path: Path) -> None:
    """As https://github.com/cloudtostreet/Sen1Floods11 writes 'no data'."""
    for number in range(3):
        image(tmp_path / f"data/images/{number}.png")
        draw(tmp_path / f"data/masks/{number}.tif", np.arange(SIZE * SIZE, dtype=np.int32).reshape(SIZE, SIZE) % 3 - 1)
    with pytest.raises(DataError, match=r"hold -1,.* -a_nodata -1"):
        segshrink.init(tmp_path / "data", out=tmp_path / "out")


def test_numbers_among_colors_are_left_out_or_refused(tmp_path: Path) -> None:
    root = tmp_path / "data"
    pairs(root, ((255, 0, 0), (0, 255, 0)), count=5)
    mask(root / "masks/4.png", (3, 7))
    made = segshrink.init(root, out=tmp_path / "out")
    assert (made.pairs, list(made.classes)) == (4, ["color-00FF00", "color-FF0000"])
    assert "masks/4.png holds numbers, and most masks colors" in made.data.read_text()
    for number in range(3):
        mask(root / f"masks/{number}.png", (3, 7))
    with pytest.raises(DataError, match=r"some masks hold numbers \(masks/0\.png\) and some colors \(masks/3\.png\)"):
        segshrink.init(root, out=tmp_path / "again")
