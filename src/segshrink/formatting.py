"""Text that is safe to show: names of files and classes may hold anything."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

_HARD_SPACE = "\N{NO-BREAK SPACE}"
# Letters of one sentence for a user.
_LONGEST = 1000
# Letters of a path among others.
_LONGEST_ITEM = 250


def printable(text: str) -> str:
    """Return text on one line, with everything that a terminal would obey written as Python writes it in a string.

    Line breaks and tabs become spaces; bytes of file names that aren't UTF-8 are written as hexadecimal numbers.
    """
    return "".join(letter if letter.isprintable() or letter == _HARD_SPACE else _escape(letter) for letter in text)


def printable_json(value: object) -> str:
    """Return a value as indented JSON whose unprintable characters are written as JSON's own escapes."""
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
    return "".join(
        letter if letter.isprintable() or letter == "\n" else json.dumps(letter).strip('"') for letter in text
    )


def shortened(text: str, limit: int = _LONGEST) -> str:
    """Cut the middle out of text that is longer than ``limit``; its end often says what to do."""
    if len(text) <= limit:
        return text
    kept = limit - 5
    start = kept * 2 // 3
    return f"{text[:start]} ... {text[start - kept :]}"


def listed(items: Sequence[str], limit: int = 3) -> str:
    """Return the first items, each shortened, and how many more there are."""
    more = f" and {len(items) - limit} more" if len(items) > limit else ""
    return ", ".join(shortened(item, _LONGEST_ITEM) for item in items[:limit]) + more


def _escape(letter: str) -> str:
    if re.fullmatch(r"[\t\n\r\v\f]", letter):
        return " "
    if "\udc80" <= letter <= "\udcff":  # a byte that isn't UTF-8, as Python decodes file names
        return f"\\x{ord(letter) - 0xDC00:02x}"
    return letter.encode("unicode_escape").decode("ascii")
