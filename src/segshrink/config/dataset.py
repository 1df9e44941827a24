"""The data set description: one YAML file says where images and masks are and what the masks mean."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from PIL import ImageColor
from pydantic import BeforeValidator, Field, model_validator

from segshrink.classes import ClassMap
from segshrink.colors import format_color
from segshrink.config.base import LARGEST_SEED, Strict
from segshrink.working_size import LARGEST_SHARE, LARGEST_SIDE, LEAST_SHARE, checked


def _color(value: Any) -> Any:
    """Write a color that is given by name or as [red, green, blue] as "#RRGGBB"; what is no color stays as it is."""
    if isinstance(value, list | tuple) and len(value) == 3 and all(type(part) is int for part in value):
        if all(0 <= part <= 255 for part in value):
            return format_color(value)
    elif isinstance(value, str):
        try:
            return format_color(ImageColor.getrgb(value)[:3])
        except ValueError:
            pass
    else:
        return value
    raise ValueError(f"a color must look like '#3C1098', black or [0, 0, 0], found {value!r}")


Color = Annotated[str, BeforeValidator(_color)]
Value = Annotated[int, Field(ge=0, le=65535)]
Share = Annotated[float, Field(ge=LEAST_SHARE, le=LARGEST_SHARE)]
Side = Annotated[int, Field(ge=1, le=LARGEST_SIDE)]
WorkingSize = Annotated[
    Share | dict[str, Side] | tuple[Side, Side] | None,
    BeforeValidator(lambda value: None if value is None else checked(value)),
]


class ClassEntry(Strict):
    """One class; masks hold either its ``color`` or its ``value``. A text alone is its ``name``."""

    name: str
    """The class's name."""
    color: Color | None = None
    """Its color in color or palette masks, "#RRGGBB", a name such as black, or [0, 0, 0]; also the color it is drawn
    in."""
    value: Value | None = None
    """The number as it stands in index masks."""
    colors: list[Color] = Field(default=[])
    """Its colors, where masks hold it in several; it is drawn in ``color``, else in the first of these."""
    values: list[Value] = Field(default=[])
    """Its numbers, where index masks hold it in several."""
    labels: list[str] = Field(default=[])
    """What annotations, attributes of polygons or folders of masks call it, where that isn't its name; "*" is all that
    nothing else names."""

    @model_validator(mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @property
    def all_colors(self) -> list[str]:
        """All its colors in masks, the one it is drawn in first."""
        return list(dict.fromkeys(color for color in (self.color, *self.colors) if color is not None))

    @property
    def all_values(self) -> list[int]:
        """All its numbers in index masks."""
        return list(dict.fromkeys(value for value in (self.value, *self.values) if value is not None))


class Split(Strict):
    """Which images train and which judge. Use ``train``/``val``/``test``, or one of the other three.

    ``test`` may stand beside each of them.
    """

    train: list[str] | str | None = None
    """Images that train: folders or wildcards relative to ``root``, image stems, or a text file with one of these a
    line."""
    val: list[str] | str | None = None
    """Images that judge, in the same way."""
    test: list[str] | str | None = None
    """Images that neither train nor judge before the end, in the same way."""
    groups: dict[str, list[str]] | None = None
    """Pieces of ground: name of a group -> folders or wildcards of its images. The folds of a bank of teachers follow
    them; an image of no group is one by itself, with those that overlap. With ``held_out``, leave-one-group-out: all
    other groups train."""
    held_out: str | None = None
    """The group that is judged."""
    overlaps: list[list[str]] = Field(default=[])
    """Lists of images in different groups (folders or wildcards) that show some of the same ground: a teacher that
    learned from one of a list has seen the others. Map tiles of the same ground, at one zoom or another, are told by
    the numbers in their names (column, row and zoom, or zoom, column and row)."""
    random: float | None = Field(default=None, gt=0, lt=1)
    """The share of images (whole images) that is judged; those of a group, and those that overlap, stay on one
    side."""
    patches: int | None = Field(default=None, ge=16)
    """Side of squares that are cut from every image and shuffled, ``share`` of them judged: judged pixels lie beside
    training pixels, so results leak and are labeled so."""
    share: float = Field(default=0.2, gt=0, lt=1)
    """Share of the patches that is judged."""
    seed: int = Field(default=0, ge=0, le=LARGEST_SEED)
    """Random seed of ``random`` and ``patches``."""

    @model_validator(mode="after")
    def _one_kind(self) -> Split:
        if self.groups is None and self.held_out is not None:
            raise ValueError("held_out names one of the groups, but there are no groups; give groups or leave it out")
        kinds = [self.train is not None, self.held_out is not None, self.random is not None, self.patches is not None]
        if self.groups is not None and not any(kinds):
            raise ValueError(f"held_out must be one of the groups {', '.join(self.groups)}")
        if sum(kinds) != 1:
            raise ValueError("give exactly one of train/val, groups with held_out, random, patches")
        if self.train is not None and self.val is None:
            raise ValueError("train is given but val is missing")
        if self.train is None and self.val is not None:
            raise ValueError("val is given beside groups, random or patches, which choose it themselves; leave it out")
        if self.groups is not None and self.held_out not in (None, *self.groups):
            raise ValueError(f"held_out must be one of the groups {', '.join(self.groups)}")
        return self

    @property
    def leaking(self) -> bool:
        """Whether judged pixels lie beside training pixels of the same image."""
        return self.patches is not None


class Origin(Strict):
    """Where a published data set comes from, which is said when it isn't there yet."""

    address: str
    """Web page of its publisher."""
    license: str
    """What it may be used for, by the name of its license."""
    command: str | None = None
    """Command that fetches it, typed where the paths below end up right."""


class LabelDecisions(Strict):
    """What was decided about regions whose labels ``segshrink labels`` found doubtful."""

    regions: Path
    """Folder that it wrote, relative to ``root``. Where a polygon's ``accepted`` is true, the label is what the polygon
    suggests; where it is false, the label stands."""
    weight: float = Field(default=1.0, ge=0, le=1)
    """How much labels count in training where a region is undecided: the share of their pixels that a crop keeps, drawn
    anew for each; 0 ignores them."""


class DatasetDescription(Strict):
    """A data set: where images and masks are, and what the masks mean."""

    name: str
    """Name of the data set in reports."""
    root: Path = Path()
    """Folder that the patterns below start from; relative to the description file."""
    origin: Origin | None = None
    """Where it is published; the command line says so where ``root`` is absent or empty."""
    images: str
    """Wildcard relative to root ("Tile */images/*.jpg"), or a list file of "image" or "image mask" lines. A suffix
    counts in any case: *.jpg finds a.JPG, too. Paths of a list that begin elsewhere are matched by their end. Or
    "module:function", which makes a data set of torch or Hugging Face, masks included."""
    masks: str | None = None
    """Wildcard with the same number of * parts, paired by them; empty with a two-column list file. Masks are images,
    polygons on the ground (.geojson, .gpkg, .fgb), or annotations of COCO, CVAT, LabelMe or YOLO. One file for many
    images has fewer * parts; {class} stands for each class that has masks of its own ("masks/{class}/*.png")."""
    classes: list[ClassEntry] = Field(min_length=2, max_length=255)
    """The classes, in the order of the model's outputs; names alone count 0, 1, 2 ... in index masks."""
    ignore: list[Color | int] = Field(default=[])
    """Mask colors ("#RRGGBB", black, [0, 0, 0]) or values that carry no label."""
    ignore_labels: list[str] = Field(default=[])
    """Labels of annotations, polygons or folders of masks that carry no class: their pixels are ignored."""
    exclude: list[str] | str = Field(default=[])
    """Images to leave out: folders or wildcards relative to root, stems, or a text file with one of these a line."""
    mask_resize: Literal["nearest"] | None = None
    """Bring masks of another size than their image to its size, pixel by nearest pixel, where the proportions agree;
    None refuses them."""
    resize: WorkingSize = None
    """Working size: networks learn from images, and work on them, at 0.5 of their height and width, with
    {longest: 500} pixels on the longer side, or all at [256, 256] (height, width). The model brings images there and
    its answers back by itself, and is judged at the images' own size. Images on the ground take a factor only."""
    split: Split = Split(random=0.2)
    """Which images train and which judge; needed where there are masks."""
    truth: Literal["labels", "teacher"] = "labels"
    """What masks say: "labels", or the answers of a "teacher", which ``distill`` names here where no image has a mask:
    then training images need none, and scores are the agreement with it."""
    label_errors: LabelDecisions | None = None
    """Corrections of masks, and doubts about them."""
    unlabeled: str | None = None
    """Wildcard or list file of images without masks, for distillation."""
    bands: Annotated[int, Field(ge=1)] | Annotated[list[int | str], Field(min_length=1)] | None = None
    """Bands to read, in this order: by number (from 1) or by name, [4, 1, 2] or [nir, red, green]; or how many there
    are. A transparency band masks pixels out and is a band only where it is listed or counted here."""
    nodata: float | None = None
    """A pixel value that stands for no data, besides what the files declare: 0 where all bands have it, -9999 in any.
    """
    allow_absent: list[str] = Field(default=[])
    """Classes that the training masks need not hold."""
    resolution: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Ground size of a pixel in meters, such as 0.3, where the files don't say it; models trained on it carry it along.
    """
    mask_kind: Literal["auto", "color", "index"] = "auto"
    """How masks are read: "auto" is color if every class has a color and none has a value, else index."""
    mask_field: str | None = None
    """Masks as polygons (.geojson, .gpkg): the attribute that holds a class's name or value. None takes "class"; where
    polygons don't have it and there are two classes, all polygons are the one that isn't mask_background."""
    mask_background: str | None = None
    """Masks as shapes: the class where no shape lies. None ignores these pixels, but takes the first class where all
    polygons on the ground are one class of two, and a class called background or other in annotations."""
    mask_instances: Annotated[int, Field(ge=2)] | Literal["all"] | None = None
    """Masks that hold ids of objects: the number that the class's value was multiplied by (1000: 26003 is an object of
    value 26, and what is less than 1000 a value), or "all": every id but 0 is an object of the second of two classes.
    """

    @model_validator(mode="after")
    def _meaningful(self) -> DatasetDescription:
        if self.masks is not None and "split" not in self.model_fields_set:
            raise ValueError("'split' is missing; say which images train and which judge, such as split: {random: 0.2}")
        # A ConfigError is a ValueError, which pydantic reports with the field.
        classes = self.class_map()
        if self.mask_background not in (None, *classes.names):
            raise ValueError(f"mask_background must be one of the classes {', '.join(classes.names)}")
        if unknown := [name for name in self.allow_absent if name not in classes.names]:
            raise ValueError(f"allow_absent names '{unknown[0]}', which is none of {', '.join(classes.names)}")
        if self.mask_instances == "all" and classes.values != (0, 1):
            raise ValueError("mask_instances: all needs two classes without color or value, background and object")
        return self

    def class_map(self) -> ClassMap:
        """Build the class map that the classes declare.

        Raises:
            ConfigError: The classes contradict each other.
        """
        entries = [(entry.name, entry.all_colors, entry.all_values) for entry in self.classes]
        return ClassMap.build(entries, self.ignore, mask_kind=self.mask_kind)
