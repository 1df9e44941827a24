"""What a description mends: several colors of a class, excluded images, suffixes, mask sizes, lists from elsewhere."""

from __future__ import annotations

import re

import numpy as np
import pytest
from PIL import Image

from segshrink.classes import ClassMap
from segshrink.cli._tables import print_inspection
from segshrink.config import load_recipe
from segshrink.data import inspect_dataset, open_dataset
from segshrink.data.store import SceneStore
from segshrink.errors import DataError
from segshrink.imagery.masks import resized_mask

GREEN = (0, 255, 0)


def problems(description):
    return [str(problem) for problem in inspect_dataset(description).problems]


def test_a_class_has_several_colors(painter, capsys):
    painter.pairs("north/a", "north/b", "south/a")
    painter.mask("north/masks/b.png", colors=(GREEN, (0x6E, 0xC1, 0xE4)))
    description = painter.describe(
        classes=[{"name": "Land", "colors": ["#8429F6", [0, 255, 0]]}, {"name": "Road", "color": "#6EC1E4"}]
    )
    inspection = inspect_dataset(description)
    assert inspection.problems == ()
    assert inspection.parts[0].class_shares == {"Land": 0.5, "Road": 0.5}
    assert inspection.merged == {"Land": ("#8429F6", "#00FF00")}
    print_inspection(inspection)
    assert "Land is #8429F6, #00FF00 in masks" in capsys.readouterr().out
    classes = description.class_map()
    assert ClassMap.from_dict(classes.to_dict()) == classes


def test_a_class_has_several_values():
    classes = ClassMap.build([("field", None, [1, 4]), ("road", None, 2)], [0])
    assert classes.encode(np.array([[1, 4, 2, 0, 255]])).tolist() == [[0, 0, 1, 255, 255]]
    assert ClassMap.from_dict(classes.to_dict()) == classes


def test_colors_are_also_names_and_numbers(painter):
    painter.pairs("north/a", "south/a")
    description = painter.describe(
        classes=[{"name": "Land", "color": [0x84, 0x29, 0xF6]}, {"name": "Road", "color": "#6EC1E4"}],
        ignore=["black", [255, 0, 0]],
    )
    assert description.ignore == ["#000000", "#FF0000"]
    assert problems(description) == []


def test_what_is_excluded_is_not_looked_at(painter, capsys):
    painter.pairs("north/a", "north/b", "south/a")
    (painter.root / "north/masks/b.png").unlink()
    painter.mask("north/masks/lost.png")
    description = painter.describe(exclude=["north/images/b.png", "north/masks/lost.png"])
    inspection = inspect_dataset(description)
    assert (inspection.problems, inspection.excluded) == ((), ("north/images/b.png",))
    print_inspection(inspection)
    assert "exclude: 1 images are left out" in capsys.readouterr().out
    assert [sample.image.name for sample in open_dataset(description).train] == ["a.png"]
    assert "exclude: 'nothing' matches no image" in problems(painter.describe(exclude=["nothing"]))[0]


@pytest.mark.parametrize("unlabeled", [None, "more/images/*.png"])
@pytest.mark.parametrize(
    ("exclude", "message"),
    [
        (["north/imges/b.png"], "'north/imges/b.png' matches no image"),
        ("lost.txt", r"can't read the list file .*lost\.txt"),
        (["a"], "'a' is the stem of"),
    ],
)
def test_a_wrong_exclude_is_told(painter, exclude, message, unlabeled):
    painter.pairs("north/a", "south/a", "more/a", "more/b")
    description = painter.describe(images="*th/images/*.png", masks="*th/masks/*.png", exclude=exclude)
    description = description.model_copy(update={"unlabeled": unlabeled})
    with pytest.raises(DataError, match=message):
        open_dataset(description)
    assert re.search(message, problems(description)[0])


def test_each_entry_of_exclude_may_mean_images_of_another_kind(painter):
    painter.pairs("north/a", "north/b", "south/a", "more/b", "more/c", "more/d")
    description = painter.describe(
        images="*th/images/*.png",
        masks="*th/masks/*.png",
        unlabeled="*/images/*.png",
        exclude=["north/images/b.png", "c"],
    )
    assert inspect_dataset(description).excluded == ("more/images/c.png", "north/images/b.png")
    dataset = open_dataset(description)
    assert [sample.image.relative_to(painter.root).as_posix() for sample in (*dataset.train, *dataset.unlabeled)] == [
        "north/images/a.png",
        "more/images/b.png",
        "more/images/d.png",
    ]


def test_suffixes_count_in_any_case(painter):
    painter.pairs("north/a", "north/b", "south/a")
    (painter.root / "north/images/b.png").rename(painter.root / "north/images/b.PNG")
    (painter.root / "south/masks/a.png").rename(painter.root / "south/masks/a.Png")
    assert problems(painter.describe()) == []
    assert len(open_dataset(painter.describe()).train) == 2


def test_masks_of_the_same_proportions_are_resized(painter, tmp_path):
    painter.pairs("north/a", "north/b", "south/a")
    painter.mask("north/masks/b.png", (20, 25))
    assert "the proportions agree, so mask_resize: nearest mends it" in problems(painter.describe())[0]
    description = painter.describe(mask_resize="nearest")
    inspection = inspect_dataset(description)
    assert (inspection.problems, inspection.resized_masks) == ((), ("north/masks/b.png",))
    dataset = open_dataset(description)
    store = SceneStore(dataset.train, dataset.classes, folder=tmp_path / "cache")
    assert np.array_equal(store.mask(0), store.mask(1))
    painter.mask("north/masks/b.png", (20, 50))
    with pytest.raises(DataError, match="20 × 50"):
        SceneStore(open_dataset(description).train, dataset.classes, folder=tmp_path / "cache")


@pytest.mark.parametrize(("shape", "fits"), [((6, 8), True), ((7, 8), True), ((6, 4), False)])
def test_resized_masks_take_the_nearest_pixel(shape, fits):
    mask = np.arange(12, dtype=np.uint8).reshape(3, 4)
    resized = resized_mask(mask, shape)
    assert (resized is not None) is fits
    if shape == (6, 8):
        assert np.array_equal(resized, mask.repeat(2, axis=0).repeat(2, axis=1))


def test_lists_from_another_machine_count_by_their_ends(painter):
    for part in ("train", "val"):
        painter.image(f"{part}/a.png")
        painter.mask(f"{part}annot/a.png")
        painter.text(f"{part}.txt", f"/SegNet/CamVid/{part}/a.png /SegNet/CamVid/{part}annot/a.png")
    split = {"train": "train.txt", "val": "val.txt"}
    by_path = painter.describe(images="*/*.png", masks="*annot/*.png", split=split)
    assert [sample.mask.parent.name for sample in open_dataset(by_path).val] == ["valannot"]
    lines = [(painter.root / f"{part}.txt").read_text().strip() for part in ("train", "val")]
    painter.text("all.txt", *lines)
    by_list = painter.describe(images="all.txt", masks=None, split=split)
    assert [sample.mask.parent.name for sample in open_dataset(by_list).train] == ["trainannot"]


def test_many_faults_of_one_kind_are_one_line(painter, capsys):
    painter.pairs(*(f"north/{number}" for number in range(50)), "south/a")
    for number in range(50):
        painter.mask(f"north/masks/{number}.png", (number + 1, 77))
    inspection = inspect_dataset(painter.describe())
    mismatched = [problem for problem in inspection.problems if problem.kind == "mismatched"]
    assert len(mismatched) == 50
    assert inspection.faults[mismatched[0]] == 50
    print_inspection(inspection)
    shown = capsys.readouterr().out
    assert shown.count("(height × width) but its image") == 1
    assert "(49 more like it; --json lists all)" in shown


def test_plain_lists_do(tmp_path):
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "runs" / "t").mkdir(parents=True)
    (tmp_path / "recipe.yaml").write_text(
        "data: {name: plain, images: i/*.png, masks: m/*.png, classes: [sky, road], split: {random: 0.5}}\n"
        "student: mobile\nteacher: {model: unet}\ndistillation: {teachers: [runs/t]}\n"
    )
    recipe = load_recipe(tmp_path / "recipe.yaml", ["student.training.epochs=3"])
    assert recipe.data.class_map().values == (0, 1)
    assert (recipe.student.model.id, recipe.student.training.epochs, recipe.teacher.model.id) == ("mobile", 3, "unet")
    assert recipe.distillation.teachers[0].source == str(tmp_path / "runs" / "t")
    assert load_recipe(tmp_path / "recipe.yaml", ["student=unet"]).student.model.id == "unet"
