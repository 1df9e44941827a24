"""Reading masks as class indices."""

from __future__ import annotations

import glob
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segshrink.classes import IGNORE_INDEX, ClassMap, UndeclaredError
from segshrink.errors import DataError, FileError
from segshrink.file_search import is_file
from segshrink.imagery.annotations import annotation_kind, read_annotated_mask, read_annotation_file
from segshrink.imagery.bands import has_palette, palette_table, transparency
from segshrink.imagery.georeference import read_georeference
from segshrink.imagery.mask_options import ANY_LABEL, MaskOptions
from segshrink.imagery.pictures import orientation_of, refuse_turned, upright
from segshrink.imagery.raster_files import Header, masks_beside, open_pillow, open_raster, read_header
from segshrink.imagery.validity import has_mask
from segshrink.imagery.vector_masks import is_vector, read_vector_mask

# Stands in a mask's path for each class, where every class has a file of its own.
CLASS_PART = "{class}"
# What such a file holds, 0 or anything else, once its numbers are ids of which all are objects.
_COVERED = ClassMap.build(["not", "covered"])


def read_mask(
    path: Path, classes: ClassMap, *, image: Path | None = None, options: MaskOptions | None = None
) -> NDArray[np.uint8]:
    """Read a mask as class indices.

    Args:
        path: An image of colors or numbers, polygons on the ground (GeoJSON, GeoPackage, FlatGeobuf), annotations
            (COCO, CVAT, LabelMe, YOLO), or a path with "{class}" in it for an image of each class.
        classes: What they mean.
        image: What the mask belongs to: polygons are burned onto its grid, and a GeoTIFF that says where it lies must
            lie there. None where that isn't known; polygons and annotations need it.
        options: How shapes become classes; None is ``MaskOptions()``.

    Palette files are read through the palette when classes are colors, as raw numbers when classes have values. The
    no-data value of a GeoTIFF of numbers is ignored unless a class has it. What a mask inside or beside the file or an
    alpha band masks out is ignored. An EXIF orientation is undone as that of images is.

    Returns:
        (H, W) class indices, 255 where ignored.

    Raises:
        FileError: The file is missing, unreadable, no image, damaged or truncated.
        UndeclaredError: The mask holds something that is neither a class nor ignored; ``found`` counts it.
        DataError: The mask is of another kind than the classes need, is a JPEG file, or lies elsewhere than its image.
        MissingExtraError: Polygons need ``segshrink[vector]``, or COCO ``segshrink[coco]``.
    """
    path, options = Path(path), options or MaskOptions()
    drawn = drawn_from(path)
    try:
        if CLASS_PART in str(path):
            return _read_each_class(path, classes, image, options)
        if drawn and image is None:
            raise DataError(f"{path} holds {drawn}, which need an image to be laid on; give a mask as an image")
        if drawn and image is not None:
            return (read_vector_mask if is_vector(path) else read_annotated_mask)(path, image, classes, options)
        return _read_pixels(path, classes, image, options)
    except UndeclaredError as error:
        raise UndeclaredError(f"{path}: {error}", error.found) from error
    except DataError as error:
        if drawn:  # its errors name it
            raise
        raise DataError(f"{path}: {error}") from error


def drawn_from(path: Path) -> str | None:
    """Return what a mask is drawn from by labels, such as "COCO annotations"; None where its pixels are the mask."""
    if CLASS_PART in str(path):
        return "an image for each class"
    if is_vector(path):
        return "polygons on the ground"
    kind = annotation_kind(path)
    return None if kind is None else f"{kind} annotations"


def mask_files(path: Path) -> list[Path]:
    """Return the files that a mask is read from, sorted: one, or of a path with "{class}" those of all folders."""
    if CLASS_PART not in str(path):
        return [Path(path)]
    start = Path(str(path).partition(CLASS_PART)[0] + "x").parent
    pattern = glob.escape(str(path.relative_to(start))).replace(CLASS_PART, "*")
    return sorted(file for file in start.glob(pattern) if is_file(file))


def mask_identity(path: Path, image: Path) -> list[str]:
    """Return what else than the content of its files a mask depends on: their names, or which image they speak of."""
    if CLASS_PART in str(path):
        return [file.as_posix() for file in mask_files(path)]
    if path.suffix.lower() in (".gpkg", ".fgb"):
        return ["in the order of drawing"]
    content = read_annotation_file(path)
    return [str(image)] if content is not None and "" not in content.images else []


def _read_pixels(path: Path, classes: ClassMap, image: Path | None, options: MaskOptions) -> NDArray[np.uint8]:
    header = read_header(path)
    if header.format == "JPEG":
        raise DataError(
            "masks can't be JPEG files, whose compression blurs every border into numbers of other classes; export "
            "them again, from where they were drawn, as PNG (indexed or 8-bit gray) or TIFF"
        )
    if header.by_pillow and not masks_beside(path):
        return _read_small(path, header, classes, options)
    if image is not None:
        _refuse_other_place(path, image)
    return _read_raster(path, header, classes, options)


def _read_each_class(path: Path, classes: ClassMap, image: Path | None, options: MaskOptions) -> NDArray[np.uint8]:
    """Read a path with "{class}": an image of each class, whose pixels but 0 are that class; later classes lie above.

    A class without such a file isn't on the image; a folder of masks that is no class's is undeclared.
    """
    background = options.background_index(classes, guess=True)
    table = options.label_table(classes)
    names = {label: index for label, index in table.items() if label is not None}
    mask: NDArray[np.uint8] | None = None
    undeclared: dict[str | int, int] = {}
    layers = []
    for file in mask_files(path):
        label = _class_part(path, file)
        named, index = label.casefold() in names, names.get(label.casefold(), names.get(ANY_LABEL))
        if CLASS_PART not in path.parts and not named and (index is None or _of_another(path, image, label)):
            continue  # "a_{class}.png" also finds what belongs to an image "a_b"
        layers.append((IGNORE_INDEX if index is None else index, label, file))
    for index, label, file in sorted(layers, key=lambda layer: layer[0]):
        covered = _read_pixels(file, _COVERED, None, MaskOptions(instances="all"))
        mask = np.full(covered.shape, background, dtype=np.uint8) if mask is None else mask
        if covered.shape != mask.shape:
            raise DataError(f"{file} is {covered.shape[0]} × {covered.shape[1]} pixels, those of other classes differ")
        mask[covered == 1] = index
        if label.casefold() not in names and ANY_LABEL not in names and (covered == 1).any():
            undeclared[label] = int((covered == 1).sum())
    if mask is None:
        raise FileError(f"{path} stands for no file of a class; classes are {', '.join(classes.names)}")
    if undeclared and not options.tolerant:
        raise UndeclaredError(
            f"undeclared masks: {', '.join(map(str, undeclared))}; declare them as classes, as 'labels' of a class, or "
            "under 'ignore_labels'",
            undeclared,
        )
    return mask


def _of_another(path: Path, image: Path | None, label: str) -> bool:
    """Whether the label "b_road" of "a_{class}.png" speaks of "road" in another image "a_b" beside "a"."""
    before = path.name.partition(CLASS_PART)[0]
    if image is None or not before.startswith(image.stem) or before == image.stem:
        return False
    joint = before.removeprefix(image.stem)
    ends = (place for place in range(1, len(label)) if label.startswith(joint, place))
    return any(is_file(image.with_name(f"{image.stem}{joint}{label[:end]}{image.suffix}")) for end in ends)


def _class_part(path: Path, file: Path) -> str:
    """Return what "{class}" stands for in the path of a file."""
    before, _, after = str(path).partition(CLASS_PART)
    return str(file)[len(before) : len(str(file)) - len(after)]


def resized_mask(mask: NDArray[np.uint8], shape: tuple[int, int]) -> NDArray[np.uint8] | None:
    """Bring a mask to its image's size, each pixel from the nearest.

    Args:
        mask: (h, w) class indices.
        shape: (height, width) of the image.

    Returns:
        (height, width) class indices; None where the proportions differ by more than a pixel.
    """
    (rows, cols), (height, width) = mask.shape, shape
    if abs(rows * width / height - cols) > 1 and abs(cols * height / width - rows) > 1:
        return None
    return nearest_pixels(mask, shape)


def nearest_pixels(array: NDArray[Any], shape: tuple[int, int]) -> NDArray[Any]:
    """Bring an array (h, w) to another (height, width), each value from the nearest pixel."""
    row, col = ((np.arange(new) + 0.5) * old / new for new, old in zip(shape, array.shape, strict=True))
    nearest: NDArray[Any] = array[row.astype(np.intp)[:, np.newaxis], col.astype(np.intp)]
    return nearest


def _refuse_other_place(path: Path, image: Path) -> None:
    """Refuse a raster of its image's size that says it lies elsewhere; other sizes are told with both sizes."""
    mask, place = read_georeference(path), read_georeference(image)
    if (mask.height, mask.width) == (place.height, place.width) and not place.same_place(mask):
        raise DataError(
            f"the mask {path} lies elsewhere than its image {image}: its transform is {mask.transform}, the image's "
            f"{place.transform}; warp it onto the image's grid"
        )


def _read_small(path: Path, header: Header, classes: ClassMap, options: MaskOptions) -> NDArray[np.uint8]:
    """Read a mask that Pillow decodes, upright: numbers or colors, and an alpha band that masks them."""
    with open_pillow(path) as image:
        orientation = orientation_of(image)
        as_numbers = image.mode == "1" or (image.mode == "P" and classes.values is not None)
        plain = image if as_numbers or image.mode in ("L", "LA", "RGB", "RGBA") else image.convert("RGB")
        array = upright(np.array(plain).reshape(image.height, image.width, -1), orientation)
    if as_numbers:
        return _encoded(classes, options.values_of(array[:, :, 0]), None)
    masked = array[:, :, -1] == 0 if array.shape[2] in (2, 4) else None
    if array.shape[2] > 2:
        return _encoded(classes, options.values_of(array[:, :, :3]), masked)
    numbers = array[:, :, 0]
    if classes.values is not None and header.format == "PNG" and header.bits in (2, 4):
        # Pillow stretches 2- and 4-bit gray to 0..255.
        numbers = numbers // np.uint8(255 // (2**header.bits - 1))
    return _encoded(classes, options.values_of(numbers), masked)


def _read_raster(path: Path, header: Header, classes: ClassMap, options: MaskOptions) -> NDArray[np.uint8]:
    refuse_turned(path, header)
    with open_raster(path, header) as dataset:
        masked = _masked_out(dataset)
        alpha = transparency(dataset)
        bands = [number for number in range(1, dataset.count + 1) if number != alpha or dataset.count == 1]
        if classes.values is None and has_palette(dataset):
            return _encoded(classes, np.take(palette_table(dataset), dataset.read(1), axis=0), masked)
        if len(bands) > 1 or classes.values is None:
            return _encoded(classes, options.values_of(np.moveaxis(dataset.read(bands), 0, -1)), masked)
        numbers, nodata = dataset.read(bands[0]), dataset.nodata
    if nodata is not None and nodata not in classes.values:
        empty = np.isnan(numbers) if np.isnan(nodata) else numbers == nodata
        masked = empty if masked is None else masked | empty
    return _encoded(classes, options.values_of(numbers), masked)


def _masked_out(dataset: Any) -> NDArray[np.bool_] | None:
    """Return which pixels the file itself masks out, by a mask or by a transparency band; None where it has neither."""
    alpha = transparency(dataset)
    if alpha is not None and dataset.count > 1:
        return np.asarray(dataset.read(alpha) == 0)
    if has_mask(dataset.mask_flag_enums[0]):
        return np.asarray(dataset.read_masks(1) == 0)
    return None


def _encoded(classes: ClassMap, pixels: NDArray[Any], masked: NDArray[np.bool_] | None) -> NDArray[np.uint8]:
    """Turn (H, W) numbers or (H, W, 3) colors into class indices; what is masked out is ignored, whatever it holds."""
    if masked is None or not masked.any():
        return classes.encode(pixels)
    if classes.values is None and pixels.shape[-1:] == (1,):
        pixels = pixels[:, :, 0]
    index = np.full(masked.shape, IGNORE_INDEX, dtype=np.uint8)
    index[~masked] = classes.encode(pixels[~masked][:, np.newaxis])[:, 0]
    return index
