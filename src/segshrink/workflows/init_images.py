"""``init`` of images without masks: a teacher says what their classes are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from segshrink.colors import format_color
from segshrink.data.mask_survey import MOST_PAIRS
from segshrink.errors import DataError, SegshrinkError
from segshrink.files import expanded, write_text, writing
from segshrink.imagery import probe
from segshrink.prediction import open_backend
from segshrink.workflows.init_files import (
    DATA,
    EXCLUDED,
    IMAGES,
    RECIPE,
    InitResult,
    broken_lines,
    list_text,
    name_of,
    relative,
    yaml_value,
)
from segshrink.workflows.starting_recipe import recipe_text, starting_sizes
from segshrink.workflows.starting_teacher import teacher_list


def init_images(folder: Path, out: Path, images: Sequence[str], teacher: str) -> InitResult:
    """Write a description of images without masks; classes are the teacher's."""
    try:
        classes = open_backend(expanded(teacher.rpartition(":")[2])).classes
    except SegshrinkError as error:
        raise DataError(
            f"no image in {folder} has a mask, so classes must be the teacher's, but {error}; write the description by "
            "hand, with the teacher's classes in its order"
        ) from error
    infos, broken = [], {}
    for image in images[:: max(1, len(images) // MOST_PAIRS)]:
        try:
            infos.append(probe(folder / image))
        except SegshrinkError as error:
            broken[image] = str(error)
    if not infos:
        raise DataError(f"none of the {len(images)} images in {folder} can be read; {images[0]}: {broken[images[0]]}")
    outside = relative(out.resolve(), folder)
    suffixes = {Path(image).suffix for image in images}
    pattern = f"**/*{suffixes.pop()}" if len(suffixes) == 1 else f"{outside}/{IMAGES}"
    name = name_of(folder)
    files: dict[str, str] = {}
    lines = [
        "# Written by segshrink init from images without masks; classes are the teacher's.",
        f"name: {yaml_value(name)}",
        f"root: {yaml_value(relative(folder, out.resolve()))}",
        f"images: {yaml_value(pattern)}  # {len(images)} images",
        *(broken_lines(broken, f"{outside}/{EXCLUDED}", files, what="images", excluded=True) if broken else ()),
        "classes:",
    ]
    for value, (label, color) in enumerate(zip(classes.names, classes.colors, strict=True)):
        lines.append(f"  - {{name: {yaml_value(label)}, value: {value}, color: {yaml_value(format_color(color))}}}")
    if suffixes:
        files[IMAGES] = list_text(images)
    files[DATA] = "\n".join([*lines, ""])
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        for file, text in files.items():
            write_text(out / file, text)
        pixels = sum(info.height * info.width for info in infos) / len(infos) * len(images)
        sizes = starting_sizes(
            train_pixels=pixels,
            val_pixels=pixels / 5,
            sides=[min(info.height, info.width) for info in infos],
            classes=len(classes),
            bands=infos[0].bands,
            own_teacher=False,
            students=1,
        )
        plain = infos[0].bands == 3 and infos[0].dtype == "uint8"
        text = recipe_text(name, sizes, teachers=teacher_list(teacher), plain_bytes=plain, labeled=False)
        write_text(out / RECIPE, text)
    shares = dict.fromkeys(classes.names, math.nan)
    return InitResult(out / DATA, out / RECIPE, 0, shares, (), sizes.hours, sizes.compress_hours)
