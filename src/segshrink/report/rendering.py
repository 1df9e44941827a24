"""Pages from templates: HTML in one file, which works offline, and Markdown; figures for light and dark readers."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib import resources
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined

from segshrink.formatting import markdown
from segshrink.report.panels import Panel, to_files, to_svg
from segshrink.report.pictures import data_uri
from segshrink.version import __version__


def render(template: str, **values: Any) -> str:
    """Fill in a file of the folder ``template``, which has beside the values ``version``, ``style`` and ``script``.

    ``drawn(panel)`` gives a figure for light and for dark readers.
    """
    environment = Environment(
        loader=FunctionLoader(_file),
        autoescape=template.endswith(".html"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["md"] = markdown
    script = _file("script.js")
    return environment.get_template(template).render(
        version=__version__,
        drawn=lambda panel: [data_uri(svg, "image/svg+xml") for svg in to_svg(panel)],
        style=_file("style.css"),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii"),
        **values,
    )


def figure_files(panels: Sequence[Panel]) -> dict[str, bytes]:
    """Return figures as PNG and SVG by the names of their files."""
    return {name: content for panel in panels for name, content in to_files(panel).items()}


def _file(name: str) -> str:
    return resources.files("segshrink.report").joinpath("template", name).read_text(encoding="utf-8")
