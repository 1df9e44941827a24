"""How text and numbers are written: names made safe to show, one form for each kind of number."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

import yaml

NOTHING = "–"

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


def markdown(text: str) -> str:
    """Return text whose signs Markdown and HTML would obey are escaped."""
    return re.sub(r"([\\`*_{}\[\]<>#|~&])", r"\\\1", text)


def printable_json(value: object) -> str:
    """Return a value as indented JSON whose unprintable characters are written as JSON's own escapes."""
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
    return "".join(
        letter if letter.isprintable() or letter == "\n" else json.dumps(letter).strip('"') for letter in text
    )


def folder_name(text: str, fallback: str) -> str:
    """Return text as the name of a folder: letters, digits, dots and hyphens; ``fallback`` where nothing is left."""
    return re.sub(r"[^\w.-]+", "-", text).strip("-.") or fallback


def flow_yaml(value: object) -> str:
    """Return a plain value as YAML on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=2**20)
    return text.removesuffix("...\n").strip()


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


def score(value: float | None) -> str:
    """Write a share from 0 to 1 with three digits."""
    return NOTHING if value is None else f"{value:.3f}"


def points(difference: float) -> str:
    """Write a difference of two shares in points (hundredths), with its sign.

    Example:
        >>> points(0.0123)
        '+1.2 points'
    """
    rounded = round(100 * difference, 1)
    sign = "+" if rounded > 0 else "−" if rounded < 0 else "±"
    return f"{sign}{abs(rounded):.1f} points"


def count(value: float | None) -> str:
    """Write a whole number with thousands separated."""
    return NOTHING if value is None else f"{value:,.0f}"


def scaled(value: float | None) -> str:
    """Write a large count with three digits and k, M, G or T."""
    if value is None:
        return NOTHING
    rounded = float(f"{value:.3g}")
    for factor, suffix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(rounded) >= factor:
            return f"{rounded / factor:.3g} {suffix}"
    return f"{value:.0f}"


def size(bytes_: float | None) -> str:
    """Write a number of bytes in kB or MB (powers of ten)."""
    if bytes_ is None:
        return NOTHING
    return f"{bytes_ / 1e6:,.1f} MB" if round(bytes_, -2) >= 1e6 else f"{bytes_ / 1e3:,.1f} kB"


def milliseconds(value: float | None) -> str:
    """Write a time in ms with about three digits."""
    if value is None:
        return NOTHING
    digits = 0 if round(value, 1) >= 100 else 1 if round(value, 2) >= 10 else 2
    return f"{value:,.{digits}f} ms"


def memory(megabytes: float | None) -> str:
    """Write a number of MB."""
    return NOTHING if megabytes is None else f"{megabytes:,.0f} MB"


def duration(seconds: float | None) -> str:
    """Write a time of training."""
    if seconds is None:
        return NOTHING
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def ratio(value: float, reference: float, words: tuple[str, str]) -> str:
    """Write how far ``value`` is below or above ``reference``, such as "8.4× fewer", "30 % more" or "1.3× faster".

    Below twice, amounts are told in per cent; speeds never are.
    """
    if value <= 0 or reference <= 0:
        return ""
    share = value / reference
    if 0.995 <= share < 1.005:
        return "the same"
    factor, word = (1 / share, words[0]) if share < 1 else (share, words[1])
    if factor < 2 and word not in ("faster", "slower"):
        return f"{round(100 * abs(share - 1))}\N{NO-BREAK SPACE}% {word}"
    return f"{factor:,.0f}× {word}" if factor >= 100 else f"{factor:.3g}× {word}"


def percent(share: float | None) -> str:
    """Write a share as per cent that never breaks over lines."""
    return NOTHING if share is None else f"{float(f'{100 * share:.3g}'):,g}\N{NO-BREAK SPACE}%"


def plain(value: float | None) -> str:
    """Write a whole number as it is."""
    return NOTHING if value is None else f"{value:.0f}"


def interval(bounds: tuple[float, float] | None) -> str:
    """Write an interval of shares."""
    return "" if bounds is None else f"{bounds[0]:.3f}–{bounds[1]:.3f}"


def percent_interval(low: float | None, high: float | None) -> str:
    """Write an interval of shares as per cent; empty where it is unknown."""
    return "" if low is None or high is None else f"{100 * low:.3g}–{100 * high:.3g}\N{NO-BREAK SPACE}%"


def day(moment: str | None) -> str:
    """Write the date and minute of an ISO time; other texts stay as they are."""
    return NOTHING if not moment else moment[:16].replace("T", " ") if moment[4:5] == "-" else moment


def listing(words: list[str]) -> str:
    """Join words with commas and "and"."""
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)


def _escape(letter: str) -> str:
    if re.fullmatch(r"[\t\n\r\v\f]", letter):
        return " "
    if "\udc80" <= letter <= "\udcff":  # a byte that isn't UTF-8, as Python decodes file names
        return f"\\x{ord(letter) - 0xDC00:02x}"
    return letter.encode("unicode_escape").decode("ascii")
