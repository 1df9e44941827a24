"""How numbers are written: one form each, everywhere on the page."""

from __future__ import annotations

NOTHING = "–"


def score(value: float | None) -> str:
    """Write a share from 0 to 1 with three digits."""
    return NOTHING if value is None else f"{value:.3f}"


def points(difference: float) -> str:
    """Write a difference of two shares in points (hundredths), with its sign."""
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
    for factor, suffix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= factor:
            return f"{value / factor:.3g} {suffix}"
    return f"{value:.0f}"


def size(bytes_: float | None) -> str:
    """Write a number of bytes in kB or MB (powers of ten)."""
    if bytes_ is None:
        return NOTHING
    return f"{bytes_ / 1e6:,.1f} MB" if bytes_ >= 1e6 else f"{bytes_ / 1e3:,.1f} kB"


def milliseconds(value: float | None) -> str:
    """Write a time in ms with about three digits."""
    if value is None:
        return NOTHING
    return f"{value:,.0f} ms" if value >= 100 else f"{value:.1f} ms" if value >= 10 else f"{value:.2f} ms"


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
    return NOTHING if share is None else f"{100 * share:.3g}\N{NO-BREAK SPACE}%"


def plain(value: float | None) -> str:
    """Write a whole number as it is."""
    return NOTHING if value is None else f"{value:.0f}"


def interval(bounds: tuple[float, float] | None) -> str:
    """Write an interval of shares."""
    return "" if bounds is None else f"{bounds[0]:.3f}–{bounds[1]:.3f}"


def day(moment: str | None) -> str:
    """Write the date and minute of an ISO time; other texts stay as they are."""
    return NOTHING if not moment else moment[:16].replace("T", " ") if moment[4:5] == "-" else moment


def listing(words: list[str]) -> str:
    """Join words with commas and "and"."""
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)
