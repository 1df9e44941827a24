"""What a figure is to the page: a drawing with its words."""

from __future__ import annotations

import re
from dataclasses import dataclass

from segshrink.report.themes import Draw

SIZE = (3.8, 2.9)
"""Inches of an ordinary figure: at a phone's width its letters are as large as the page's small ones."""


@dataclass(frozen=True)
class Panel:
    """One figure: ``key`` is its file name; a ``wide`` one scrolls on a phone rather than shrinks."""

    key: str
    title: str
    alt: str
    draw: Draw
    note: str = ""
    wide: bool = False
    color: str | None = None
    leaking: bool = False
    subject: str = ""

    @property
    def full_title(self) -> str:
        """The title of the picture file, which stands without the page's headings."""
        title = f"{self.subject}: {self.title}" if self.subject else self.title
        return f"{title} (leaking split)" if self.leaking else title


def slug(text: str) -> str:
    """Return a part of a file name: small letters, digits and underscores."""
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")[:40] or "unnamed"
