"""What ``init`` writes, and how names and values stand in it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segshrink.data.layout import IMAGE_SUFFIXES, part_of
from segshrink.data.path_words import is_mask_word, words_of
from segshrink.formatting import folder_name, listed, printable

DATA, RECIPE, PAIRS, UNLABELED, EXCLUDED = "data.yaml", "recipe.yaml", "pairs.txt", "unlabeled.txt", "exclude.txt"
IMAGES = "images.txt"
# Broken pairs that the description itself names; more stand in a file.
_FEW = 20
_PLAIN = re.compile(r"[A-Za-z][\w ./*+()-]*(?<! )")
_ARRAYS = (".npy", ".npz", ".mat", ".h5", ".hdf5", ".nc", ".nii", ".nii.gz", ".dcm", ".mha")
_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".rar", ".7z")
_TEXTS = (".json", ".ndjson", ".xml", ".txt", ".csv")
# What may be masks in another form → what to do.
_REMEDIES = {
    _ARRAYS: ", which are arrays: write them as images (PNG or TIFF), or give a function that reads them "
    "(docs/annotations.md)",
    _ARCHIVES: ": unpack them first",
    _TEXTS: ", which may be annotations: export them as COCO with outlines, or as mask images (PNG) in masks/, of the "
    "images' names",
}
_WORDS = ("yes", "no", "on", "off", "true", "false", "null", "y", "n")


@dataclass(frozen=True)
class InitResult:
    """What was written, and what should be looked at.

    Attributes:
        data: The data set description.
        recipe: The recipe.
        pairs: Images with masks; 0 where a teacher alone teaches.
        classes: Class name → share of the pixels that were looked at, 0 to 1; NaN without masks.
        unsure: What wasn't sure, one sentence each; marked in the files, too.
        hours: To expect for ``distill``, with its control; None where nothing could be measured.
        compress_hours: The same for ``compress``.
    """

    data: Path
    recipe: Path
    pairs: int
    classes: dict[str, float]
    unsure: tuple[str, ...]
    hours: float | None
    compress_hours: float | None


def is_image(name: str) -> bool:
    """Tell whether a file's suffix is one of images."""
    return Path(name).suffix.lower() in IMAGE_SUFFIXES


def name_of(folder: Path) -> str:
    """Return a name for what lies in a folder, which is called "train" where that is a part of it."""
    folder = folder.parent if part_of(folder.name) and folder.parent.name else folder
    return folder_name(folder.name, "data")


def broken_lines(
    broken: dict[str, str], list_file: str, files: dict[str, str], *, excluded: bool, what: str = "pairs"
) -> list[str]:
    """Say which images or pairs are left out and why; ``files`` gets the list where they are many."""
    lines = [f"# {len(broken)} {what} are broken and left out:"]
    if excluded and len(broken) > _FEW:
        files[EXCLUDED] = list_text(broken)
        lines.append(f"exclude: {yaml_value(list_file)}")
    elif excluded:
        lines.append("exclude:")
    shown = list(broken.items())[:_FEW]
    for image, reason in shown:
        entry = f"  - {yaml_value(image)}  " if excluded and len(broken) <= _FEW else f"#   {printable(image)}  "
        lines.append(f"{entry}# {printable(reason)[:200]}")
    return lines


def list_text(entries: Iterable[str]) -> str:
    """Write a list file, a line an entry; one that begins like a comment gets a beginning of its own."""
    return "".join(f"{'./' if entry.startswith('#') else ''}{entry}\n" for entry in entries)


def relative(path: Path, start: Path) -> str:
    """Write a path as descriptions do, relative to a folder."""
    return os.path.relpath(path, start).replace(os.sep, "/")


def yaml_value(value: Any) -> str:
    """Write a plain value as YAML, texts in quotes where they need them."""
    text = str(value)
    if isinstance(value, str) and not (_PLAIN.fullmatch(text) and text.lower() not in _WORDS):
        return json.dumps(text, ensure_ascii=False)
    return text


def whats_there(names: Sequence[str]) -> str:
    """Say what was found instead of pairs, and what helps."""
    if not names:
        return "it holds no file; check the path"
    images = [name for name in names if is_image(name)]
    held = (
        f"it holds {len(images)} images ({listed(images)})"
        if images
        else f"it holds {len(names)} files ({listed(list(names))})"
    )
    masks = [name for name in images if any(map(is_mask_word, words_of(name)))]
    if images and len(masks) == len(images):
        return f"{held}, which are all masks by their names; put the images they were drawn on beside them, in images/"
    if 2 * len(masks) > 3 * (len(images) - len(masks)):
        return f"{held}, {len(masks)} of them masks; where each object has a mask, merge those of an image into one"
    for suffixes, remedy in _REMEDIES.items():
        if beside := [name for name in names if name.lower().endswith(suffixes)]:
            return f"{held}{'' if images else ' and none is an image'}, and {listed(beside)}{remedy}"
    if not images:
        return f"{held} and none is an image; check the path"
    return f"{held}; put images into images/ and masks of the same names into masks/, or give masks the suffix _mask"
