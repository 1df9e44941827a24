"""Masks drawn from what annotation tools export, compared with pycocotools and with what was written down by hand."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.mask import encode

from segshrink.classes import ClassMap, UndeclaredError
from segshrink.errors import DataError, FileError, MissingExtraError
from segshrink.imagery import MaskOptions, read_mask

CLASSES = ClassMap.build(["background", "house", "road"])
HEIGHT, WIDTH = 6, 8
SQUARE = [1, 1, 5, 1, 5, 4, 1, 4]
SHORT = encode(np.ones((5, 5), dtype=np.uint8, order="F"))["counts"].decode()


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "a.png"
    Image.new("RGB", (WIDTH, HEIGHT)).save(path)
    return path


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, Any], Path]:
    def written(name: str, content: Any) -> Path:
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return path

    return written


def coco(*annotations: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Categories out of order: 7 is the road, 3 the house."""
    return {
        "images": [{"id": 12, "file_name": "there/a.png", "height": HEIGHT, "width": WIDTH}],
        "categories": [{"id": 7, "name": "road"}, {"id": 3, "name": "House"}],
        "annotations": [
            {"id": number, "image_id": 12, "iscrowd": 0, "category_id": 3, **annotation}
            for number, annotation in enumerate(annotations)
        ],
        **changes,
    }


def expected(*boxes: tuple[int, int, int, int, int], fill: int = 0) -> NDArray[np.uint8]:
    """Return a mask of (row, col, height, width, class) boxes."""
    mask = np.full((HEIGHT, WIDTH), fill, dtype=np.uint8)
    for row, col, height, width, index in boxes:
        mask[row : row + height, col : col + width] = index
    return mask


def test_coco_is_what_pycocotools_draws_bit_for_bit(tmp_path: Path, write: Callable[[str, Any], Path]) -> None:
    """Polygons of several parts with odd corners, RLE in both ways, a crowd, a hole, and one over another."""
    random = np.random.default_rng(0)
    outlines = [[random.uniform(0, 60, 2 * random.integers(3, 9)).tolist() for _ in range(2)] for _ in range(20)]
    ring = {"size": [48, 64], "counts": [500, 20, 28, 3, 14, 3, 28, 20, 2456]}
    blob = np.asfortranarray(random.integers(0, 2, (48, 64), dtype=np.uint8))
    compressed = {"size": [48, 64], "counts": encode(blob)["counts"].decode("ascii")}
    annotations = [
        {"id": n, "image_id": 5, "iscrowd": 0, "category_id": 2 - n % 2, "segmentation": outline}
        for n, outline in enumerate(outlines)
    ]
    for segmentation in (ring, compressed):
        annotations.append(
            {"id": len(annotations), "image_id": 5, "iscrowd": 1, "category_id": 1, "segmentation": segmentation}
        )
    content = {
        "images": [{"id": 5, "file_name": "a.png", "height": 48, "width": 64}],
        "categories": [{"id": 2, "name": "road"}, {"id": 1, "name": "house"}],
        "annotations": annotations,
    }
    path = write("coco.json", content)
    reference = COCO(str(path))
    mask = np.zeros((48, 64), dtype=np.uint8)
    for annotation in annotations:
        mask[reference.annToMask(annotation).astype(bool)] = annotation["category_id"]
    assert set(np.unique(mask)) == {0, 1, 2}

    np.testing.assert_array_equal(read_mask(path, CLASSES, image=tmp_path / "a.png"), mask)


def test_coco_boxes_holes_and_crowds_by_hand(image: Path, write: Callable[[str, Any], Path]) -> None:
    hole = [13, 4, 2, 1, 2, 1, 2, 4, 19]  # down each column: 3 wide, 4 high, the middle two empty
    path = write(
        "coco.json",
        coco(
            {"segmentation": [SQUARE]},
            {"segmentation": [[4, 2, 8, 2, 8, 3, 4, 3]], "category_id": 7},
            {"segmentation": {"size": [HEIGHT, WIDTH], "counts": hole}, "category_id": 7, "iscrowd": 1},
        ),
    )
    mask = expected((1, 1, 3, 4, 1), (2, 4, 1, 4, 2))
    mask[1:5, 2] = mask[1:5, 4] = mask[1, 3] = mask[4, 3] = 2
    np.testing.assert_array_equal(read_mask(path, CLASSES, image=image), mask)


def test_coco_may_write_an_id_as_text_and_annotate_images_that_it_leaves_out(
    image: Path, write: Callable[[str, Any], Path]
) -> None:
    others = {"segmentation": [[0, 0, 8, 0, 8, 6, 0, 6]], "image_id": 13}
    path = write("coco.json", coco({"segmentation": [SQUARE], "image_id": "12"}, others))
    np.testing.assert_array_equal(read_mask(path, CLASSES, image=image), expected((1, 1, 3, 4, 1)))


def test_coco_ignores_what_is_not_drawn_where_no_class_is_background(
    image: Path, write: Callable[[str, Any], Path]
) -> None:
    path = write("coco.json", coco({"segmentation": [SQUARE]}))
    classes = ClassMap.build(["house", "road"])
    np.testing.assert_array_equal(read_mask(path, classes, image=image), expected((1, 1, 3, 4, 0), fill=255))
    roads = read_mask(path, classes, image=image, options=MaskOptions(background="road"))
    np.testing.assert_array_equal(roads, expected((1, 1, 3, 4, 0), fill=1))


def test_labels_are_renamed_merged_ignored_or_refused(image: Path, write: Callable[[str, Any], Path]) -> None:
    path = write(
        "coco.json", coco({"segmentation": [SQUARE]}, {"segmentation": [[6, 0, 8, 0, 8, 6, 6, 6]], "category_id": 7})
    )
    built = ClassMap.build(["other", "built"])
    with pytest.raises(UndeclaredError, match=r"a\.png: House \(12 pixels\), road \(12 pixels\)") as caught:
        read_mask(path, built, image=image)
    assert caught.value.found == {"House": 12, "road": 12}
    for options, road in (
        (MaskOptions(labels=(("house", "built"), ("Road", "built"))), 1),
        (MaskOptions(labels=(("house", "built"), ("*", "other"))), 0),
        (MaskOptions(labels=(("house", "built"),), ignored_labels=("road",)), 255),
        (MaskOptions(labels=(("house", "built"),), tolerant=True), 255),
    ):
        mask = read_mask(path, built, image=image, options=options)
        np.testing.assert_array_equal(mask, expected((1, 1, 3, 4, 1), (0, 6, 6, 2, road)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (coco({"segmentation": []}), "annotation 0 has only a box"),
        (coco({"segmentation": [SQUARE], "category_id": 4}), "'category_id' 4 is none"),
        (coco(images=[{"id": n, "file_name": "a.png"} for n in (12, 13)]), "have the 'file_name' 'a.png'"),
        (coco(images=[{"id": 12, "file_name": name} for name in "ab"]), "several images have the 'id' '12'"),
        (coco({"segmentation": [[1, 1, 5, 5]]}), "three corners"),
        (coco({"segmentation": [[1, 1, 5, 1, 5, 1e9]]}), "three corners or more, in pixels"),
        (coco({"segmentation": {"size": [6, 8], "counts": [1, 2]}}), "RLE has 3 pixels, its image 6 × 8"),
        (coco({"segmentation": {"size": [6, 8], "counts": SHORT}}), "RLE has 25 pixels, its image 6 × 8"),
        (coco({"segmentation": {"size": [6, 8], "counts": "zz~~"}}), "can't be drawn"),
        (coco({"segmentation": {"size": [8, 6], "counts": [48]}}), r"RLE is of size \[8, 6\]"),
        (coco(images=[{"id": 1, "file_name": "a.png", "height": -1, "width": 8}]), "height and width are -1"),
        (coco(images=[{"id": 1}]), "'file_name' is missing"),
        ({"shapes": [{"label": "house", "points": [[0, 0], [1, 1]], "shape_type": "line"}]}, "line of 2 points"),
        ({"shapes": [{"points": [[0, 0], [1, 1]]}]}, "'label' is missing"),
        ({"shapes": [{"label": "house", "points": [["0", 0]]}]}, "a coordinate is '0'"),
    ],
)
def test_damaged_json_says_what_is_wrong(
    content: Any, message: str, image: Path, write: Callable[[str, Any], Path]
) -> None:
    path = write("labels.json", content)
    with pytest.raises(FileError, match=rf"labels\.json .*{message}"):
        read_mask(path, CLASSES, image=image)


def test_an_image_that_coco_does_not_name_has_no_mask(image: Path, write: Callable[[str, Any], Path]) -> None:
    path = write("coco.json", coco(images=[{"id": 12, "file_name": "b.png"}]))
    with pytest.raises(DataError, match=r"coco\.json doesn't name the image a\.png"):
        read_mask(path, CLASSES, image=image)


def test_of_two_images_of_one_name_the_longer_end_counts(tmp_path: Path, write: Callable[[str, Any], Path]) -> None:
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / folder / "a.png")
    size = {"height": HEIGHT, "width": WIDTH}
    images = [{"id": 12, "file_name": "data\\y\\a.png", **size}, {"id": 13, "file_name": "x/a.png", **size}]
    path = write("coco.json", coco({"segmentation": [SQUARE]}, images=images))
    assert read_mask(path, CLASSES, image=tmp_path / "y/a.png").sum() == 12
    assert read_mask(path, CLASSES, image=tmp_path / "x/a.png").sum() == 0
    with pytest.raises(DataError, match="may be each; give them different names"):
        read_mask(path, CLASSES, image=tmp_path / "a.png")


def test_a_changed_file_is_read_again(image: Path, write: Callable[[str, Any], Path]) -> None:
    path = write("coco.json", coco({"segmentation": [SQUARE]}))
    assert read_mask(path, CLASSES, image=image).sum() == 12
    write("coco.json", coco())
    assert read_mask(path, CLASSES, image=image).sum() == 0


def test_without_pycocotools_the_extra_is_named(
    image: Path, write: Callable[[str, Any], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pycocotools", None)
    path = write("coco.json", coco({"segmentation": [SQUARE]}))
    with pytest.raises(MissingExtraError, match=r"\[coco\]"):
        read_mask(path, CLASSES, image=image)


def test_yolo_counts_the_classes_beside_the_background(image: Path, write: Callable[[str, Any], Path]) -> None:
    path = write("a.txt", "1 0.125 0.5 0.5 0.5 0.5 1 0.125 1\n\n0 0 0 0.25 0 0.25 0.5 0 0.5\n")
    np.testing.assert_array_equal(read_mask(path, CLASSES, image=image), expected((3, 1, 3, 3, 2), (0, 0, 3, 2, 1)))
    swapped = MaskOptions(labels=(("0", "road"), ("1", "house")))
    np.testing.assert_array_equal(
        read_mask(path, CLASSES, image=image, options=swapped), expected((3, 1, 3, 3, 1), (0, 0, 3, 2, 2))
    )
    assert read_mask(write("b.txt", ""), CLASSES, image=image).sum() == 0


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 0.5 0.5 0.1 0.1", "line 1 is a box"),
        ("0 0 0 1 1", "line 1 is a box"),
        ("0 10 10 20 10 20 20", "no shares of the image"),
        ("0 0 0 1 0 1", "three corners"),
        ("house 0 0 1 0 1 1", "house"),
        ("0 0 0 1 0 nan 1", "no shares"),
    ],
)
def test_yolo_lines_that_are_no_outline_are_refused(
    line: str, message: str, image: Path, write: Callable[[str, Any], Path]
) -> None:
    with pytest.raises(FileError, match=rf"a\.txt can't be read as annotations \(.*{message}"):
        read_mask(write("a.txt", line), CLASSES, image=image)


def test_labelme_shapes(image: Path, write: Callable[[str, Any], Path]) -> None:
    patch = io.BytesIO()
    Image.fromarray(np.array([[255, 0], [255, 255]], dtype=np.uint8)).save(patch, format="PNG")
    shapes = [
        {"label": "house", "points": [[0, 0], [3, 0], [3, 2], [0, 2]], "shape_type": "polygon"},
        {"label": "road", "points": [[6, 6], [4, 4]], "shape_type": "rectangle"},
        {
            "label": "road",
            "points": [[6, 0], [7, 1]],
            "shape_type": "mask",
            "mask": base64.b64encode(patch.getvalue()).decode(),
        },
        {"label": "__ignore__", "points": [[1.5, 4.5], [2.0, 4.5]], "shape_type": "circle"},
        {"label": "road", "points": [[1.5, 4.5], [1.5, 4.5]], "shape_type": "circle"},
    ]
    path = write("a.json", {"version": "5.0", "shapes": shapes, "imageHeight": HEIGHT, "imageWidth": WIDTH})
    mask = expected((0, 0, 2, 3, 1), (4, 4, 2, 2, 2), (0, 6, 2, 1, 2), (1, 7, 1, 1, 2), (4, 1, 1, 1, 255))
    np.testing.assert_array_equal(read_mask(path, CLASSES, image=image), mask)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"shape_type": "rectangle", "points": [[1, 1]]}, "shape 1 is a rectangle of 1 points"),
        ({"shape_type": "circle", "points": [[1, 1]]}, "shape 1 is a circle of 1 points"),
        ({"shape_type": "mask", "points": [], "mask": ""}, "shape 1 is a mask of 0 points"),
        ({"shape_type": "mask", "points": [[0, 0]], "mask": "AAAA"}, "the mask of shape 1 is damaged"),
    ],
)
def test_labelme_shapes_without_area_and_damaged_masks_are_refused(
    shape: Mapping[str, Any], message: str, image: Path, write: Callable[[str, Any], Path]
) -> None:
    with pytest.raises(FileError, match=rf"a\.json can't be read as annotations \({message}"):
        read_mask(write("a.json", {"shapes": [{"label": "road", **shape}]}), CLASSES, image=image)


CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version>
<meta><job><labels><label><name>road</name><color>#ff0000</color></label></labels></job></meta>
<image id="0" name="set/a.png" width="8" height="6">
  <tag label="sunny"/>
  <polygon label="road" points="0,0;4,0;4,2;0,2" z_order="1"/>
  <box label="house" xtl="0" ytl="0" xbr="2" ybr="4" z_order="0"/>
  <box label="house" xtl="5" ytl="0" xbr="7" ybr="4" rotation="90" z_order="0"/>
  <ellipse label="road" cx="1.5" cy="5.5" rx="1.2" ry="0.4" z_order="0"/>
  <mask label="road" rle="1, 2, 1" left="6" top="4" width="2" height="2" z_order="0"/>
</image>
<image id="1" name="b.png" width="8" height="6"/>
</annotations>"""


def test_cvat_draws_by_depth(image: Path, write: Callable[[str, Any], Path]) -> None:
    path = write("annotations.xml", CVAT)
    mask = expected((0, 0, 4, 2, 1), (1, 4, 2, 4, 1), (0, 0, 2, 4, 2), (5, 0, 1, 3, 2))
    mask[4, 7] = mask[5, 6] = 2
    np.testing.assert_array_equal(read_mask(path, CLASSES, image=image), mask)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("<annotation><object/></annotation>", "export that"),
        ("<annotations><track/></annotations>", "no 'CVAT for images 1.1'"),
        ('<!DOCTYPE x [<!ENTITY a "b">]><annotations/>', "entities"),
        ("<annotations>", "it is no XML"),
        (CVAT.replace("<tag", "<polyline"), "a polyline of set/a.png covers no area"),
        (CVAT.replace("</annotations>", '<image name="set/a.png" width="1" height="1"/></annotations>'), "'set/a.png'"),
        (CVAT.replace("1, 2, 1", "1, 2"), "has 3 pixels, not 2 × 2"),
        (CVAT.replace('cx="1.5"', ""), "a coordinate is nan"),
    ],
)
def test_other_xml_is_refused(content: str, message: str, image: Path, write: Callable[[str, Any], Path]) -> None:
    with pytest.raises(FileError, match=message):
        read_mask(write("annotations.xml", content), CLASSES, image=image)


def test_an_image_for_each_class(tmp_path: Path) -> None:
    house, road = expected((0, 0, 3, 3, 255)), expected((2, 2, 2, 2, 1))
    for name, mask in (("house", house), ("road", road)):
        (tmp_path / name).mkdir()
        Image.fromarray(mask).save(tmp_path / name / "a.png")
    path = tmp_path / "{class}" / "a.png"
    mask = expected((0, 0, 3, 3, 1), (2, 2, 2, 2, 2))
    np.testing.assert_array_equal(read_mask(path, CLASSES), mask)

    Image.fromarray(np.repeat(house[:, :, np.newaxis], 3, axis=2)).save(tmp_path / "road" / "a.png")
    np.testing.assert_array_equal(read_mask(path, CLASSES), expected((0, 0, 3, 3, 2)))

    with pytest.raises(UndeclaredError, match="undeclared masks: road") as caught:
        read_mask(path, ClassMap.build(["background", "house"]))
    assert caught.value.found == {"road": 9}
    with pytest.raises(FileError, match="no file of a class"):
        read_mask(tmp_path / "{class}" / "b.png", CLASSES)


def test_any_label_of_an_image_is_none_of_another_whose_name_begins_alike(tmp_path: Path) -> None:
    for name, mask in (("1_road", (0, 0, 3, 1, 1)), ("1_far_barn", (0, 1, 3, 1, 1)), ("1_2_road", (0, 2, 3, 3, 1))):
        Image.fromarray(expected(mask)).save(tmp_path / f"{name}.png")
    for name in ("1.jpg", "1_2.jpg"):
        Image.fromarray(expected()).save(tmp_path / name)
    options = MaskOptions(labels=(("*", "house"),))
    path = tmp_path / "1_{class}.png"
    mask = read_mask(path, CLASSES, image=tmp_path / "1.jpg", options=options)
    np.testing.assert_array_equal(mask, expected((0, 0, 3, 1, 2), (0, 1, 3, 1, 1)))


def test_ids_of_objects(tmp_path: Path) -> None:
    ids = np.array([[7, 26000, 26001], [0, 24012, 255]], dtype=np.uint16)
    Image.fromarray(ids).save(tmp_path / "a.png")
    classes = ClassMap.build([("road", None, 7), ("person", None, 24), ("car", None, 26)], [0])
    mask = read_mask(tmp_path / "a.png", classes, options=MaskOptions(instances=1000))
    assert mask.tolist() == [[0, 2, 2], [255, 1, 255]]

    Image.fromarray(np.array([[7, 26]], dtype=np.uint8)).save(tmp_path / "b.png")
    assert read_mask(tmp_path / "b.png", classes, options=MaskOptions(instances=1000)).tolist() == [[0, 2]]

    two = ClassMap.build(["background", "object"])
    objects = read_mask(tmp_path / "a.png", two, options=MaskOptions(instances="all"))
    assert objects.tolist() == [[1, 1, 1], [0, 1, 1]]
