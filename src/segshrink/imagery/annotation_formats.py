"""What annotation tools export, read shape by shape: COCO, YOLO, LabelMe and CVAT for images."""

from __future__ import annotations

import base64
import io
import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import PurePosixPath
from typing import Any, Literal, NamedTuple
from xml.etree import ElementTree

import numpy as np
import rasterio.features
from numpy.typing import NDArray
from PIL import Image

from segshrink.extras import needing

AnnotationKind = Literal["COCO", "CVAT", "LabelMe", "YOLO"]
# Burns a shape into (H, W) numbers, as one number.
Painter = Callable[[NDArray[np.uint8], int], None]
# No image is wider, and no shape reaches farther, in pixels.
_FARTHEST = 1e6
_LARGEST = 2**31


class Shape(NamedTuple):
    """A shape of an image: its label, as the file spells it, and what burns it."""

    label: str
    paint: Painter


@dataclass(frozen=True)
class ImageAnnotations:
    """The shapes of an image, each over those before it, and its (height, width) where the file says it."""

    size: tuple[int, int] | None
    shapes: list[Shape] = field(default_factory=list)


@dataclass(frozen=True)
class AnnotationFile:
    """What a file of annotations holds.

    Attributes:
        kind: Its format.
        images: Path of an image as the file spells it → its shapes; "" in files that belong to one image.
        labels: All labels, those that the file lists first.
        colors: Label → "#RRGGBB", where the file says it.
    """

    kind: AnnotationKind
    images: dict[str, ImageAnnotations]
    labels: tuple[str, ...]
    colors: dict[str, str] = field(default_factory=dict)

    @cached_property
    def by_file_name(self) -> dict[str, list[str]]:
        """File name → the paths in ``images`` that end with it."""
        paths: dict[str, list[str]] = {}
        for path in self.images:
            paths.setdefault(PurePosixPath(path.replace("\\", "/")).name, []).append(path)
        return paths


def parse_coco(content: Mapping[str, Any]) -> AnnotationFile:
    """Read COCO's instances: polygons, RLE in both ways, crowds as what they are labeled.

    Masks are those of pycocotools, bit for bit: https://github.com/cocodataset/cocoapi.

    Raises:
        ValueError: A part is missing or wrong; which one.
    """
    categories = {entry["id"]: str(entry["name"]) for entry in content.get("categories", ())}
    _refuse_twice("file_name", (str(entry["file_name"]) for entry in content["images"]))
    _refuse_twice("id", (str(entry["id"]) for entry in content["images"]))
    by_image: dict[str, list[Shape]] = defaultdict(list)  # some tools write the same id as text and as number
    for annotation in content["annotations"]:
        where = f"annotation {annotation.get('id')}"
        outline = annotation.get("segmentation")
        if not outline:
            raise ValueError(f"{where} has only a box, no 'segmentation'; export outlines (COCO segmentation)")
        if annotation["category_id"] not in categories:
            raise ValueError(f"{where}: its 'category_id' {annotation['category_id']} is none of the 'categories'")
        label = categories[annotation["category_id"]]
        by_image[str(annotation["image_id"])].append(Shape(label, partial(_paint_coco, outline, where)))
    images = {}
    for entry in content["images"]:
        size = _checked_size(entry["height"], entry["width"]) if "height" in entry and "width" in entry else None
        images[str(entry["file_name"])] = ImageAnnotations(size, by_image.get(str(entry["id"]), []))
    return AnnotationFile("COCO", images, tuple(dict.fromkeys(name for _, name in sorted(categories.items()))))


def parse_yolo(text: str) -> AnnotationFile:
    """Read YOLO's outlines, a line each: the class's number, then x and y of each corner as shares of the image.

    Raises:
        ValueError: A line is no outline; which one.
    """
    shapes = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not (words := line.split()):
            continue
        values = [float(word) for word in words]
        if len(values) == 5:
            raise ValueError(f"line {number} is a box, not an outline; export YOLO segmentation")
        if len(values) < 7 or len(values) % 2 == 0 or not values[0].is_integer():
            raise ValueError(f"line {number} should hold a class number and x y of three corners or more")
        if not all(-1 <= value <= 2 for value in values[1:]):
            raise ValueError(f"line {number} holds coordinates that are no shares of the image (0 to 1)")
        shapes.append(Shape(str(int(values[0])), partial(_paint_relative, _corners(values[1:]))))
    return _of_one_image("YOLO", None, shapes)


def parse_labelme(content: Mapping[str, Any]) -> AnnotationFile:
    """Read LabelMe's shapes: polygons, rectangles, circles and masks; https://github.com/wkentaro/labelme.

    Raises:
        ValueError: A shape has no area, or a part is missing or wrong; which one.
    """
    shapes = []
    for number, shape in enumerate(content["shapes"], start=1):
        kind = shape.get("shape_type") or "polygon"
        points = [(_coordinate(x), _coordinate(y)) for x, y in shape["points"]]
        label, where = str(shape["label"]), f"shape {number}"
        if kind == "polygon" and len(points) > 2:
            shapes.append(Shape(label, partial(_paint_rings, [points])))
        elif kind == "rectangle" and len(points) > 1:
            (left, top), (right, bottom) = points[0], points[-1] if len(points) == 2 else points[2]
            corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
            shapes.append(Shape(label, partial(_paint_rings, [corners])))
        elif kind == "circle" and len(points) == 2:
            radius = math.dist(*points)
            shapes.append(Shape(label, partial(_paint_ellipse, points[0], (radius, radius), 0.0)))
        elif kind == "mask" and points:
            shapes.append(Shape(label, partial(_paint_patch, _labelme_mask(shape["mask"], where), points[0])))
        else:
            raise ValueError(f"{where} is a {kind} of {len(points)} points, which covers no area; draw an outline")
    height, width = content.get("imageHeight"), content.get("imageWidth")
    return _of_one_image("LabelMe", None if height is None else _checked_size(height, width), shapes)


def _labelme_mask(text: str, where: str) -> NDArray[np.bool_]:
    try:
        with Image.open(io.BytesIO(base64.b64decode(text))) as picture:
            _checked_size(picture.height, picture.width)
            return np.array(picture.convert("L")) > 0
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"the mask of {where} is damaged ({error})") from error


def parse_cvat(text: str) -> AnnotationFile:
    """Read "CVAT for images 1.1": polygons, boxes, ellipses and masks in their order of depth; docs.cvat.ai.

    Raises:
        ValueError: It is another kind of XML, a shape has no area, or a part is missing or wrong; which one.
    """
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise ValueError("it declares entities, which no annotations need")
    try:
        root = ElementTree.fromstring(text)  # noqa: S314  # no entities, as checked
    except ElementTree.ParseError as error:
        raise ValueError(f"it is no XML: {error}") from error
    if root.tag != "annotations" or root.find("track") is not None:
        raise ValueError(f"it is no 'CVAT for images 1.1' but <{root.tag}>; export that (VOC's XML holds boxes only)")
    images, used = {}, dict[str, None]()
    _refuse_twice("name", (str(entry.get("name")) for entry in root.iter("image")))
    for entry in root.iter("image"):
        size = _checked_size(int(entry.get("height", 0)), int(entry.get("width", 0)))
        drawn = [shape for shape in entry if shape.tag != "tag"]
        drawn.sort(key=lambda shape: int(shape.get("z_order", 0)))
        shapes = [_cvat_shape(shape, str(entry.get("name"))) for shape in drawn]
        used |= dict.fromkeys(shape.label for shape in shapes)
        images[str(entry.get("name"))] = ImageAnnotations(size, shapes)
    declared = {str(label.findtext("name")): label.findtext("color") for label in root.iterfind("meta//labels/label")}
    colors = {name: color for name, color in declared.items() if color}
    return AnnotationFile("CVAT", images, tuple(dict.fromkeys((*declared, *used))), colors)


def _cvat_shape(shape: ElementTree.Element, image: str) -> Shape:
    def numbers(*keys: str) -> list[float]:
        return [_coordinate(float(shape.get(key, "nan"))) for key in keys]

    label, (turn,) = shape.get("label", ""), [_coordinate(float(shape.get("rotation", 0)))]
    if shape.tag == "polygon":
        values = [_coordinate(float(part)) for part in shape.get("points", "").replace(";", ",").split(",")]
        return Shape(label, partial(_paint_rings, [_corners(values)]))
    if shape.tag == "box":
        left, top, right, bottom = numbers("xtl", "ytl", "xbr", "ybr")
        corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
        middle = ((left + right) / 2, (top + bottom) / 2)
        return Shape(label, partial(_paint_rings, [_turned(corners, middle, turn)]))
    if shape.tag == "ellipse":
        x, y, across, down = numbers("cx", "cy", "rx", "ry")
        return Shape(label, partial(_paint_ellipse, (x, y), (across, down), turn))
    if shape.tag == "mask":
        left, top, width, height = (int(value) for value in numbers("left", "top", "width", "height"))
        _checked_size(height, width)
        runs = [int(part) for part in shape.get("rle", "").split(",")]
        if min(runs) < 0 or sum(runs) != height * width:
            raise ValueError(f"the mask of {image} has {sum(runs)} pixels, not {height} × {width}")
        covered = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(height, width)
        return Shape(label, partial(_paint_patch, covered, (left, top)))
    raise ValueError(f"a {shape.tag} of {image} covers no area; draw an outline")


def _refuse_twice(key: str, values: Iterable[Any]) -> None:
    twice = [value for value, count in Counter(values).items() if count > 1]
    if twice:
        raise ValueError(f"several images have the '{key}' {twice[0]!r}; give each its own")


def _of_one_image(kind: AnnotationKind, size: tuple[int, int] | None, shapes: list[Shape]) -> AnnotationFile:
    labels = tuple(dict.fromkeys(shape.label for shape in shapes))
    return AnnotationFile(kind, {"": ImageAnnotations(size, shapes)}, labels)


def _paint_coco(outline: Any, where: str, mask: NDArray[np.uint8], number: int) -> None:
    """Burn an annotation as pycocotools' ``annToMask`` decodes it."""
    with needing("reading COCO annotations", "coco"):
        from pycocotools import mask as coco
    height, width = mask.shape
    if isinstance(outline, Mapping):
        runs = outline["counts"] if isinstance(outline["counts"], list) else _decompressed(outline["counts"])
        if list(outline["size"]) != [height, width]:
            raise ValueError(f"{where}: its RLE is of size {outline['size']}, its image {height} × {width}")
        if sum(runs) != height * width:
            raise ValueError(f"{where}: its RLE has {sum(runs)} pixels, its image {height} × {width}")
        encoded = coco.frPyObjects({**outline, "counts": runs}, height, width)
    else:
        for part in outline:
            if len(part) < 6 or not all(-_FARTHEST <= value <= _FARTHEST for value in part):
                raise ValueError(f"{where}: a polygon needs three corners or more, in pixels")
        encoded = coco.merge(coco.frPyObjects(outline, height, width))
    mask[coco.decode(encoded).astype(bool)] = number


def _paint_relative(corners: Sequence[tuple[float, float]], mask: NDArray[np.uint8], number: int) -> None:
    height, width = mask.shape
    _paint_rings([[(x * width, y * height) for x, y in corners]], mask, number)


def _decompressed(text: str) -> list[int]:
    """Return the runs of a compressed RLE, each but the first three as its difference from the one before the last.

    Of a character 48 is subtracted: its low 5 bits are the number's next higher ones, the sixth says that more follow,
    and the fifth of the last is its sign.
    """
    runs: list[int] = []
    number = shift = 0
    for byte in text.encode("ascii"):
        bits = byte - 48
        number |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            number -= bits >> 4 << shift
            runs.append(number + (runs[-2] if len(runs) > 2 else 0))
            number = shift = 0
    return runs


def _paint_rings(rings: Sequence[Sequence[tuple[float, float]]], mask: NDArray[np.uint8], number: int) -> None:
    """Burn a polygon into the pixels whose center it holds."""
    closed = [[*ring, ring[0]] for ring in rings]
    rasterio.features.rasterize([({"type": "Polygon", "coordinates": closed}, number)], out=mask)


def _paint_ellipse(
    middle: tuple[float, float], radii: tuple[float, float], turn: float, mask: NDArray[np.uint8], number: int
) -> None:
    """Burn an ellipse, turned by degrees clockwise, into the pixels whose center it holds."""
    if 0 in radii:
        return
    rows, cols = np.ogrid[: mask.shape[0], : mask.shape[1]]
    x, y = cols + 0.5 - middle[0], rows + 0.5 - middle[1]
    cosine, sine = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    across, down = (x * cosine + y * sine) / radii[0], (y * cosine - x * sine) / radii[1]
    mask[across**2 + down**2 <= 1] = number


def _paint_patch(covered: NDArray[np.bool_], corner: tuple[float, float], mask: NDArray[np.uint8], number: int) -> None:
    """Burn a small mask whose top left pixel is (x, y)."""
    left, top = int(corner[0]), int(corner[1])
    height, width = covered.shape
    target = mask[max(top, 0) : max(top + height, 0), max(left, 0) : max(left + width, 0)]
    inside = covered[max(-top, 0) :, max(-left, 0) :][: target.shape[0], : target.shape[1]]
    target[inside] = number


def _turned(
    corners: Iterable[tuple[float, float]], middle: tuple[float, float], turn: float
) -> list[tuple[float, float]]:
    """Turn corners around a point by degrees, clockwise on an image."""
    cosine, sine = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    shifts = [(x - middle[0], y - middle[1]) for x, y in corners]
    return [(middle[0] + x * cosine - y * sine, middle[1] + x * sine + y * cosine) for x, y in shifts]


def _corners(values: Sequence[float]) -> list[tuple[float, float]]:
    if len(values) < 6 or len(values) % 2:
        raise ValueError(f"an outline needs x and y of three corners or more, found {len(values)} numbers")
    return list(zip(values[::2], values[1::2], strict=True))


def _coordinate(value: Any) -> float:
    if type(value) not in (int, float) or not -_FARTHEST <= value <= _FARTHEST:
        raise ValueError(f"a coordinate is {value!r}, not a number of pixels")
    return float(value)


def _checked_size(height: Any, width: Any) -> tuple[int, int]:
    if type(height) is not int or type(width) is not int or min(height, width) < 1 or height * width > _LARGEST:
        raise ValueError(f"an image's height and width are {height!r} and {width!r}")
    return height, width


def parse_json(text: str) -> AnnotationFile | None:
    """Read COCO or LabelMe, whichever a JSON text is; None where it is neither, or damaged.

    Raises:
        ValueError: A part is missing or wrong; which one.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(content, dict):
        return None
    if "shapes" in content:
        return parse_labelme(content)
    return parse_coco(content) if "images" in content and "annotations" in content else None
