"""Wildcards that remember what their ``*`` parts stood for, and list files."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from functools import cached_property
from itertools import takewhile
from pathlib import Path, PurePosixPath

from segshrink.errors import DataError, FileError
from segshrink.file_search import find_files, find_folders, is_file
from segshrink.formatting import listed

LIST_SUFFIXES = (".txt", ".lst", ".csv", ".tsv")
# What a table's header calls its first column.
_HEADER = re.compile(r"(?i)\W*(image|img|file|name|path|id|tile|scene|sample)s?([ _-]?(id|name|path|file)s?)?\W*")

# "**/" any folders, "*" any characters of one name, "?" one character, "[...]" one of some characters.
_TOKEN = re.compile(r"(?<![^/])\*\*/|\*+|\?|\[!?[^\]/]+\]")

# The suffix of a file's name, where no wildcard is in it.
_SUFFIX = re.compile(r"(?<=[^/])\.[A-Za-z0-9]+$")


class Wildcard:
    """A path with ``*``, ``**/``, ``?`` and ``[...]``, relative to a folder; each of these is one part."""

    def __init__(self, text: str) -> None:
        self.text = text.removeprefix("./")
        self._literals = _TOKEN.split(self.text)
        self._tokens = _TOKEN.findall(self.text)
        suffix = _SUFFIX.search(self.text)
        self._suffix = suffix[0] if suffix else ""

    @property
    def parts(self) -> int:
        """How many parts are open."""
        return len(self._tokens)

    @property
    def beginning(self) -> str:
        """What every path that matches begins with."""
        return self._literals[0]

    @cached_property
    def expression(self) -> re.Pattern[str]:
        """The regular expression of a whole path, one group a part."""
        pieces = [re.escape(self._literals[0])]
        for token, literal in zip(self._tokens, self._literals[1:], strict=True):
            pieces += [f"({_translated(token)})", re.escape(literal)]
        text, suffix = "".join(pieces), re.escape(self._suffix)
        return re.compile(f"{text.removesuffix(suffix)}(?i:{suffix})" if suffix else text, re.DOTALL)

    def match(self, path: str) -> tuple[str, ...] | None:
        """Return what the parts stand for in ``path`` ("/" between folders), None if it doesn't match."""
        match = self.expression.fullmatch(path)
        return match.groups() if match else None

    def fill(self, parts: Sequence[str]) -> str:
        """Return the path in which the parts stand for ``parts``."""
        pieces = [self._literals[0]]
        for part, literal in zip(parts, self._literals[1:], strict=True):
            pieces += [part, literal]
        return "".join(pieces)

    def files(self, root: Path) -> dict[str, tuple[str, ...]]:
        """Find files under ``root``: path relative to ``root`` → what the parts stand for, sorted by path.

        Hidden files and folders (a name that starts with a dot) are left out. The suffix counts in any case.
        """
        paths: dict[str, tuple[str, ...]] = {}
        any_case = "".join(f"[{letter.lower()}{letter.upper()}]" for letter in self._suffix[1:])
        for path in find_files(f"{self.text.removesuffix(self._suffix[1:])}{any_case}", root):
            parts = self.match(path)
            if parts is not None:
                paths[path] = parts
        return paths


def is_list_file(text: str) -> bool:
    """Whether ``text`` names a list file rather than a wildcard."""
    return not _TOKEN.search(text) and text.lower().endswith(LIST_SUFFIXES)


def common_wildcard(paths: Sequence[str], *, whole_stems: bool = False) -> str:
    """Return a wildcard with * where paths differ, in whole words; one for all folders where their number differs.

    Args:
        paths: With "/" between folders.
        whole_stems: Let * stand for the whole stem, as where each image has a file of its own.

    Example:
        >>> common_wildcard(["train2017/a.jpg", "val2017/b.jpg"])
        '*2017/*.jpg'
    """
    steps = [path.split("/") for path in paths]
    suffixes = {PurePosixPath(path).suffix for path in paths}
    suffix = suffixes.pop() if len(suffixes) == 1 else ""
    last = (
        "*"
        if whole_stems
        else _common_step(
            sorted({PurePosixPath(path).stem for path in paths} if suffix else {each[-1] for each in steps})
        )
    )
    folders = [_common_step(sorted(set(column))) for column in zip(*(each[:-1] for each in steps), strict=False)]
    if len({len(each) for each in steps}) > 1:
        folders.append("**")
    return "/".join([*folders, last]) + suffix


def _common_step(names: Sequence[str]) -> str:
    """Return what names have in common at both ends, in whole words, with * between; the name where it is one."""
    if len(names) == 1:
        return names[0]
    before = re.sub(r"[A-Za-z]+$|\d+$", "", _common_start(names))
    after = re.sub(r"^[A-Za-z]+", "", _common_start([name[len(before) :][::-1] for name in names])[::-1])
    return f"{before}*{after}"


def _common_start(names: Sequence[str]) -> str:
    columns = takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))
    return "".join(letters[0] for letters in columns)


def escaped(text: str) -> str:
    """Return a wildcard that means a text itself.

    Example:
        >>> escaped("tile [1]")
        'tile [[]1]'
    """
    return re.sub(r"[*?\[]", r"[\g<0>]", text)


def has_wildcards(text: str) -> bool:
    """Whether ``text`` holds ``*``, ``?`` or ``[...]``."""
    return bool(_TOKEN.search(text))


def with_lower_suffix(path: str) -> str:
    """Return a path with its suffix in lower case."""
    suffix = PurePosixPath(path).suffix
    return path.removesuffix(suffix) + suffix.lower()


def existing_end(path: str, root: Path) -> str | None:
    """Return the longest end of a path that is a file under ``root``: lists often begin with another machine's folders.

    None where there is none.
    """
    steps = path.split("/")
    ends = ("/".join(steps[start:]) for start in range(len(steps)))
    return next((end for end in ends if end and is_file(root / end)), None)


def read_lines(path: Path, *, purpose: str) -> list[str]:
    """Read the lines of a list file, without blank ones, those that start with "#", and a table's header.

    Args:
        path: The text file (UTF-8).
        purpose: What the description uses it for, named in errors ("split.train").

    Raises:
        FileError: The file is missing, unreadable or not text.
        DataError: It holds no line.
    """
    if not is_file(path):  # a pipe or device may never end
        raise FileError(f"can't read the list file {path} of '{purpose}': there is no such file; check the path")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise FileError(f"can't read the list file {path} of '{purpose}': {reason}; check the path") from error
    lines = [line.strip() for line in text.splitlines()]
    lines = [line.removeprefix("./") for line in lines if line and not line.startswith("#")]
    if path.suffix.lower() in (".csv", ".tsv") and lines and _HEADER.fullmatch(re.split(r"[,;\t]", lines[0])[0]):
        lines = lines[1:]
    if not lines:
        raise DataError(f"the list file {path} of '{purpose}' is empty; write one entry a line")
    return lines


def columns(line: str, root: Path) -> tuple[str, str | None]:
    """Split a line "image" or "image mask" of a list file; paths may hold spaces.

    Columns stand apart by a tab, a comma or a space. A space counts only where what stands before it is a file.
    """
    for separator in ("\t", ","):
        if separator in line:
            first, _, second = line.partition(separator)
            return first.strip(), second.strip() or None
    if " " in line and not is_file(root / line):
        for spaces in re.finditer(r" +", line):
            if existing_end(line[: spaces.start()], root) is not None:
                return line[: spaces.start()], line[spaces.end() :]
    return line, None


def whats_there(root: Path, pattern: str) -> str:
    """Say how far ``pattern`` reaches under ``root`` and what is in the folder where it ends."""
    folders = pattern.split("/")[:-1]
    reached = ""
    for count in range(1, len(folders) + 1):
        here = find_folders("/".join(folders[:count]), root)
        if not here:
            break
        reached = here[0]
    folder = root / reached
    try:
        names = sorted(f"{entry.name}/" if entry.is_dir() else entry.name for entry in os.scandir(folder))
    except OSError as error:
        return f"{folder} can't be listed ({error.strerror})"
    if not names:
        return f"{folder} is empty"
    return f"{folder} holds {listed(names, 6)}"


def _translated(token: str) -> str:
    if token.startswith("["):
        return "[^" + token[2:] if token.startswith("[!") else token
    return {"?": "[^/]", "**/": "(?:[^/]+/)*"}.get(token, "[^/]*")
