"""Finding files by wildcards: ``*``, ``?``, ``[...]``, and ``**/`` for any folders."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

WILDCARD = re.compile(r"[*?\[]")
_ANY_FOLDERS = "**"
_Kind = Literal["is_file", "is_dir"]


def is_file(path: Path) -> bool:
    """Whether a path is a file or a link to one: no folder, device, pipe or socket, and no name that none can have."""
    return _is(path, "is_file")


def find_files(pattern: str, root: Path) -> list[str]:
    """Find the files that match a wildcard, sorted.

    Hidden files and folders (a name that starts with a dot) are found only by a part that starts with a dot. Links are
    followed, but ``**/`` enters each folder once, however many links lead there.

    Args:
        pattern: The wildcard, with "/" between folders; an absolute one is not relative to ``root``.
        root: The folder where it starts.

    Returns:
        Paths as the pattern spells them: relative to ``root``, or absolute.
    """
    # A leading "/" (or a Windows drive) stays in front of every path found.
    anchor = Path(pattern).anchor.replace("\\", "/")
    steps = [step for step in pattern[len(anchor) :].split("/") if step not in ("", ".")]
    return sorted(set(_matching(root, anchor, steps, "is_file")))


def find_folders(pattern: str, root: Path) -> list[str]:
    """Find the folders that match a wildcard, sorted; otherwise as ``find_files``."""
    return sorted(set(_matching(root, "", pattern.split("/"), "is_dir")))


def _matching(root: Path, reached: str, steps: list[str], kind: _Kind) -> Iterator[str]:
    """Yield what matches ``steps`` from the folder ``reached`` on, which ends with "/" or is empty."""
    step, rest = (steps[0], steps[1:]) if steps else ("", [])
    if step == _ANY_FOLDERS:
        for folder in _folders_below(root, reached):
            yield from _matching(root, folder, rest or ["*"], kind)
        return
    entries = _entries(root / reached, step) if WILDCARD.search(step) else {step: root / reached / step}
    for name, entry in entries.items():
        if not rest:
            if _is(entry, kind):
                yield reached + name
        elif _is(entry, "is_dir"):
            yield from _matching(root, f"{reached}{name}/", rest, kind)


def _entries(folder: Path, step: str) -> dict[str, os.DirEntry[str]]:
    matches = re.compile(fnmatch.translate(step)).match
    try:
        with os.scandir(folder) as entries:
            return {
                entry.name: entry
                for entry in entries
                if matches(entry.name) and (entry.name[0] != "." or step[0] == ".")
            }
    except (OSError, ValueError):
        return {}


def _folders_below(root: Path, start: str) -> Iterator[str]:
    """Yield ``start`` and all folders below it, each real folder once; links come last."""
    visited: set[tuple[int, int]] = set()
    links: list[str] = []
    waiting = [start]
    while waiting or links:
        reached = waiting.pop() if waiting else links.pop(0)
        try:
            status = os.stat(root / reached)  # noqa: PTH116
            with os.scandir(root / reached) as entries:
                folders = sorted(
                    (entry for entry in entries if entry.name[0] != "." and _is(entry, "is_dir")), key=_name
                )
        except (OSError, ValueError):
            continue
        if (status.st_dev, status.st_ino) in visited:
            continue
        visited.add((status.st_dev, status.st_ino))
        yield reached
        for entry in folders:
            (links if entry.is_symlink() else waiting).append(f"{reached}{entry.name}/")


def _is(entry: os.DirEntry[str] | Path, kind: _Kind) -> bool:
    """Whether a path is of a kind; what a folder's listing says already isn't asked again."""
    try:
        return entry.is_file() if kind == "is_file" else entry.is_dir()
    except (OSError, ValueError):  # a link to itself, or a name that none can have
        return False


def _name(entry: os.DirEntry[str]) -> str:
    return entry.name
