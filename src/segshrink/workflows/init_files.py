"""What ``init`` writes, and how names and values stand in it."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segshrink.data.layout import IMAGE_SUFFIXES
from segshrink.formatting import printable

DATA, RECIPE, PAIRS, UNLABELED, EXCLUDED = "data.yaml", "recipe.yaml", "pairs.txt", "unlabeled.txt", "exclude.txt"
IMAGES = "images.txt"
# Broken pairs that the description itself names; more stand in a file.
_FEW = 20
_PLAIN = re.compile(r"[A-Za-z][\w ./*+()-]*(?<! )")
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
        hours: To expect for ``distill``; None where nothing could be measured.
    """

    data: Path
    recipe: Path
    pairs: int
    classes: dict[str, float]
    unsure: tuple[str, ...]
    hours: float | None


def is_image(name: str) -> bool:
    """Tell whether a file's suffix is one of images."""
    return Path(name).suffix.lower() in IMAGE_SUFFIXES


def name_of(folder: Path) -> str:
    """Return a name for what lies in a folder."""
    return re.sub(r"[^\w.-]+", "-", folder.name).strip("-.") or "data"


def broken_lines(
    broken: dict[str, str], list_file: str, files: dict[str, str], *, excluded: bool, what: str = "pairs"
) -> list[str]:
    """Say which images or pairs are left out and why; ``files`` gets the list where they are many."""
    lines = [f"# {len(broken)} {what} are broken and left out:"]
    if excluded and len(broken) > _FEW:
        files[EXCLUDED] = "".join(f"{image}\n" for image in broken)
        lines.append(f"exclude: {yaml_value(list_file)}")
    elif excluded:
        lines.append("exclude:")
    shown = list(broken.items())[:_FEW]
    for image, reason in shown:
        entry = f"  - {yaml_value(image)}  " if excluded and len(broken) <= _FEW else f"#   {printable(image)}  "
        lines.append(f"{entry}# {printable(reason)[:200]}")
    return lines


def relative(path: Path, start: Path) -> str:
    """Write a path as descriptions do, relative to a folder."""
    return os.path.relpath(path, start).replace(os.sep, "/")


def yaml_value(value: Any) -> str:
    """Write a plain value as YAML, texts in quotes where they need them."""
    text = str(value)
    if isinstance(value, str) and not (_PLAIN.fullmatch(text) and text.lower() not in _WORDS):
        return json.dumps(text, ensure_ascii=False)
    return text
